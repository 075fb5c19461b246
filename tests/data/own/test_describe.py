"""The description of a data set, its page, and the table of which file is which logged image."""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_data import png_of_16_bit_colour
from PIL import Image
from test_forms import dicom

from pepr_mlops import data
from pepr_mlops.data.describe import open_target
from pepr_mlops.data.description import Description, Intensities, Patients
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WrongUse
from pepr_mlops.report.dataset import html
from pepr_mlops.spec import RunSpec

# image, dx, patient, sex, split: made by hand
ROWS = """\
i00,nv,P1,m,train
i01,nv,P1,m,train
i02,nv,P1,m,train
i03,mel,P2,f,train
i04,mel,P3,f,train
i05,bkl,P4,,train
i06,nv,P5,m,val
i07,mel,P6,f,val
i08,bkl,,f,val
i09,nv,P7,f,test
i10,nv,P7,f,test
i11,mel,P8,m,test
i12,bkl,P9,m,test
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten JPEG files of 30×20 and three grey PNG files of 10×10."""
    rng = np.random.default_rng(0)
    for i in range(13):
        shape = (30, 20, 3) if i < 10 else (10, 10)
        suffix = "jpg" if i < 10 else "png"
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        image.save(tmp_path / f"i{i:02d}.{suffix}")
    (tmp_path / "skin.csv").write_text(f"image_id,dx,patient,sex,split\n{ROWS}")
    return tmp_path / "skin.csv"


def _described(target: Path | str, **options: object) -> Description:
    return open_target(RunSpec(dataset=str(target), **options)).describe()  # type: ignore[arg-type]


