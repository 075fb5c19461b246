"""Files of data, weights and checkpoints with anything in them: read, or one line, or findings."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import medmnist
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_data import fake_medmnist
from odd import FEW, damaged, unless_refused
from PIL import Image
from safetensors.torch import save

from pepr_mlops import data
from pepr_mlops.data import audit_files, lidc
from pepr_mlops.data import medmnist as files
from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec
from pepr_mlops.train import checkpoint, models

N = 6  # images of each split


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder, while MedMNIST says that its files have six images."""
    path = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        fake_medmnist(path, "pneumoniamnist", 28, patch, N)
        assert medmnist.INFO["pneumoniamnist"]["n_samples"]["train"] == N
        yield path


# Files of arrays ----------------------------------------------------------------------------------

_IMAGES = st.sampled_from(
    [
        *[np.full((N, 28, 28), 7, np.uint8)] * 4,
        np.zeros((N, 28, 28, 3), np.uint8),
        np.zeros((N, 28, 28), np.float32),
        np.zeros((N - 1, 28, 28), np.uint8),
        np.zeros((0, 28, 28), np.uint8),
        np.zeros((N, 0, 0), np.uint8),
        np.zeros(N, np.uint8),
        np.uint8(3),
        np.array([{"a": 1}] * N, dtype=object),
        np.zeros((N, 28, 28), "V0"),
        np.array(["a"] * N),
        np.zeros(N, [("a", "u1"), ("b", "f4")]),
    ]
)
_GOOD = (np.arange(N) % 2)[:, None]
_LABELS = st.sampled_from(
    [
        *[_GOOD.astype(np.uint8)] * 4,
        _GOOD.astype(np.int64),
        _GOOD.astype(np.float64),
        _GOOD.astype(bool),
        _GOOD + 2**62,
        -_GOOD,
        np.full((N, 1), np.nan),
        np.full((N, 1), 2**64 - 1, np.uint64),
        _GOOD[:, 0],
        np.zeros((N, 0), np.uint8),
        np.zeros((0, 1), np.uint8),
        np.zeros((N, 14), np.uint8),
        np.array([["a"]] * N),
        np.array([[None]] * N),
        np.datetime64("2026-01-01") + np.zeros((N, 1), "m8[D]"),
    ]
)
_HEADERS = st.sampled_from(
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '|u1', 'fortran_order': True, 'shape': (True, 28, 28)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': (), 'fortran_order': False, 'shape': (6,)}",
        "{'descr': [('a', '<f8', (9,) * 9)], 'fortran_order': False, 'shape': (6,)}",
        "{1: 2, 'a': 3}",
        "-" * 5000 + "1",
        "(" * 5000,
        "[]",
    ]
)


@st.composite
def _npz(draw: st.DrawFn) -> bytes:
    content = io.BytesIO()
    how = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(content, "w", how) as archive:
        for split in ("train", "val", "test"):
            for kind, arrays in (("images", _IMAGES), ("labels", _LABELS)):
                form = draw(st.sampled_from(["array"] * 8 + ["absent", "forged", "bare"]))
                if form == "absent":
                    continue
                member, array = io.BytesIO(), draw(arrays)
                np.save(member, array, allow_pickle=True)
                raw = member.getvalue()
                if form == "forged":
                    header = draw(_HEADERS).encode()
                    version = draw(st.sampled_from([b"\1\0", b"\2\0", b"\3\0", rb"\9\9"]))
                    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
                    raw = b"\x93NUMPY" + version + length + header + bytes(50)
                archive.writestr(f"{split}_{kind}{'' if form == 'bare' else '.npy'}", raw)
    intact = content.getvalue()
    return draw(st.sampled_from([intact] * 3) | damaged(intact))


