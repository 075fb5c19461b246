"""Which of timm's benchmarks are read, and what their names say they were measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepr_mlops.cli import main
from pepr_mlops.comparison import Question, compare
from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import timm_results
from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.tracking import import_runs, read

# Names of files as timm's repository has them, with images per second of resnet18 at 224 pixels.
INFER = {
    "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv": 4000,
    "benchmark-infer-amp-nhwc-pt112-cu113-rtx3090.csv": 3000,
    "benchmark-infer-amp-nchw-pt240-cu124-rtx4090-dynamo.csv": 8000,
    "benchmark-infer-amp-nchw-pt291-cu128-4090-dynamo.csv": 10_000,
    "benchmark-infer-amp_bf16-nchw-pt291-cu130-pro6000maxq-dynamo.csv": 16_000,
    "benchmark-infer-bf16-nchw-pt291-cu130-pro6000maxq-dynamo.csv": 20_000,
    "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv": 100,
}
TRAIN = {
    "benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv": 1000,
    "benchmark-train-amp-nchw-pt110-cu113-rtx3090.csv": 800,
}
NEWEST = "benchmark-infer-bf16-nchw-pt291-cu130-pro6000maxq-dynamo.csv"
ODD = "benchmark-infer-fast-pt300-mycard.csv"  # the newest, of an unknown layout


def _folder(path: Path, *names: str) -> Path:
    """Results of two models, and these benchmarks, which measured one of them."""
    rows = ["resnet18.a1_in1k,224,73.0,91.0,11.69", "vgg11.tv_in1k,224,69.0,88.0,132.86"]
    path.mkdir(parents=True, exist_ok=True)
    (path / "results-imagenet.csv").write_text(
        "\n".join(["model,img_size,top1,top5,param_count", *rows]) + "\n"
    )
    for name in names:
        kind = name.split("-")[1]
        gmacs = (",infer_gmacs", ",1.82") if kind == "infer" else ("", "")
        speed = {**INFER, **TRAIN, ODD: 50_000}[name]
        (path / name).write_text(
            f"model,{kind}_img_size,{kind}_samples_per_sec{gmacs[0]}\nresnet18,224,{speed}{gmacs[1]}\n"
        )
    return path


def _resnet(folder: Path) -> dict[str, FinishedRun]:
    """The runs of resnet18 by their experiment."""
    return {r.experiment: r for r in timm_results.read(folder) if r.name.startswith("resnet18")}


def _measured(run: FinishedRun) -> dict[str, str]:
    names = ("precision", "layout", "compile")
    return {"card": run.tags["pepr.hardware"], **{name: run.params[name] for name in names}}


@pytest.mark.parametrize(
    ("name", "card", "precision", "layout", "compiled"),
    [
        (NEWEST, "pro6000maxq", "bf16", "contiguous", "true"),
        (
            *("benchmark-infer-amp_bf16-nchw-pt291-cu130-pro6000maxq-dynamo.csv", "pro6000maxq"),
            *("amp_bf16", "contiguous", "true"),
        ),
        (
            *("benchmark-infer-amp-nhwc-pt112-cu113-rtx3090.csv", "RTX3090"),
            *("amp", "channels_last", "false"),
        ),
        (
            *("benchmark-infer-amp-nchw-pt291-cu128-4090-dynamo.csv", "4090"),  # not RTX4090
            *("amp", "contiguous", "true"),
        ),
        (
            *("benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv", "i9_10940x"),
            *("fp32", "contiguous", "true"),
        ),
    ],
)
def test_a_files_name_says_what_it_was_measured_on(
    tmp_path: Path, name: str, card: str, precision: str, layout: str, compiled: str
) -> None:
    (one,) = _resnet(_folder(tmp_path, name)).values()
    expected = {"card": card, "precision": precision, "layout": layout, "compile": compiled}
    assert _measured(one) == expected
    assert one.tags["timm.benchmark_infer"] == name
    assert {n: v for n, v, _ in one.points}["inference/ms_per_image"] == 1000 / INFER[name]


def test_speeds_of_two_cards_are_in_two_experiments(tmp_path: Path) -> None:
    runs = _resnet(_folder(tmp_path, *INFER, *TRAIN))
    assert {name: _measured(one)["card"] for name, one in runs.items()} == {
        "imagenet": "pro6000maxq",
        "imagenet_training": "RTX3090",
    }
    points = {name: {n: v for n, v, _ in one.points} for name, one in runs.items()}
    assert points["imagenet"]["inference/ms_per_image"] == 0.05
    assert "training/ms_per_image" not in points["imagenet"]
    assert points["imagenet_training"]["training/ms_per_image"] == 1.0
    assert not any(name.startswith("inference/") for name in points["imagenet_training"])
    models = [(r.experiment, r.name) for r in timm_results.read(tmp_path)]
    assert ("imagenet", "vgg11.tv_in1k") in models  # with its accuracy alone
    assert ("imagenet_training", "vgg11.tv_in1k") not in models


def test_both_speeds_of_one_card_and_setting_are_in_one_run(tmp_path: Path) -> None:
    card = "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv"
    (one,) = _resnet(_folder(tmp_path, card, *TRAIN)).values()
    points = {n: v for n, v, _ in one.points}
    assert (points["inference/ms_per_image"], points["training/ms_per_image"]) == (0.25, 1.0)
    assert one.tags["timm.benchmark_train"] == "benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv"


def test_a_name_that_says_nothing_is_left_out_and_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path, ODD)
    (one,) = _resnet(folder).values()
    assert "pepr.hardware" not in one.tags
    assert {name for name, _, _ in one.points} == {
        *("test/accuracy", "performance", "test/top5_accuracy")
    }
    (note,) = timm_results.notes(folder)
    assert note.startswith(f"{ODD} is left out: its name is not benchmark-")


def test_the_command_prints_what_was_chosen(
    capfd: pytest.CaptureFixture[str], store: str, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "results", *INFER, *TRAIN, ODD)
    with pytest.raises(SystemExit) as left:
        main(["import", "timm", str(folder)])
    assert left.value.code == 0
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: inference speeds of imagenet: pro6000maxq, bf16, contiguous, dynamo "
        f"({NEWEST}, the newest of 7 files)",
        "note: training speeds of imagenet_training: RTX3090, amp, contiguous, no compiler "
        "(benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv, the newest of 2 files)",
        f"note: {ODD} is left out: its name is not benchmark-{{infer|train}}-PRECISION-"
        "{nchw|nhwc|channels_last}-ptVERSION-cuVERSION-CARD.csv",
    ]


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ("benchmark-infer-amp-nchw-pt291-cu128-4090-dynamo.csv", "hardware"),
        ("benchmark-infer-amp_bf16-nchw-pt291-cu130-pro6000maxq-dynamo.csv", "precision"),
    ],
)
def test_other_cards_and_settings_are_imported_apart_and_not_compared(
    store: str, tmp_path: Path, other: str, differs: str
) -> None:
    for i, name in enumerate([NEWEST, other]):
        runs = timm_results.read(_folder(tmp_path / str(i), name))
        assert (import_runs(runs, store), import_runs(runs, store)) == (2, 0)
    found = read.load_runs("imagenet", tracking_uri=store)
    assert len(found) == 4
    with pytest.raises(WrongUse, match=differs):
        compare(found, Question(resources=("inference/ms_per_image",)))


def test_compiled_and_other_speeds_are_not_compared(store: str, tmp_path: Path) -> None:
    plain = "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv"
    for i, name in enumerate([plain, plain.replace(".csv", "-dynamo.csv")]):
        folder = _folder(tmp_path / str(i), plain)
        (folder / plain).rename(folder / name)
        import_runs(timm_results.read(folder), store)
    found = read.load_runs("imagenet", tracking_uri=store)
    assert found["compile"].tolist().count(True) == 2
    assert found["optimizer"].isna().all()  # no training job of ours, whose settings are known
    with pytest.raises(WrongUse, match="compile"):
        compare(found, Question(resources=("inference/ms_per_image",)))
