"""Imports go downward only: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pepr_mlops"

# Modules of one level may not import each other, but for those of the first two and the last.
LEVELS = [
    {"names", "spec", "errors", "safe", "settings_files"},
    {
        *(
            "carbon",
            "costs",
            "forecast",
            "graphs",
            "ledger",
            "models",
            "performance",
            "processes",
            "server",
            "journal",
        ),
        *(
            "score",
            "stats",
            "selection",
            "frame",
            "comparison",
            "differences",
            "writeback",
        ),
    },
    {
        *(
            "data",
            "hardware",
            "memory",
            "meter",
            "otherload",
            "progress",
            "tracking",
            "query",
            "importers",
        ),
        *("checkpoint", "lidc", "sweep"),
    },
    {"gauges", "report"},
    {"train", "tags"},
    {"tuning"},
    {"job", "measurement", "view"},
    {"worker"},
    {"sweeper", "nursery"},
    {"cli", "live"},
]
FREE = {0, 1, 9}


def _nodes(path: Path) -> Iterator[ast.AST]:
    """All nodes of a file but those under TYPE_CHECKING, which bind nothing at run time."""
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        stack.extend(ast.iter_child_nodes(node))


def _imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in _nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "pepr_mlops":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("pepr_mlops."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("pepr_mlops.")}
    return found


def _third_party(path: Path) -> set[str]:
    found = set()
    for node in _nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def test_every_module_has_a_level_and_imports_only_below_it() -> None:
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name in ("__init__", "__main__"):
            continue
        assert name in level, f"{name} has no level"
        for other in _imports(path) - {name}:
            below = level[other] < level[name]
            beside = level[other] == level[name] and level[name] in FREE
            assert below or beside, f"{path.name} imports {other}"


def test_one_module_writes_mlflow_and_one_reads_it() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "server.py" and not {"query", "tracking"} & set(path.parts):
            assert "mlflow" not in _third_party(path), path


def test_the_pure_modules_touch_no_files_clock_or_network() -> None:
    pure = "names spec errors safe costs performance score stats selection frame differences"
    parts = [path.stem for path in (PACKAGE / "comparison").glob("*.py")]
    data = [f"data/{name}" for name in ("audit", "twins", "doubtful", "shortcuts")]
    others = ["forecast", "writeback", "ledger", *data]
    for name in [*pure.split(), *others, *(f"comparison/{part}" for part in parts)]:
        used = _third_party(PACKAGE / f"{name}.py")
        assert not used & {"torch", "mlflow", "pathlib", "time", "io", "socket", "requests"}, name
