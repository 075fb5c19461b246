"""Files of data sets made for tests."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest


def fake_medmnist(
    path: Path, flag: str, size: int, monkeypatch: pytest.MonkeyPatch, n: int = 12
) -> Path:
    """A file in MedMNIST's format with `n` images per split, as the patched package expects."""
    import medmnist

    info = medmnist.INFO[flag]
    monkeypatch.setitem(info, "n_samples", dict.fromkeys(("train", "val", "test"), n))
    rng = np.random.default_rng(1)
    classes = len(info["label"])
    shape = (n, size, size) if info["n_channels"] == 1 else (n, size, size, 3)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        if info["task"] == "multi-label, binary-class":
            labels = rng.integers(0, 2, (n, classes))
            labels[0], labels[1] = 0, 1
        else:
            labels = (np.arange(n) % classes)[:, None]
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    file = path / f"{flag}{'' if size == 28 else f'_{size}'}.npz"
    np.savez(file, **arrays)
    return file


def offer(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch, damage: bool = False
) -> None:
    """Serve a file as DermaMNIST; with `damage` it is cut after its checksum was published."""
    import medmnist

    file = fake_medmnist(folder, "dermamnist", 28, monkeypatch)
    info = medmnist.INFO["dermamnist"]
    monkeypatch.setitem(info, "url", f"{address}/dermamnist.npz")
    monkeypatch.setitem(info, "MD5", hashlib.md5(file.read_bytes()).hexdigest())
    if damage:
        file.write_bytes(file.read_bytes()[:1000])


def png_of_16_bit_colour() -> bytes:
    """One pixel; Pillow cannot write such a file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", 1000, 2000, 3000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
