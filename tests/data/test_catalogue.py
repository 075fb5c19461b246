"""The data sets known by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepr_mlops.data.catalogue import catalogue
from pepr_mlops.errors import WrongUse


def test_the_catalogue_has_every_name_and_what_is_on_disk(tmp_path: Path) -> None:
    from pepr_mlops.data import NAMES

    for name in ("dermamnist.npz", "dermamnist_224.npz"):
        (tmp_path / name).touch()
    entries = {entry.name: entry for entry in catalogue(str(tmp_path))}
    assert {*entries, *(e.alias for e in entries.values() if e.alias)} == set(NAMES)
    derma, digits, chest = entries["dermamnist"], entries["digits"], entries["chestmnist"]
    assert (derma.alias, derma.channels, derma.licence) == ("derma", 3, "CC BY-NC 4.0")
    assert derma.images == {"train": 7007, "val": 1003, "test": 2005}
    assert derma.on_disk == (28, 224)
    assert (digits.images["train"], digits.sizes, digits.on_disk) == (1079, (8,), (8,))
    assert (len(chest.classes), chest.task) == (14, "multi-label, binary-class")
    assert chest.on_disk == ()
    with pytest.raises(WrongUse, match="data_root: there is no folder"):
        catalogue(str(tmp_path / "absent"))
