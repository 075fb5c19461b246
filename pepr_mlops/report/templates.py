"""The templates of pages and their styles."""

from __future__ import annotations

import re
from datetime import date
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pepr_mlops.text import printable, unmarked

_LOADER = PackageLoader("pepr_mlops.report", ".")
TEMPLATES = Environment(
    loader=_LOADER,
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _as_markdown(value: object) -> Markup:
    """A value as text of one line in Markdown, never markup; what templates made stays."""
    return value if isinstance(value, Markup) else Markup(unmarked(printable(str(value))))


MARKDOWN = TEMPLATES.overlay(finalize=_as_markdown)


def _with_commands(text: str) -> Markup:
    """A text whose commands in backticks are set as code."""
    return Markup(re.sub("`(pepr [^`]*)`", r"<code>\1</code>", str(escape(text))))


TEMPLATES.filters["commands"] = _with_commands


def asset(name: str) -> str:
    """The text of a file next to the templates."""
    return _LOADER.get_source(TEMPLATES, name)[0]


def made_now() -> str:
    """When and by which version a page is made."""
    return f"Made by pepr_mlops {version('pepr_mlops')} on {date.today().isoformat()}."
