"""What an audit finds in tables, and in folders of DICOM, NIfTI and deep files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from test_forms import dicom

from pepr_mlops import data
from pepr_mlops.data.audit import Audit, Finding
from pepr_mlops.data.audit_files import audit_target
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


def _audit(target: Path, **options: object) -> Audit:
    (found,) = audit_target(RunSpec(dataset=str(target), **options))  # type: ignore[arg-type]
    return found


def _of(found: Audit, kind: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.kind == kind]


def _noise(n: int, shape: tuple[int, ...] = (9, 9)) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(n)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three images of each of ten patients, 18 to train, 6 to validate and 6 to test; all sound."""
    (tmp_path / "img").mkdir()
    lines = ["image_id,dx,patient,sex,split"]
    for i, pixels in enumerate(_noise(30)):
        Image.fromarray(pixels).save(tmp_path / "img" / f"i{i:02d}.png")
        split = "train" if i < 18 else "val" if i < 24 else "test"
        lines.append(f"i{i:02d},{('mel', 'nv')[i % 2]},P{i // 3},{'mf'[i % 2]},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "labels.csv"


def test_a_sound_table_is_counted_and_its_columns_are_noted(table: Path) -> None:
    found = _audit(table)
    assert found.counts.to_dict("split")["data"] == [
        *(["train", "mel", 9, 0.5], ["train", "nv", 9, 0.5]),
        *(["val", "mel", 3, 0.5], ["val", "nv", 3, 0.5]),
        *(["test", "mel", 3, 0.5], ["test", "nv", 3, 0.5]),
    ]
    assert [finding.kind for finding in found.findings] == ["few", "few", "few", "reading"]
    assert found.of("note")[0].message == (
        "columns: image=image_id; labels=dx; patient=patient; split=split; groups=sex"
    )


def test_all_faults_of_a_table_are_listed_at_once(table: Path) -> None:
    img = table.parent / "img"
    rows = table.read_text().replace("i20,mel,P6", "i20,mel,P0")  # a patient of train, in val
    table.write_text(f"{rows}i98,mel,P9,f,train\ni99,nv,P9,f,train\ni03,nv,P1,f,test\n")
    (img / "i05.png").write_bytes(b"no image")
    (img / "i06.png").write_bytes((img / "i06.png").read_bytes()[:70])
    (img / "i24.png").write_bytes((img / "i00.png").read_bytes())  # a test image in train
    (img / "more.png").write_bytes((img / "i01.png").read_bytes())
    found = _audit(table)
    mismatch, leak, patient, unusable = sorted(found.of("error"), key=lambda f: f.kind != "refused")
    assert "do not match; rows without a file: 2 (row 32: i98, row 33: i99)" in mismatch.message
    for text in ("files without a row: 1 (img/more.png)", "rows that differ: 1 (img/i03.png)"):
        assert text in mismatch.message
    by_kind = {finding.kind: finding for finding in (leak, patient, unusable)}
    assert by_kind["leakage"].examples == ("img/i24.png = img/i00.png",)
    assert by_kind["patient"].message == (
        "1 of 10 patients is in more than one split (train, val); move all images of a patient to "
        "one"
    )
    assert by_kind["patient"].examples == ()
    names = [example.split()[0] for example in by_kind["unreadable"].examples]
    assert names == ["img/i05.png", "img/i06.png"]
    left_out = {finding.message: finding.examples for finding in _of(found, "left_out")}
    assert left_out["rows without a file: 2"] == ("row 32: i98", "row 33: i99")
    assert found.images == {"train": 17, "val": 6, "test": 6}  # without i03
    assert "P0" not in str(found)


def test_every_row_without_a_file_is_listed(table: Path) -> None:
    for i in range(12):
        (table.parent / "img" / f"i{i:02d}.png").unlink()
    (found,) = _of(_audit(table), "left_out")
    assert found.examples == tuple(f"row {i + 2}: i{i:02d}" for i in range(12))
    skipped = _audit(table, missing="skip")
    assert _of(skipped, "refused") == []
    assert _of(skipped, "left_out") == [found]


def test_uncertain_labels_are_an_error_and_the_audit_goes_on(tmp_path: Path) -> None:
    images = _noise(12)
    images[7] = images[2]
    lines = ["file,edema,mass"]
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{i % 2},{-1 if i == 2 else int(i < 6)}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    found = _audit(table)
    (refused,) = _of(found, "refused")
    assert (
        "has 1 uncertain labels (-1, blank or NA) in mass; say what they count as"
        in refused.message
    )
    assert found.counts["images"].tolist() == [6, 5]
    (conflict,) = _of(found, "conflict")
    assert conflict.examples == ("7.png (edema) = 2.png (no label)",)  # -1 is no positive label
    assert _of(_audit(table, uncertain="positive"), "refused") == []


def test_a_table_without_the_columns_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("a,b\n1.png,x\n")
    found = _audit(tmp_path / "labels.csv")
    (finding,) = found.findings
    assert (finding.severity, finding.kind) == ("error", "refused")
    assert finding.message.startswith("image_column: ")
    assert found.images == {}


# Other files -----------------------------------------------------------------------------------


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two DICOM files of 12 bits of each of 20 patients, a class of every other one."""
    rng = np.random.default_rng(0)
    for i in range(40):
        values = rng.integers(0, 2000, (16, 12)).astype(np.uint16)
        path = tmp_path / "scans" / ("ill", "well")[i // 2 % 2] / f"{i:02d}"
        dicom(path, values, PatientID=f"MRN-{i // 2}", PatientName="Mustermann^Erika")
    return tmp_path / "scans"


def test_dicom_files_are_drawn_by_patient_and_windowed_by_training_images(scans: Path) -> None:
    found = _audit(scans)
    drawn, window = found.findings
    assert (drawn.severity, drawn.message) == (
        "warning",
        "val and test are drawn from the images of train, by patient and class, with the seed",
    )
    low, high = data.load(RunSpec(dataset=str(scans), image_size=16)).window or (0, 0)
    assert (window.severity, window.message) == (
        "note",
        f"40 of 40 files have grey values of no window of their own; shown are {low:g} to {high:g},"
        " 0.5 to 99.5% of the training images' values",
    )
    assert found.shapes.to_dict("split")["data"] == [[16, 12, "grey", 40]]
    assert _of(_audit(scans, window="40,400"), "window") == []
    for text in ("MRN", "Mustermann"):
        assert text not in str(vars(found))


def test_dicom_patients_in_two_given_splits_are_counted_and_not_named(scans: Path) -> None:
    for label in ("ill", "well"):
        files = sorted((scans / label).iterdir())
        for i, path in enumerate(files):
            split = ("train", "val", "test")[i % 3]
            (scans / split / label).mkdir(parents=True, exist_ok=True)
            path.rename(scans / split / label / path.name)
        (scans / label).rmdir()
    found = _audit(scans)
    (patient,) = found.of("error")
    assert patient.message.startswith("20 of 20 patients are in more than one split (train, val,")
    assert (patient.kind, patient.examples) == ("patient", ())
    assert "MRN" not in str(vars(found))


def test_too_few_patients_for_folds_are_an_error(scans: Path) -> None:
    (refused,) = _of(_audit(scans, folds=30, fold=1), "refused")
    assert refused.message.startswith("20 patients are too few to be cut into 30 parts")


def test_slices_of_volumes_are_images_and_those_passed_over_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(6):
            values = rng.integers(-1000, 1000, (8, 10, 5)).astype(np.int16)
            volume = nib.Nifti1Image(values, np.eye(4))
            nib.save(volume, tmp_path / "set" / label / f"{i}.nii.gz")
    (tmp_path / "set" / "a" / "0.nii.gz").write_bytes(b"cut")
    found = _audit(tmp_path / "set", every=2, window="0,2000")
    assert found.images == {"train": 1 + 11 * 3}  # 0, 2 and 4 of each; how many the bad one had
    assert found.shapes.to_dict("split")["data"] == [[10, 8, "grey", 33]]  # is not known
    (frames,) = _of(found, "frames")
    assert frames.message.startswith("11 of 11 files have further frames or slices, 22 in all")
    assert frames.examples[0] == "a/1.nii.gz"
    (unusable,) = found.of("error")
    assert unusable.examples[0].startswith("a/0.nii.gz ")


def test_identical_deep_images_are_found_whatever_their_format(shapes: Path) -> None:
    values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 100
    Image.fromarray(values).save(shapes / "train" / "dark" / "deep.png")
    np.save(shapes / "test" / "light" / "copy.npy", values.astype(np.float32))
    errors = {f.kind: f.examples for f in _audit(shapes).of("error")}
    assert errors == {
        "leakage": ("test/light/copy.npy = train/dark/deep.png",),
        "conflict": ("test/light/copy.npy (light) = train/dark/deep.png (dark)",),
    }


def test_blank_images_and_masks_are_warnings(shapes: Path) -> None:
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(shapes / "train" / "dark" / "blank.png")
    mask = np.zeros((20, 20), np.uint8)
    mask[5:9, 5:9] = 255
    Image.fromarray(mask).save(shapes / "train" / "light" / "mask.png")
    blank, masked = _of(_audit(shapes), "odd")
    assert (blank.severity, blank.examples) == ("warning", ("train/dark/blank.png",))
    assert blank.message == "1 of 62 images may be wrong: each is constant"
    assert masked.message == "1 of 62 images may be wrong: each has only 2 grey values"
    assert masked.examples == ("train/light/mask.png",)


def test_without_a_window_for_other_splits_the_audit_goes_on(shapes: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9999, (20, 20)).astype(np.uint16)
    Image.fromarray(values).save(shapes / "test" / "dark" / "deep.png")
    Image.fromarray(values).save(shapes / "test" / "dark" / "cut.png")
    cut = shapes / "test" / "dark" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:100])
    refused, unusable = _audit(shapes).of("error")
    assert refused.message.startswith("window: images of val or test need the percentiles")
    assert unusable.examples[0].startswith("test/dark/cut.png is truncated")


def test_two_folders_of_one_split_are_an_error_and_read_as_one(shapes: Path) -> None:
    (shapes / "valid" / "dark").mkdir(parents=True)
    (shapes / "val" / "dark" / "00.png").rename(shapes / "valid" / "dark" / "00.png")
    found = _audit(shapes)
    (refused,) = found.of("error")
    assert "are both val; merge them" in refused.message
    assert found.images == {"train": 32, "val": 12, "test": 16}


def test_options_of_own_images_are_refused_for_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    for target in (tmp_path / "mine.npz", tmp_path):
        with pytest.raises(WrongUse, match="window: it is of folders and tables of images"):
            _audit(target, window="40,400")


def test_images_of_one_grey_value_are_an_error_where_they_are_most(shapes: Path) -> None:
    (audit,) = audit_target(RunSpec(dataset=str(shapes), window="2000,300"))
    (blank,) = [finding for finding in audit.of("error") if finding.kind == "blank"]
    assert blank.message.startswith("60 of 60 images are of one grey value with --window 2000,300;")
