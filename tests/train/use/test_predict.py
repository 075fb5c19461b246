"""Predictions for new images: what is in the table, and what a call continues or refuses."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from made_model import model_folder
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from pepr_mlops import RunSpec
from pepr_mlops.data import inputs
from pepr_mlops.data.resize import square
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import MULTI_LABEL
from pepr_mlops.train.use.find import find
from pepr_mlops.train.use.model import Model, open_folder
from pepr_mlops.train.use.predict import Outcome, form_of, predict
from pepr_mlops.train.use.rule import rule_for, threshold_text
from pepr_mlops.train.use.written import errors_path

RNG = np.random.default_rng


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return open_folder(model_folder(tmp_path / "model", thresholds=(0.4,)))


def ask(
    model: Any, data: Path, out: Path, threshold: float | None = None, **options: Any
) -> Outcome:
    split, batch = options.pop("split", None), options.pop("batch", 3)
    new = inputs.find(RunSpec(dataset=str(data), **options), form_of(model.description), split)
    rule = rule_for(model.description, model.weights, threshold)
    return predict(model, new, out, rule, batch_size=batch)


def rows_of(out: Path) -> list[dict[str, str]]:
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def chances_of(rows: list[dict[str, str]], *classes: str) -> np.ndarray:
    return np.array([[float(row[f"probability of {name}"]) for name in classes] for row in rows])


def pictures(folder: Path, n: int = 7, *, rgb: bool = False, seed: int = 0) -> list[np.ndarray]:
    """Noise in PNG files of different sizes, 0.png and on."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i in range(n):
        shape = (20 + i, 30 + 5 * i, 3)[: 3 if rgb else 2]
        made.append(RNG(seed + i).integers(0, 256, shape, dtype=np.uint8))
        Image.fromarray(made[-1]).save(folder / f"{i}.png")
    return made


def test_each_image_of_any_size_has_the_probabilities_of_the_model(
    model: Model, tmp_path: Path
) -> None:
    made = pictures(tmp_path / "new")
    outcome = ask(model, tmp_path / "new", tmp_path / "p.csv")
    rows = rows_of(tmp_path / "p.csv")
    assert list(rows[0]) == [
        *("file", "frame", "class", "probability of dark", "probability of light"),
        *("threshold", "positive"),
    ]
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(7)]
    for row, image in zip(rows, made, strict=True):
        chance = model.of_batch(image[None])[0]  # resized in the graph
        assert chances_of([row], "dark", "light")[0] == pytest.approx(chance, abs=1e-4)
        assert row["class"] == ("light" if chance[1] > chance[0] else "dark")
        assert (row["threshold"], row["positive"]) == ("0.4", "yes" if chance[1] >= 0.4 else "no")
    assert outcome.images == sum(outcome.counts.values()) == 7
    assert outcome.positive == [row["positive"] for row in rows].count("yes")
    assert outcome.faults == []
    assert not errors_path(tmp_path / "p.csv").exists()


def test_a_model_of_grey_images_takes_colour_and_one_of_colour_takes_grey(tmp_path: Path) -> None:
    """They are converted as external sets are."""
    colour, grey = pictures(tmp_path / "c", 3, rgb=True), pictures(tmp_path / "g", 3)
    of_grey = open_folder(model_folder(tmp_path / "1"))
    of_colour = open_folder(model_folder(tmp_path / "3", colour="rgb", channels=3))
    ask(of_grey, tmp_path / "c", tmp_path / "c.csv")
    ask(of_colour, tmp_path / "g", tmp_path / "g.csv")
    luma = np.stack([square(image, 32, "stretch", True) for image in colour])
    repeated = np.stack([square(image, 32, "stretch", True) for image in grey])[..., None]
    for out, chances in (
        ("c.csv", of_grey.of_batch(luma)),
        ("g.csv", of_colour.of_batch(np.repeat(repeated, 3, axis=3))),
    ):
        found = chances_of(rows_of(tmp_path / out), "dark", "light")
        assert found == pytest.approx(chances, abs=1e-6)