def test_a_table_is_counted_as_by_hand(table: Path) -> None:
    found = _described(table, image_size=32)
    assert (found.name, found.task, found.classes) == ("skin", "multi-class", ("bkl", "mel", "nv"))
    assert list(found.rows()) == [
        ("bkl", [1, 1, 1]),
        ("mel", [2, 1, 1]),
        ("nv", [3, 1, 2]),
        ("all images", [6, 3, 4]),
    ]
    assert found.splits == "all are given"
    assert found.patients == Patients(n=9, least=1, median=1, most=3, unknown=1)
    assert found.groups == {"sex": {"f": 6, "m": 6, "not known": 1}}
    assert found.formats == {"JPEG": 10, "PNG": 3}
    assert found.sample.sizes == {"30×20": 10, "10×10": 3}
    assert found.grey == 3
    assert found.stored_bytes == 13 * 32 * 32 * 3
    assert found.digest == data.identify(RunSpec(dataset=str(table))).data_digest
    assert dict(found.facts())["patients"] == (
        "9, with 1 to 3 images each, median 1; 1 images have none"
    )


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two DICOM files of 12 bits of each of 20 patients, whose names and numbers are planted."""
    rng = np.random.default_rng(0)
    for i in range(40):
        values = rng.integers(0, 2000, (16, 12)).astype(np.uint16)
        path = tmp_path / "scans" / ("ill", "well")[i // 2 % 2] / f"Mustermann_{i:02d}"
        dicom(path, values, PatientID=f"MRN-{i // 2}", PatientName="Mustermann^Erika")
    return tmp_path / "scans"


def test_intensities_are_those_of_numpy_and_the_window_is_that_of_training(scans: Path) -> None:
    import pydicom

    spec = RunSpec(dataset=str(scans), image_size=16)
    files = [path for path in scans.rglob("*") if path.is_file()]
    values = np.stack([pydicom.dcmread(path).pixel_array for path in files]).astype(float) - 1000
    found = open_target(spec).describe()
    expected = np.percentile(values, [0, 1, 50, 99, 100])
    assert found.sample.intensities == Intensities(*expected.tolist())
    assert found.sample.images == 40
    low, high = data.load(spec).window or (0, 0)
    assert found.window == f"{low:g} to {high:g}, 0.5 to 99.5% of the training images' values"
    assert found.splits.startswith("val and test are drawn from the images of train, by patient")
    assert found.patients == Patients(20, 2, 2, 2, 0)


def test_the_counts_are_of_the_splits_that_training_draws(scans: Path) -> None:
    for options in ({}, {"seed": 3}, {"folds": 4, "fold": 2}):
        spec = RunSpec(dataset=str(scans), image_size=16, **options)  # type: ignore[arg-type]
        found = open_target(spec).describe()
        for name, split in data.load(spec).by_name().items():
            assert found.counts[name].tolist() == np.bincount(split.labels, minlength=2).tolist()


def test_the_disk_space_is_that_of_the_prepared_images(scans: Path) -> None:
    spec = RunSpec(dataset=str(scans), image_size=24)
    stored = data.load(spec).train.images
    assert isinstance(stored, Stored)
    assert stored.path.stat().st_size == open_target(spec).describe().stored_bytes == 40 * 24 * 24


def _pictures(page: str) -> list[bytes]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [base64.b64decode(text) for text in found]


def test_the_page_shows_what_the_model_sees_and_names_nobody(scans: Path) -> None:
    spec = RunSpec(dataset=str(scans), image_size=16)
    found = open_target(spec)
    page = html(found.describe(), found.contact_sheet(), "Made by a test.")
    shown = [np.asarray(Image.open(io.BytesIO(content))) for content in _pictures(page)]
    assert len(shown) == 16  # eight of each class
    splits = data.load(spec)
    seen = set()
    for split in splits.by_name().values():
        assert isinstance(split.images, Stored)
        seen |= {image.tobytes() for part in split.images.parts() for image in part}
    assert {image.tobytes() for image in shown} <= seen
    assert len({image.tobytes() for image in shown}) == 16
    assert "default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; img-src data:" in page
    assert not re.search(r"https?:|//|<script", re.sub(r"base64,[^\"]+", "", page))
    for text in ("Mustermann", "MRN", "Erika", str(scans)):
        assert text not in page
        assert text not in str(vars(found.describe()))


def test_names_of_classes_are_text_in_the_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("<b>ill", "well & fine"):
        for i in range(6):
            path = tmp_path / "set" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    found = open_target(RunSpec(dataset=str(tmp_path / "set"), image_size=8))
    page = html(found.describe(), found.contact_sheet(), "")
    assert "&lt;b&gt;ill" in page
    assert "<b>" not in page
    assert len(_pictures(page)) == 12


def test_each_logged_image_is_traced_to_its_file(scans: Path) -> None:
    spec = RunSpec(dataset=str(scans), image_size=16)
    files = open_target(spec).files()
    assert list(files) == ["image", "file", "frame", "split", "label"]
    by_image = files.set_index("image")
    for name, split in data.load(spec).by_name().items():
        assert split.origins is not None
        own = by_image.loc[split.origins]
        assert set(own["split"]) == {name}
        classes = np.array(["ill", "well"])
        assert own["label"].tolist() == classes[split.labels].tolist()
        assert (own["file"].str.split("/").str[0] == own["label"]).all()
    assert sorted(files["file"]) == sorted(
        path.relative_to(scans).as_posix() for path in scans.rglob("*") if path.is_file()
    )


def test_labels_of_several_classes_are_joined(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(
            tmp_path / f"{i:02d}.png"
        )
        lines.append(f"{i:02d}.png,{('edema|mass', 'mass', '')[i % 3]}")
    (tmp_path / "x.csv").write_text("\n".join(lines))
    found = open_target(RunSpec(dataset=str(tmp_path / "x.csv"), image_size=8))
    assert found.files()["label"].tolist()[:3] == ["edema+mass", "mass", ""]
    (edema, n), (mass, m), _ = found.describe().rows()
    assert (edema, sum(n), mass, sum(m)) == ("edema", 7, "mass", 14)


def test_files_that_cannot_be_used_are_left_out_and_no_name_is_traced(shapes: Path) -> None:
    (shapes / "train" / "dark" / "00.png").write_bytes(png_of_16_bit_colour())
    found = open_target(RunSpec(dataset=str(shapes), image_size=20))
    described = found.describe()
    assert described.images == {"train": 31, "val": 12, "test": 16}
    assert described.digest is None
    assert described.notes[-1].startswith("1 of 60 files cannot be used and are left out here")
    assert sum(map(len, found.contact_sheet().values())) == 16
    with pytest.raises(WrongUse, match=r"train/dark/00\.png has over 8 bits"):
        found.files()


def test_files_of_the_sample_that_cannot_be_decoded_are_noted(shapes: Path) -> None:
    path = shapes / "train" / "dark" / "00.png"
    path.write_bytes(path.read_bytes()[:200])  # its header is sound
    found = _described(shapes)
    assert found.images == {"train": 32, "val": 12, "test": 16}
    assert found.sample.images == 59
    assert found.notes == ("1 files of the sample cannot be decoded; `pepr data check` lists them",)


def test_patients_in_two_splits_are_noted(table: Path) -> None:
    table.write_text(table.read_text().replace("i09,nv,P7", "i09,nv,P1"))
    assert "1 of 9 patients is in more than one split (train, test), which training refuses" in (
        _described(table).notes
    )


def test_named_sets_are_described_from_their_arrays(pneumonia_root: Path) -> None:
    found = _described("pneumonia", size=28, data_root=str(pneumonia_root))
    assert list(found.rows()) == [
        ("normal", [1214, 135, 234]),
        ("pneumonia", [3494, 389, 390]),
        ("all images", [4708, 524, 624]),
    ]
    assert found.sample.sizes == {"28×28": 200}
    assert dict(found.facts())["colour"] == "grey"
    digits = open_target(RunSpec(dataset="digits"))
    sheet = digits.contact_sheet()
    assert list(sheet) == list("0123456789")
    assert {len(images) for images in sheet.values()} == {8}
    with pytest.raises(WrongUse, match="out: digits has no files of images"):
        digits.files()


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ("mine.npz", "is a file of arrays, which only `pepr data check` reads"),
        ("dermaa", "did you mean 'derma'"),
        ("derma", "download it with pepr data get derma --size 224"),
    ],
)
def test_what_cannot_be_described_is_refused(target: str, refused: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=refused):
        open_target(RunSpec(dataset=target, data_root=str(tmp_path)))


def test_the_command_prints_and_writes_the_same(
    table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pepr_mlops import cli

    page, names = tmp_path / "skin.html", tmp_path / "files.csv"
    words = ["--image-size", "32", "--html", str(page), "--out", str(names)]
    with pytest.raises(SystemExit) as left:
        cli.main(["data", "describe", str(table), *words])
    out, err = capfd.readouterr()
    assert not left.value.code
    lines = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    for row in (["nv", "3", "1", "2"], ["all images", "6", "3", "4"], ["files", "JPEG 10, PNG 3"]):
        assert row in lines
    assert err == f"written to {page}\nwritten to {names}\n"
    assert len(_pictures(page.read_text())) == 3 + 4 + 6  # all of each class, at most eight
    rows = list(csv.DictReader(names.open()))
    assert [row["file"] for row in rows[:2]] == ["i00.jpg", "i01.jpg"]
    assert all(re.fullmatch("[0-9a-f]{16}", row["image"]) for row in rows)
    pd.testing.assert_series_equal(
        pd.Series([row["split"] for row in rows]).value_counts(),
        pd.Series({"train": 6, "test": 4, "val": 3}),
        check_names=False,
    )
    for patient in (f"P{i}" for i in range(1, 10)):
        assert patient not in re.sub(r"base64,[^\"]+", "", page.read_text()) + out
        assert not re.search(rf"\b{patient}\b", names.read_text())
