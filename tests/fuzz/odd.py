"""Inputs nobody hopes for: odd texts and numbers, damaged bytes; and what must become of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st

from pepr_mlops.errors import PeprError

T = TypeVar("T")

# Tests of which one input takes a while try a part of what the profile asks for.
FEW = settings(max_examples=max(1, settings().max_examples // 4))
FEWER = settings(max_examples=max(1, settings().max_examples // 20))


def unless_refused(work: Callable[[], T]) -> T | None:
    """The result of the work, or None if it refuses in one line. Any other error is a bug."""
    try:
        return work()
    except PeprError as error:
        message = str(error)
        assert message.strip()
        assert "\n" not in message
        return None


def texts(*usual: str) -> st.SearchStrategy[str]:
    """The usual ones, and what a person may type or a program write instead."""
    odd = [
        *("", " ", "none", "None", "nan", "inf", "-inf", "-1", "0", "-0.0", "1e999", "1e-999"),
        *("1_0", "٣", "0x10", "true", "5,5", "a=b, c=d", "a\nb", "\0", "\udcff", "🦊", "../x"),
        *("9" * 400, "9" * 5000, "<b>&'\"", "%s{0}$\\", "[MIXED]", "not known"),
    ]
    any_text = st.text(st.characters(), max_size=12)
    return st.one_of(
        *([st.sampled_from(usual)] * 2 if usual else []), st.sampled_from(odd), any_text
    )


def stored(*usual: str) -> st.SearchStrategy[str]:
    """Such as a tracking server may hold, which is UTF-8."""
    return texts(*usual).map(lambda text: text.encode(errors="replace").decode())


def numbers(low: float = 0.0, high: float = 100.0) -> st.SearchStrategy[float]:
    """Ordinary ones in three of four cases, else NaN, infinities, the smallest and the greatest."""
    usual = st.floats(low, high)
    few = st.sampled_from([low, high, (low + high) / 2, 0.1 * high, 0.7 * high])
    odd = st.sampled_from(
        [math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 5e-324, 1e-300, 1e300, 1.7e308]
    )
    return st.one_of(usual, few, few, odd)


def toml_values() -> st.SearchStrategy[Any]:
    """What a value of a TOML file may be."""
    plain = st.one_of(
        st.booleans(),
        st.integers(-3, 300),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        texts(),
        st.datetimes(),
    )
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=5,
    )


@st.composite
def damaged(draw: st.DrawFn, intact: bytes) -> bytes:
    """A file that was cut, overwritten or stretched in some places."""
    content = bytearray(intact)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        some = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f" * 8]))
        how = draw(st.sampled_from(["replace", "insert", "delete", "cut"]))
        if how == "replace":
            content[at : at + len(some)] = some
        elif how == "insert":
            content[at:at] = some
        elif how == "delete":
            del content[at : at + draw(st.integers(1, 64))]
        else:
            del content[at:]
    return bytes(content)