def test_deep_images_have_the_black_and_white_of_the_training(tmp_path: Path) -> None:
    """Values are 10 times those of 8 bits, and the bounds of the training say so."""
    model = open_folder(model_folder(tmp_path / "model", bounds=(0.0, 2550.0)))
    made = pictures(tmp_path / "plain", 3)
    (tmp_path / "deep").mkdir()
    for i, image in enumerate(made):
        Image.fromarray(image.astype(np.uint16) * 10).save(tmp_path / "deep" / f"{i}.png")
    for name in ("plain", "deep"):
        ask(model, tmp_path / name, tmp_path / f"{name}.csv")
    assert rows_of(tmp_path / "deep.csv") == rows_of(tmp_path / "plain.csv")


def test_deep_images_without_bounds_of_the_training_have_no_prediction(
    model: Model, tmp_path: Path
) -> None:
    pictures(tmp_path / "new", 2)
    Image.fromarray(np.full((9, 9), 1000, np.uint16)).save(tmp_path / "new" / "deep.png")
    outcome = ask(model, tmp_path / "new", tmp_path / "p.csv")
    ((name, why),) = outcome.faults
    assert (name, outcome.images) == ("deep.png", 2)
    assert why.startswith("needs a window, and the images that the model was trained on have 8")


def test_a_volume_has_a_row_for_each_slice_that_training_would_take(tmp_path: Path) -> None:
    model = open_folder(model_folder(tmp_path / "model", every=2))
    volume = RNG(0).integers(0, 256, (12, 14, 5), dtype=np.uint8)
    (tmp_path / "new").mkdir()
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "new" / "v.nii.gz")
    pictures(tmp_path / "new", 1)
    outcome = ask(model, tmp_path / "new", tmp_path / "p.csv", batch=2)
    rows = rows_of(tmp_path / "p.csv")
    assert [(row["file"], row["frame"]) for row in rows] == [
        *[("0.png", "0"), ("v.nii.gz", "0"), ("v.nii.gz", "2"), ("v.nii.gz", "4")]
    ]
    assert outcome.images == 4


def test_a_damaged_file_is_listed_and_the_others_are_predicted(
    model: Model, tmp_path: Path
) -> None:
    pictures(tmp_path / "new")
    (tmp_path / "new" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    (tmp_path / "new" / "5.dcm").write_bytes(b"")
    out = tmp_path / "p.csv"
    outcome = ask(model, tmp_path / "new", out)
    assert [name for name, _ in outcome.faults] == ["3.png", "5.dcm"]
    assert [row["file"] for row in rows_of(out)] == [f"{i}.png" for i in (0, 1, 2, 4, 5, 6)]
    assert outcome.errors == tmp_path / "p.errors.csv"
    assert [row["file"] for row in rows_of(outcome.errors)] == ["3.png", "5.dcm"]
    assert rows_of(outcome.errors)[1]["error"] == "is empty; copy it again or remove it"
    Image.new("L", (8, 8)).save(tmp_path / "new" / "3.png")  # repaired
    (tmp_path / "new" / "5.dcm").unlink()
    outcome = ask(model, tmp_path / "new", out)
    assert sorted(row["file"] for row in rows_of(out)) == [f"{i}.png" for i in range(7)]
    assert (outcome.faults, outcome.errors) == ([], None)
    assert not errors_path(out).exists()


def test_a_call_that_was_killed_is_continued_to_the_same_table(tmp_path: Path) -> None:
    """Wherever the table ends: in a row, between rows of one volume, in the first line."""
    model = open_folder(model_folder(tmp_path / "model"))
    volume = RNG(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pictures(tmp_path / "new", 2)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "new" / "v.nii")
    out = tmp_path / "p.csv"
    ask(model, tmp_path / "new", out)
    complete = out.read_bytes()
    lines = complete.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines]).tolist()  # of the names of columns, 0, 1, v, …
    for end, earlier in [
        *((0, 0), (5, 0), (ends[0], 0), (ends[0] + 3, 0), (ends[1] - 1, 0), (ends[1], 0)),
        *((ends[1] + 9, 0), (ends[2], 1), (ends[2] + 1, 1), (ends[3], 2), (ends[4] + 4, 2)),
    ]:
        out.write_bytes(complete[:end])
        outcome = ask(model, tmp_path / "new", out)
        assert out.read_bytes() == complete, end
        assert (outcome.images, outcome.earlier) == (5, earlier), end


