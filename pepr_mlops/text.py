"""Text of people and servers made safe to show, to write and to ask with, and numbers as text.

Pure.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

# Bounds keep the time that a long text takes in proportion to its length.
_URI = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]{0,30}://)(?P<rest>\S*)")
_WHOLE_URI = re.compile(r"(?P<scheme>([A-Za-z][\w+.-]{0,30}://)?)(?P<rest>.*)", re.DOTALL)
_NAMED = (
    r"(?i)((?:passw|pwd|secret|token|credential|(?:api|access|account)_?key|odbc_connect)[\w-]{0,30}="
    r"|[?&]sig=)"
)
_SECRET, _WHOLE_SECRET = re.compile(rf"{_NAMED}([^&\s]+)"), re.compile(rf"{_NAMED}([^&]+)")
_HIDDEN = "***"
_SHORTEST = 4  # characters of a secret that is looked for by itself; less is in many words
# What steers a terminal, breaks a line or turns the direction of writing, as a set of a pattern.
STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_STEERS = re.compile(f"[{STEERING}\ud800-\udfff]")  # and what cannot be encoded
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LONGEST = 80  # bytes of a file's name


def without_password(text: str, *known: str) -> str:
    """The text without what only its owner may know.

    That is user and password of the addresses in it, values called password, token and the like,
    and the secrets `known`, as of `secrets`.
    """
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _SECRET.sub(rf"\1{_HIDDEN}", _URI.sub(_bare, text))


def address(uri: str) -> str:
    """As `without_password`, of a text that is one address: its password may have blanks, and its
    scheme be mistyped."""
    return _WHOLE_SECRET.sub(rf"\1{_HIDDEN}", _WHOLE_URI.sub(_bare, uri, count=1))


def _bare(uri: re.Match[str]) -> str:
    return uri["scheme"] + _parts(uri["rest"])[1]


def _parts(rest: str) -> tuple[str, str]:
    """User and password of an address without its scheme, and what follows them.

    They may have an @ or / that should have been escaped. The @ of a path ends no user.
    """
    user, at, after = rest.rpartition("@")
    path = rest.startswith("/")  # as in sqlite:///home/me@work/mlflow.db
    named = at and not path and (":" in user or not re.search("[/?#]", user))
    return (user, after) if named else ("", rest)


def secrets(uri: str, *others: str) -> tuple[str, ...]:
    """The password of an address, or its user if alone, in the forms errors may quote it in.

    `others` are secrets that go with it.
    """
    whole = _WHOLE_URI.fullmatch(uri)
    assert whole is not None  # it matches any text
    user, after = _parts(whole["rest"])
    name, colon, password = user.partition(":")
    found = {password if colon else name, *others}
    found |= {match[2] for match in _WHOLE_SECRET.finditer(uri)}
    for part in list(found):
        plain = unquote(part)
        found |= {plain, quote(plain, safe=""), repr(plain)[1:-1]}
        found |= set(re.split("[@/?#:]", part))  # such a one ends the password for some libraries
    # To a library that takes the first @ for the last, the rest of the password is of the host.
    host = re.split("[/?#:]", after)[0]
    split = {f"{part}@{host}" for part in password.split("@")[1:]}
    return tuple(split | {part for part in found if len(part) >= _SHORTEST})


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with control characters as escapes: `\x1b` for the one that steers terminals.

    With `lines` it keeps its lines and tabs.
    """
    return _STEERS.sub(
        lambda c: c[0] if lines and c[0] in "\n\t" else c[0].encode("unicode_escape").decode(),
        text,
    )


def cell(value: Any) -> Any:
    """A value for a CSV file: no text that a spreadsheet would take for a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(_FORMULA) else text


def file_name(text: str) -> str:
    """A name for a file, or nothing: letters, digits, `_`, `-` and `.`, which is at no end."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    return name.encode()[:_LONGEST].decode(errors="ignore").rstrip("._-")


def matches(value: str) -> str:
    """A condition on a text in MLflow's filter language, which has no escape for its own quote.

    A text with a quote in it is searched for with any character in the quote's place; who asks
    drops what matched by that.
    """
    if "'" not in value:
        return f"= '{value}'"
    return f"LIKE '{value.replace(chr(39), '_')}'"


def number(value: float, digits: int = 4) -> str:
    """A number as a sentence has it: so many significant digits, no exponent below a million.

    Nothing for what is missing.
    """
    if value != value:
        return ""
    if value == 0:
        return "0"
    written = f"{value:,.{digits}g}"
    if "e" in written and abs(value) < 1e15 and abs(value) >= 1e-4:
        written = f"{value:,.0f}"
    return written


def p_value(p: float) -> str:
    """A p value as papers print it, of a test that has none where nothing varies."""
    if p != p:
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
