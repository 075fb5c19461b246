"""Names that say what they mean, and pieces that are short enough to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pepr_mlops"

# A module, class, function or variable is never called by these; docs/structure.md has the words.
RETIRED = {
    *("ahead", "anew", "asked", "beside", "kept", "lives", "look", "looked", "mend"),
    *("rests", "said", "tell", "tells", "told", "wanted", "whole", "wish", "wished"),
    *("gauges", "ledger", "nursery", "swept"),
}
LONGEST_FUNCTION, LONGEST_MODULE = 60, 450


def _files(*folders: str) -> Iterator[tuple[str, ast.Module, str]]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            yield str(path.relative_to(ROOT)), ast.parse(text), text


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def test_no_name_is_a_retired_word() -> None:
    found = {}
    for path, tree, _ in _files("pepr_mlops", "tests", "benchmarks", "docs"):
        names = {*_names(tree), *re.split(r"[/.]", path)}
        retired = {name for name in names if RETIRED & set(name.lower().strip("_").split("_"))}
        if retired:
            found[path] = sorted(retired)
    assert found == {}


def test_functions_and_modules_are_short() -> None:
    """Without its docstring a function has 60 lines, unless it is a table."""
    long = {}
    for path, tree, text in _files("pepr_mlops"):
        if (n := text.count("\n")) > LONGEST_MODULE:
            long[path] = n
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = ast.get_docstring(node, clean=False) is not None
                first = node.body[0]
                docstring = first.end_lineno - first.lineno + 1 if documented else 0  # type: ignore[operator]
                n = node.end_lineno - node.lineno + 1 - docstring  # type: ignore[operator]
                if n > LONGEST_FUNCTION:
                    long[f"{path}: {node.name}"] = n
    assert long == {}


def test_the_page_about_the_structure_names_what_exists() -> None:
    page = (ROOT / "docs" / "structure.md").read_text()
    tree, _, rest = page.partition("## The main objects")
    for name in re.findall(r"^  (\w+(?:\.py|/)) ", tree, re.MULTILINE):
        assert (PACKAGE / name).exists(), name
    folders = {p.name + "/" for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    files = {p.name for p in PACKAGE.glob("*.py")} - {"__main__.py"}
    assert folders | files == set(re.findall(r"^  (\w+(?:\.py|/)) ", tree, re.MULTILINE))
    for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|md))", rest):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name
