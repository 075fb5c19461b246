"""The site of docs/, built by Sphinx without a network: `sphinx-build -W docs site`.

Its reference and its copies of files outside docs/ are made in docs/generated, which git ignores.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from sphinx.application import Sphinx

import pepr_mlops
from pepr_mlops.cli import pepr
from pepr_mlops.names import METRICS, RESOURCES, TAGS

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "docs" / "generated"
# What the pages link to, at its path in the repository.
OUTSIDE = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "CITATION.cff"),
    *("benchmarks/README.md", "benchmarks/results/*.json"),
)
# What the functions of `pepr_mlops` take and return.
OBJECTS = (
    *("train.own_loop.Measured", "comparison.Comparison", "comparison.selected.Choice"),
    "train.use.model.Model",
)

project = "pepr_mlops"
html_title = project
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
highlight_language = "text"  # of blocks that name none
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["html_image"]  # takes <img> for an image
myst_heading_anchors = 4
default_role = "code"  # as in Markdown
python_maximum_signature_line_length = 88
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_mock_imports = ["lightning", "transformers"]  # which cost more to import than all else


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    shutil.rmtree(GENERATED, ignore_errors=True)
    for path in (path for pattern in OUTSIDE for path in ROOT.glob(pattern)):
        copy = GENERATED / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    (GENERATED / "commands.md").write_text("\n".join(_commands(pepr, "pepr")))
    (GENERATED / "metrics.md").write_text("\n".join(_metrics()))
    (GENERATED / "python.rst").write_text("\n".join(_python()))
    app.connect("source-read", _link)


def _link(app: Sphinx, page: str, source: list[str]) -> None:
    """Make links between docs/ and what is outside it links to and from the copies."""
    if page.startswith("generated/"):
        source[0] = re.sub(r'(\]\(|src=")((?:\.\./)*)docs/', r"\1\2../", source[0])
    else:
        source[0] = source[0].replace("](../", "](generated/")


def _commands(command: click.Command, words: str) -> Iterator[str]:
    """The help of the command, and of each one in it."""
    if words == "pepr":
        yield "# Commands\n\nThis is what `--help` prints. `pepr-report` is `pepr report`."
    context = click.Context(command, info_name=words, terminal_width=80)
    yield f"\n## {words}\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, f"{words} {name}")


def _python() -> Iterator[str]:
    """What the package offers to Python, by its docstrings."""
    integrations = sorted((ROOT / "pepr_mlops" / "integrations").glob("[!_]*.py"))
    yield from _heading("Python", "=")
    yield from _heading("pepr_mlops", "-")
    yield from map(_documented, pepr_mlops.__all__)
    yield from _heading("What they take and return", "-")
    yield from map(_documented, OBJECTS)
    yield from _heading("Trainers of other libraries", "-")
    for path in integrations:  # of a class with a mocked base the arguments are not known
        yield _documented(f"integrations.{path.stem}.PeprCallback", "(measured, performance)")


def _heading(text: str, line: str) -> tuple[str, str, str, str]:
    return "", text, line * len(text), ""


def _documented(name: str, arguments: str = "") -> str:
    is_class = name.rpartition(".")[2][0].isupper()
    return f".. auto{'class' if is_class else 'function'}:: pepr_mlops.{name}{arguments}\n"


def _metrics() -> Iterator[str]:
    yield "# Metrics and tags\n\n## Resources\n\nThe costs that models are scored by."
    yield "The tag `pepr.memory` names the metric that is M.\n"
    yield from _table(
        ("letter", "unit", "metric", "what it is"),
        ((r.letter, r.unit, r.metric and f"`{r.metric}`", r.help) for r in RESOURCES.values()),
    )
    yield "\n## Metrics\n\nWhat runs log as numbers.\n"
    yield from _table(
        ("metric", "unit", "better", "what it is"),
        ((f"`{m.name}`", m.unit, m.better, m.help) for m in METRICS.values()),
    )
    yield "\n## Tags\n\nWhat runs log as text.\n"
    yield from _table(("tag", "what it says"), ((f"`{t}`", text) for t, text in TAGS.items()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str | None, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell or '' for cell in row)} |"
