"""Data sets of noise, and their audits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pepr_mlops.data.audit import Audit, Finding
from pepr_mlops.data.audit_files import audit_target
from pepr_mlops.spec import RunSpec


def audit_of(target: Path | str, size: int = 28, data_root: Path | None = None) -> Audit:
    (found,) = audit_target(
        RunSpec(
            dataset=str(target),
            size=size,
            data_root=None if data_root is None else str(data_root),
        )
    )
    return found


def kinds(found: Audit) -> list[str]:
    return [finding.kind for finding in found.findings]


def only(found: Audit) -> Finding:
    (finding,) = found.findings
    return finding


def noise_folder(root: Path) -> Path:
    """Classes `a` and `b` of 12 grey images in train, 10 in val and 11 in test, all different."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 10), ("test", 11)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i:02d}.png")
    return root


def noise_arrays(classes: int = 2, **n: int) -> dict[str, np.ndarray]:
    """20, 21 and 22 different images of 6×6, or the numbers `n`, of classes that take turns."""
    rng = np.random.default_rng(3)
    arrays = {}
    for split, images in {"train": 20, "val": 21, "test": 22, **n}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (images, 6, 6), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(images, dtype=np.uint8) % classes)[:, None]
    return arrays


def saved(path: Path, arrays: Mapping[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path