def test_a_file_with_a_row_is_not_read_again(model: Model, tmp_path: Path) -> None:
    pictures(tmp_path / "new")
    ask(model, tmp_path / "new", tmp_path / "p.csv")
    for name in ("0.png", "5.png"):
        (tmp_path / "new" / name).write_bytes(b"damaged since")
    outcome = ask(model, tmp_path / "new", tmp_path / "p.csv")
    assert (outcome.earlier, outcome.images, outcome.faults) == (6, 7, [])


def test_a_table_of_another_model_threshold_or_folder_is_refused(
    model: Model, tmp_path: Path
) -> None:
    pictures(tmp_path / "new", 2)
    pictures(tmp_path / "more", 2)
    out = tmp_path / "p.csv"
    ask(model, tmp_path / "new", out)
    before = out.read_bytes()
    other = open_folder(model_folder(tmp_path / "other", thresholds=(0.4,), seed=1))
    with pytest.raises(
        WrongUse, match=r"made with weights=[0-9a-f]{32}, not .*; name another --out"
    ):
        ask(other, tmp_path / "new", out)
    with pytest.raises(WrongUse, match=r"made with thresholds=\[0.4\], not \[0.5\]"):
        ask(model, tmp_path / "new", out, 0.5)
    with pytest.raises(WrongUse, match="made with images="):
        ask(model, tmp_path / "more", out)
    assert out.read_bytes() == before


def test_a_table_of_something_else_is_refused(model: Model, tmp_path: Path) -> None:
    pictures(tmp_path / "new", 1)
    out = tmp_path / "labels.csv"
    out.write_text("file,label\n0.png,dark\n")
    with pytest.raises(WrongUse, match=r"labels.csv exists, and labels.model.json, which says"):
        ask(model, tmp_path / "new", out)
    assert out.read_text() == "file,label\n0.png,dark\n"


def test_a_table_that_another_process_writes_is_left_alone(model: Model, tmp_path: Path) -> None:
    import fcntl

    pictures(tmp_path / "new", 1)
    with (tmp_path / "p.csv").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(WorkFailed, match="another process writes"):
            ask(model, tmp_path / "new", tmp_path / "p.csv")