@given(_npz())
def test_a_file_of_arrays_is_loaded_or_refused_and_the_audit_agrees(
    place: Path, content: bytes
) -> None:
    path = place / "pneumoniamnist.npz"
    path.write_bytes(content)
    splits = unless_refused(lambda: files.load("pneumoniamnist", 28, str(place)))
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(path)))
    if splits is None:
        assert audit.of("error")
    else:
        _sound(splits)
        assert splits.train.images.shape == (N, 28, 28)
    path.rename(place / "lidc.npz")
    unless_refused(lambda: lidc.load(str(place)))
    unless_refused(lambda: lidc.outline(place / "lidc.npz"))
    audit_files.audit_target(RunSpec(dataset=str(place / "lidc.npz")))


def _sound(splits: Splits) -> None:
    for split in (splits.train, splits.val, splits.test):
        assert split.images.dtype == np.uint8
        assert len(split.images) == len(split.labels)
        assert ((split.labels >= 0) & (split.labels < len(splits.classes))).all()


# Folders of images --------------------------------------------------------------------------------


def _images() -> list[bytes]:
    """One of each kind that training takes, and some that it does not."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (9, 7), np.uint8)
    found = []
    for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        for mode in ("L", "RGB", "P", "1", "RGBA", "I;16", "F", "CMYK"):
            image, file = Image.fromarray(grey), io.BytesIO()
            try:
                image.convert(mode).save(file, form)
            except (OSError, ValueError, KeyError):
                continue  # a form that has no such mode
            found.append(file.getvalue())
    return found


IMAGES = _images()
_SIZES = st.sampled_from([(60_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 5), (1, 2**20)])


@st.composite
def _image(draw: st.DrawFn) -> bytes:
    intact = draw(st.sampled_from(IMAGES))
    how = draw(st.integers(0, 5))
    if how == 0:
        return draw(st.binary(max_size=60))
    if how == 1 and intact.startswith(b"\x89PNG"):  # says that it is huge
        return intact[:16] + struct.pack(">II", *draw(_SIZES)) + intact[24:]
    return draw(damaged(intact))


@given(_image(), st.sampled_from(["png", "jpg", "tif", "gif", "webp", "bmp"]))
@FEW
def test_an_image_is_read_or_named_and_the_audit_agrees(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "images"
    for label in ("dark", "light"):
        of = root / "train" / label
        of.mkdir(parents=True, exist_ok=True)
        for i in range(5):
            image = Image.new("L", (4, 4), i * 9 + len(label))
            image.putpixel((0, 0), 255)  # sets of constant images are refused
            image.save(of / f"{i}.png")
    odd = root / "train" / "dark" / f"odd.{suffix}"
    odd.write_bytes(content)
    try:
        splits = unless_refused(lambda: data.load(RunSpec(dataset=str(root), image_size=8)))
        (audit,) = audit_files.audit_target(RunSpec(dataset=str(root)))
        if splits is None:
            assert {f.kind for f in audit.of("error")} == {"unreadable"}
        else:
            _sound(splits)
            assert "unreadable" not in {f.kind for f in audit.findings}
    finally:
        odd.unlink()


# Weights and checkpoints --------------------------------------------------------------------------


def _torch_bytes(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


TENSORS = {"conv1.weight": torch.zeros(4, 3, 3, 3), "fc.bias": torch.zeros(5)}
WEIGHTS = {
    "safetensors": [save(TENSORS), save({"a": torch.zeros(0)})],
    "pth": [
        *map(_torch_bytes, [TENSORS, {"state_dict": TENSORS}, [1, 2], {}, {"a": 1}, "text", None]),
        _torch_bytes({"state_dict": 5}),
        _torch_bytes({1: torch.zeros(2)}),
        _torch_bytes(SimpleNamespace(a=1)),  # needs more than tensors to be read
    ],
}


@st.composite
def _weights(draw: st.DrawFn) -> tuple[str, bytes]:
    suffix = draw(st.sampled_from(list(WEIGHTS)))
    intact = draw(st.sampled_from(WEIGHTS[suffix]))
    return suffix, draw(damaged(intact) | st.binary(max_size=40))


@given(_weights())
@FEW
def test_weights_fit_or_are_refused(place: Path, given_: tuple[str, bytes]) -> None:
    path = place / f"weights.{given_[0]}"
    path.write_bytes(given_[1])
    network = unless_refused(
        lambda: models.build(
            "test_resnet", classes=2, channels=3, image_size=32, pretrained=True, weights=str(path)
        )
    )
    assert network is None  # none of these is the model's


STATE = _torch_bytes(
    {
        "epoch": 3,
        "state": {"weights": torch.ones(3)},
        "metrics": {"val/accuracy": 0.5},
        "recorded": {"time_s": {"train": 3.5}},
        "at_s": 1.7e9,
        "run_id": "abc",
        "hardware": "CPU",
    }
)
COSTS = json.dumps({"recorded": {"time_s": {}}, "at_s": 1.8e9, "clean": True}).encode()


@given(damaged(STATE), st.none() | damaged(COSTS))
def test_a_checkpoint_is_what_was_saved_or_is_refused(
    place: Path, state: bytes, costs: bytes | None
) -> None:
    (place / "state.pt").write_bytes(state)
    (place / "costs.json").unlink(missing_ok=True)
    if costs is not None:
        (place / "costs.json").write_bytes(costs)
    try:
        saved = checkpoint.load(place)
    except ValueError:
        return
    assert saved is not None
    assert saved.epoch == 3
    assert saved.run_id == "abc"
    assert torch.equal(saved.state["weights"], torch.ones(3))


# What was found -----------------------------------------------------------------------------------


def _forged(path: Path, header: str, body: bytes = b"") -> Path:
    raw = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + body
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", raw)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (10**12,)}", "ValueError"),
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,)}",
            "1,000,000,000,000 bytes and there are 0",
        ),
        ("{1: 2, 'a': 3}", "TypeError"),
        ("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000,)}", "not numbers"),
    ],
)
def test_an_array_that_is_not_there_is_not_made(tmp_path: Path, header: str, message: str) -> None:
    arrays = files.open_file(_forged(tmp_path / "a.npz", header))
    with arrays, pytest.raises(files.Damaged, match=message):
        files.read(arrays, "a")


def test_an_array_larger_than_the_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = "{'descr': '|u1', 'fortran_order': False, 'shape': (5000000,)}"
    path = _forged(tmp_path / "a.npz", bomb, bytes(5_000_000))
    assert path.stat().st_size < 10_000
    few = SimpleNamespace(available=4_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: few)
    arrays = files.open_file(path)
    with arrays, pytest.raises(files.Damaged, match=r"of memory; 0\.0 are free"):
        files.read(arrays, "a")


def test_images_of_no_pixel_are_found(tmp_path: Path) -> None:
    arrays = {f"{s}_images": np.zeros((N, 0, 0), np.uint8) for s in ("train", "val", "test")}
    labels = {f"{s}_labels": _GOOD for s in ("train", "val", "test")}
    np.savez(tmp_path / "own.npz", **arrays, **labels)
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(tmp_path / "own.npz")))
    assert "images" in {finding.kind for finding in audit.of("error")}


def test_an_error_of_pillow_that_is_not_its_own_is_a_refusal(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(WrongUse, match=r"cannot be read \(IndexError\)"):
        data.load(RunSpec(dataset=str(shapes), image_size=8))
    (audit,) = audit_files.audit_target(RunSpec(dataset=str(shapes)))
    assert "unreadable" in {finding.kind for finding in audit.of("error")}


def test_a_bit_of_a_checkpoint_that_turned_is_seen(tmp_path: Path) -> None:
    checkpoints = checkpoint.Checkpoint(tmp_path, "abc", "CPU", "job")
    checkpoints.save(1, {"weights": torch.full((50,), 1.5)}, {}, {})
    path = tmp_path / "state.pt"
    content = bytearray(path.read_bytes())
    content[content.find(b"\0\0\xc0\x3f" * 3) + 2] ^= 1  # 1.5 as a float of 4 bytes
    path.write_bytes(content)
    with pytest.raises(ValueError, match="data/0 in it is damaged"):
        checkpoint.load(tmp_path)
