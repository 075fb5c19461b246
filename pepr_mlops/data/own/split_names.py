"""The splits by the names that people give them. Pure."""

from __future__ import annotations

_SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SPELLINGS = tuple(_SPLIT_OF)


def split_of(name: str) -> str | None:
    """`train`, `val` or `test`, which a name stands for in any case, or None."""
    return _SPLIT_OF.get(name.strip().casefold())