def test_odd_names_are_formulas_of_no_spreadsheet_and_stay_apart(
    model: Model, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    pictures(folder, 1)
    picture = (folder / "0.png").read_bytes()
    for name in (b"=1+1.png", b"a;b,c.png", b'"q".png', b"caf\xe9.png", b"x\ny.png"):
        (Path(folder) / name.decode("utf-8", "surrogateescape")).write_bytes(picture)
    out = tmp_path / "p.csv"
    ask(model, folder, out)
    names = {"0.png", "'=1+1.png", "a;b,c.png", '"q".png', "caf\\udce9.png", "x\\ny.png"}
    assert {row["file"] for row in rows_of(out)} == names
    complete = sorted(out.read_text().splitlines())
    assert ask(model, folder, out).earlier == 5
    assert sorted(out.read_text().splitlines()) == complete
    (folder / "'=1+1.png").write_bytes(picture)
    with pytest.raises(WrongUse, match="1 names are of two files") as refused:
        ask(model, folder, tmp_path / "q.csv")
    assert "1+1" not in refused.value.logged


def test_several_labels_are_named_from_their_thresholds_on(tmp_path: Path) -> None:
    names = ("edema", "nodule", "fracture")
    task = {"task": MULTI_LABEL}
    pictures(tmp_path / "new")
    first = open_folder(model_folder(tmp_path / "1", names, **task))
    ask(first, tmp_path / "new", tmp_path / "1.csv")
    chances = chances_of(rows_of(tmp_path / "1.csv"), *names)
    limits = tuple((np.median(chances, axis=0) - 1e-8).tolist())  # the table has 9 digits
    second = open_folder(model_folder(tmp_path / "2", names, thresholds=limits, **task))
    outcome = ask(second, tmp_path / "new", tmp_path / "2.csv")
    rows = rows_of(tmp_path / "2.csv")
    for row, chance in zip(rows, chances, strict=True):
        over = [name for name, p, limit in zip(names, chance, limits, strict=True) if p >= limit]
        assert row["class"] == ";".join(over)
        assert float(row["threshold of nodule"]) == pytest.approx(limits[1], abs=1e-8)
    assert outcome.counts == dict.fromkeys(names, 4)  # of 7, from the median on
    assert outcome.positive is None


def test_without_a_threshold_the_class_is_the_most_likely_one_and_a_line_says_so(
    tmp_path: Path,
) -> None:
    pictures(tmp_path / "new", 2)
    model = open_folder(model_folder(tmp_path / "model"))
    ask(model, tmp_path / "new", tmp_path / "p.csv")
    assert not {"threshold", "positive"} & set(rows_of(tmp_path / "p.csv")[0])
    rule = rule_for(model.description, model.weights)
    assert threshold_text(rule).endswith("; no threshold was chosen on validation")
    three = open_folder(model_folder(tmp_path / "3", ("a", "b", "c"), thresholds=(0.1, 0.2, 0.3)))
    assert rule_for(three.description, three.weights).thresholds is None


def test_a_threshold_is_a_probability_of_two_classes_or_of_labels(
    model: Model, tmp_path: Path
) -> None:
    with pytest.raises(WrongUse, match=r"threshold: 40 is no probability"):
        rule_for(model.description, model.weights, 40)
    three = open_folder(model_folder(tmp_path / "3", ("a", "b", "c")))
    with pytest.raises(WrongUse, match="has 3 classes, of which the most likely one counts"):
        rule_for(three.description, three.weights, 0.5)


def test_tables_with_similar_names_have_settings_of_their_own(model: Model, tmp_path: Path) -> None:
    pictures(tmp_path / "new", 2)
    for name, limit in (("s.2024", 0.3), ("s.2025", 0.9), ("s.csv", 0.6)):
        ask(model, tmp_path / "new", tmp_path / name, limit)
    assert {path.name for path in tmp_path.glob("s.*.json")} == {
        *("s.2024.model.json", "s.2025.model.json", "s.model.json"),
    }
    with pytest.raises(WrongUse, match="thresholds"):
        ask(model, tmp_path / "new", tmp_path / "s.2024", 0.9)


def test_labels_give_the_metrics_that_scikit_learn_gives(tmp_path: Path) -> None:
    """Classes are the most likely ones; sensitivity and specificity are at the threshold."""
    for seed, label in enumerate(("dark", "light")):
        pictures(tmp_path / "new" / label, 10, seed=10 * seed)
    model = open_folder(model_folder(tmp_path / "model"))
    ask(model, tmp_path / "new", tmp_path / "first.csv")
    light = chances_of(rows_of(tmp_path / "first.csv"), "light")[:, 0]
    limit = float(np.quantile(light, 0.33))  # between two images
    outcome = ask(model, tmp_path / "new", tmp_path / "p.csv", limit)
    found = outcome.evaluation
    assert found is not None
    assert (found.images, found.patients) == (20, None)
    truth = np.repeat([0, 1], 10)
    value = found.metrics.set_index("metric")["value"]
    named = light > 0.5
    assert value["accuracy"] == accuracy_score(truth, named)
    assert value["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, named))
    assert value["auc"] == pytest.approx(roc_auc_score(truth, light))
    assert value["sensitivity"] == pytest.approx((light[10:] >= limit).mean())
    assert value["specificity"] == pytest.approx((light[:10] < limit).mean())
    assert found.classes.to_dict("records") == [
        {"class": "dark", "images": 10, "predicted": (~named).sum(), "right": (~named[:10]).sum()},
        {"class": "light", "images": 10, "predicted": named.sum(), "right": named[10:].sum()},
    ]


def test_intervals_draw_patients_where_a_table_names_them(tmp_path: Path) -> None:
    """Two patients with five images each are fewer observations than ten images."""
    pictures(tmp_path, 10)
    model = open_folder(model_folder(tmp_path / "model", thresholds=(0.5,)))
    lines = [f"{i}.png,{('dark', 'light')[i % 2]},P{i // 5}" for i in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(["file,label,patient", *lines]) + "\n")
    outcome = ask(model, tmp_path / "t.csv", tmp_path / "p.csv", missing="skip")
    assert outcome.evaluation is not None
    assert outcome.evaluation.patients == 2
    assert "P1" not in (tmp_path / "p.csv").read_text()
    assert "P1" not in (tmp_path / "p.model.json").read_text()


def test_a_split_of_a_folder_or_a_data_set_is_taken_alone(
    model: Model, shapes: Path, tmp_path: Path
) -> None:
    assert ask(model, shapes, tmp_path / "a.csv").images == 60
    assert ask(model, shapes, tmp_path / "b.csv", split="test").images == 16
    with pytest.raises(WrongUse, match="has no folder of val"):
        ask(model, shapes / "test", tmp_path / "c.csv", split="val")


def test_the_test_images_of_a_data_set_by_name_are_predicted_with_its_labels(
    pneumonia_root: Path, tmp_path: Path
) -> None:
    model = open_folder(model_folder(tmp_path / "model", ("normal", "pneumonia")))
    outcome = ask(
        *(model, Path("pneumonia"), tmp_path / "p.csv"),
        size=28,
        data_root=str(pneumonia_root),
        batch=64,
    )
    assert outcome.images == 624
    assert outcome.evaluation is not None
    assert outcome.evaluation.classes["images"].tolist() == [234, 390]
    assert rows_of(tmp_path / "p.csv")[7]["file"] == "pneumonia 7"


def test_an_onnx_graph_predicts_as_the_folder_that_it_was_made_of(
    model: Model, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    graph = tmp_path / "onnx"
    graph.mkdir()
    (graph / "model.json").write_bytes((tmp_path / "model" / "model.json").read_bytes())
    sizes = {i: torch.export.Dim(name) for i, name in enumerate(("n", "h", "w"))}
    images = torch.from_numpy(RNG(0).integers(0, 256, (2, 20, 24), dtype=np.uint8))
    traced = torch.export.export(model.classifier, (images,), dynamic_shapes=(sizes,))
    torch.onnx.export(traced, dynamo=True, verbose=False).save(str(graph / "model.onnx"))
    pictures(tmp_path / "new")
    ask(model, tmp_path / "new", tmp_path / "a.csv")
    ask(find(str(graph)), tmp_path / "new", tmp_path / "b.csv")
    first, second = (chances_of(rows_of(tmp_path / f"{n}.csv"), "dark", "light") for n in "ab")
    assert second == pytest.approx(first, abs=1e-4)
    assert rows_of(tmp_path / "b.csv")[0]["threshold"] == "0.4"


def test_a_folder_that_is_not_there_or_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="there is no folder"):
        find(str(tmp_path / "none"))
    with pytest.raises(WrongUse, match=r"model.json cannot be read"):
        find(str(tmp_path))
