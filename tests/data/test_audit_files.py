"""Which data sets are audited, and what reading their files finds."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from audits import audit_of, kinds, noise_arrays, noise_folder, only, saved
from made_data import fake_medmnist, png_of_16_bit_colour
from PIL import Image

from pepr_mlops.data.audit_files import audit_target
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return noise_folder(tmp_path / "images")


def test_the_nearest_path_is_suggested(images: Path) -> None:
    with pytest.raises(WrongUse, match=rf"did you mean '{images}'\?"):
        audit_target(RunSpec(dataset=f"{str(images)[:-1]}z"))


def test_a_target_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="did you mean 'derma'"):
        audit_of("dermaa")
    with pytest.raises(WrongUse, match=r"holds neither images nor \.npz files; expected DIR/train"):
        audit_of(tmp_path)


def test_every_damaged_image_is_listed(images: Path) -> None:
    for i in range(7):
        (images / "train" / "a" / f"{i:02d}.png").write_bytes(b"no image")
    cut = images / "test" / "b" / "03.png"
    cut.write_bytes(cut.read_bytes()[:60])
    found = audit_of(images)
    finding = only(found)
    assert (finding.severity, finding.kind) == ("error", "unreadable")
    assert finding.message.startswith("8 of 66 files cannot be used")
    names = [example.split(" ")[0] for example in finding.examples]
    assert names == ["test/b/03.png", *(f"train/a/{i:02d}.png" for i in range(7))]
    assert found.images["train"] == 24  # as many files as there are
    assert found.shapes["images"].sum() == 58


def test_more_than_8_bits_need_a_window_in_grey_and_are_an_error_in_colour(images: Path) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 100
    Image.fromarray(deep).save(images / "train/a/00.png")
    (images / "val" / "b" / "00.png").write_bytes(png_of_16_bit_colour())
    finding, window = audit_of(images).findings
    assert (finding.severity, finding.kind) == ("error", "unreadable")
    assert len(finding.examples) == 1
    assert finding.examples[0].startswith("val/b/00.png has over 8 bits a channel in colour")
    assert (window.severity, window.kind) == ("note", "window")
    low, high = np.percentile(deep, [0.5, 99.5])
    assert window.message == (
        "1 of 65 files have grey values of no window of their own; shown are "
        f"{low:g} to {high:g}, 0.5 to 99.5% of the training images' values"
    )


def test_without_train_nothing_can_be_trained(images: Path) -> None:
    shutil.rmtree(images / "train")
    finding = only(audit_of(images))
    assert (finding.severity, finding.kind) == ("error", "refused")
    assert "has no train folder with images; add DIR/train/CLASS/*" in finding.message


def test_a_damaged_array_leaves_the_others_to_be_counted(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.npz", noise_arrays())
    content = bytearray(path.read_bytes())
    at = content.index(noise_arrays()["val_images"].tobytes()[:50])
    content[at] ^= 1
    path.write_bytes(content)
    found = audit_of(path)
    finding = only(found)
    assert finding.kind == "unreadable"
    assert finding.message.startswith("val_images cannot be read (BadZipFile: Bad CRC-32")
    assert found.images == {"train": 20, "val": 21, "test": 22}
    assert found.shapes["images"].sum() == 42


@pytest.mark.parametrize("content", ["empty", "text", "cut", "a single array"])
def test_a_file_in_another_format_is_an_error(content: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.npz", noise_arrays())
    if content == "a single array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes({"empty": b"", "text": b"x", "cut": path.read_bytes()[:-99]}[content])
    finding = only(audit_of(path))
    assert (finding.severity, finding.kind) == ("error", "unreadable")
    assert "File is not a zip file" in finding.message  # and no word of trusting a pickle


def test_no_damage_ends_in_a_traceback(tmp_path: Path) -> None:
    content = saved(tmp_path / "mine.npz", noise_arrays(train=2, val=2, test=2)).read_bytes()
    chance = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 2, 8])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / "mine.npz").write_bytes(damaged)
        audit_of(tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("content", "severity"),
    [(b"\xff\xfe\x00", "error"), (b"", "error"), (b"id,split\n", "warning")],
)
def test_a_table_that_does_not_list_patients_is_reported(
    content: bytes, severity: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "mine.npz", noise_arrays())
    path.with_suffix(".csv").write_bytes(content)
    finding = only(audit_of(path))
    assert (finding.severity, finding.kind) == (severity, "manifest")


def test_each_file_of_a_folder_is_checked(tmp_path: Path) -> None:
    saved(tmp_path / "b.npz", noise_arrays())
    (tmp_path / "a.npz").write_bytes(b"x")
    first, second = audit_target(RunSpec(dataset=str(tmp_path)))
    assert (first.source, kinds(first)) == (f"{tmp_path}/a.npz", ["unreadable"])
    assert (second.source, kinds(second)) == (f"{tmp_path}/b.npz", [])


def test_a_medmnist_file_that_training_refuses_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medmnist

    fake_medmnist(tmp_path, "pneumoniamnist", 28, monkeypatch, n=20)
    found = audit_of("pneumonia", data_root=tmp_path)
    assert found.counts["class"].tolist() == ["normal", "pneumonia"] * 3
    assert found.findings == ()
    counts = {"train": 20, "val": 19, "test": 20}
    monkeypatch.setitem(medmnist.INFO["pneumoniamnist"], "n_samples", counts)
    finding = only(audit_of("pneumonia", data_root=tmp_path))
    assert (finding.severity, finding.kind) == ("error", "medmnist")
    assert "MedMNIST has uint8 (19, 28, 28)" in finding.message
    with pytest.raises(WrongUse, match="pepr data get pneumonia --size 64"):
        audit_of("pneumonia", size=64, data_root=tmp_path)


def test_digits_are_sound() -> None:
    found = audit_of("digits")
    assert found.images == {"train": 1079, "val": 359, "test": 359}
    assert found.findings == ()
