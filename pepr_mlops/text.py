"""Text of people and servers made safe to print, store and query; numbers as text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote, unquote

# Bounds keep the time proportional to the length of a text.
_URI = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]{0,30}://)(?P<rest>\S*)")
_FULL_URI = re.compile(r"(?P<scheme>([A-Za-z][\w+.-]{0,30}://)?)(?P<rest>.*)", re.DOTALL)
_NAMED = (
    r"(?i)((?:passw|pwd|secret|token|credential|(?:api|access|account)_?key|odbc_connect)[\w-]{0,30}="
    r"|[?&]sig=)"
)
_SECRET, _FULL_SECRET = re.compile(rf"{_NAMED}([^&\s]+)"), re.compile(rf"{_NAMED}([^&]+)")
_HIDDEN = "***"
_SHORTEST = 4  # characters of a secret that is searched for alone; fewer occur in many words
# Characters that control a terminal, break a line or change the direction of writing.
STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_STEERS = re.compile(f"[{STEERING}\ud800-\udfff]")  # and what cannot be encoded
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LONGEST = 80  # bytes of a file's name


def without_password(text: str, *known: str) -> str:
    """The text without secrets: users and passwords of addresses, values called password, token and
    the like, and those `known`, as returned by `secrets`."""
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _SECRET.sub(rf"\1{_HIDDEN}", _URI.sub(_without_user, text))


def address(uri: str) -> str:
    """As `without_password` for a text that is one address: its password may have blanks and its
    scheme may be mistyped."""
    return _FULL_SECRET.sub(rf"\1{_HIDDEN}", _FULL_URI.sub(_without_user, uri, count=1))


def _without_user(uri: re.Match[str]) -> str:
    return uri["scheme"] + _split_user(uri["rest"])[1]


def _split_user(rest: str) -> tuple[str, str]:
    """User and password of an address without its scheme, and the rest.

    They may have an @ or / that should have been escaped. An @ in a path ends no user.
    """
    user, at, after = rest.rpartition("@")
    path = rest.startswith("/")  # as in sqlite:///home/me@work/mlflow.db
    named = at and not path and (":" in user or not re.search("[/?#]", user))
    return (user, after) if named else ("", rest)


def secrets(uri: str, *others: str) -> tuple[str, ...]:
    """The password of an address, or its user if alone, and the secrets `others`, in the forms in
    which errors may quote them."""
    matched = _FULL_URI.fullmatch(uri)
    assert matched is not None  # it matches any text
    user, after = _split_user(matched["rest"])
    name, colon, password = user.partition(":")
    found = {password if colon else name, *others}
    found |= {match[2] for match in _FULL_SECRET.finditer(uri)}
    for part in list(found):
        plain = unquote(part)
        found |= {plain, quote(plain, safe=""), repr(plain)[1:-1]}
        found |= set(re.split("[@/?#:]", part))  # for some libraries the password ends here
    # Libraries that split at the first @ take the rest of the password for a part of the host.
    host = re.split("[/?#:]", after)[0]
    split = {f"{part}@{host}" for part in password.split("@")[1:]}
    return tuple(split | {part for part in found if len(part) >= _SHORTEST})


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with control characters as escapes, such as `\x1b`; `lines` keeps line breaks and
    tabs."""
    return _STEERS.sub(
        lambda c: c[0] if lines and c[0] in "\n\t" else c[0].encode("unicode_escape").decode(),
        text,
    )


def unmarked(text: str) -> str:
    """The text as Markdown that has no links, code, columns or HTML in it."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", escape(text, quote=False))


def cell(value: Any) -> Any:
    """A value for a CSV file, so that a spreadsheet takes no text for a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(_FORMULA) else text


def file_name(text: str) -> str:
    """A name for a file, or nothing: letters, digits, `_`, `-` and, not at the ends, `.`."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    return name.encode()[:_LONGEST].decode(errors="ignore").rstrip("._-")


def matches(value: str) -> str:
    """A condition on a text in MLflow's filter language, which has no escape for its own quote.

    In place of a quote any character matches; the caller drops the wrong matches.
    """
    return f"LIKE '{value.replace(chr(39), '_')}'" if "'" in value else f"= '{value}'"


def number(value: float, digits: int = 4) -> str:
    """A number for a sentence: so many digits, no exponent below 1e15, empty if missing."""
    if value != value:
        return ""
    if value == 0:
        return "0"
    written = f"{value:,.{digits}g}"
    if "e" in written and abs(value) < 1e15 and abs(value) >= 1e-4:
        written = f"{value:,.0f}"
    return written


def decimals(value: float) -> str:
    """A number for a column of a table: four decimals, or four digits of the very small and large;
    empty if missing."""
    if value != value:
        return ""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def p_value(p: float) -> str:
    """A p value as papers print it; NaN, where nothing varies, is not defined."""
    if p != p:
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
