"""Who may import whom: only what stands below, and in one folder as one likes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pepr_mlops"

# From the bottom to the top. Modules of the first layer may import each other.
LAYERS = [
    {"errors", "files", "names", "paper_models", "process", "spec", "text", "validation"},
    {"costs", "imports"},
    {"comparison", "data"},
    {"tracking"},
    {"report", "train"},
    {"integrations", "live", "sweep"},
    {"cli"},
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
# Values in, values out: no files, no clock, no network, no MLflow.
PURE = (
    *(
        "errors",
        "names",
        "spec",
        "text",
        "validation",
        "costs/totals",
        "costs/forecast",
    ),
    *("data/audit", "data/description", "data/duplicates", "data/doubtful", "data/shortcuts"),
    "tracking/ownership",
    *("sweep/observed", "sweep/frugal", "sweep/within", "sweep/finals", "sweep/prior"),
    *("sweep/earlier_runs", "report/searches"),
    *(f"comparison/{path.stem}" for path in (PACKAGE / "comparison").glob("*.py")),
)


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
    """Full names of what a file imports, anywhere in it."""
    found = set()
    for node in _nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_module_has_a_layer_and_imports_only_from_below() -> None:
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name in ("__init__", "__main__"):
            continue
        assert name in LAYER, f"{name} has no layer"
        for full in _imports(path):
            package, _, rest = full.partition(".")
            other = rest.partition(".")[0]
            if package != "pepr_mlops" or other == name:
                continue
            below = LAYER[other] < LAYER[name] or LAYER[name] == 0 == LAYER[other]
            assert below, f"{path.relative_to(PACKAGE)} imports {full}"


def test_only_tracking_imports_mlflow() -> None:
    for path in PACKAGE.rglob("*.py"):
        if "tracking" not in path.relative_to(PACKAGE).parts:
            assert "mlflow" not in {full.partition(".")[0] for full in _imports(path)}, path


def test_the_pure_modules_touch_no_files_clock_or_network() -> None:
    for name in PURE:
        used = {full.partition(".")[0] for full in _imports(PACKAGE / f"{name}.py")}
        assert not used & {"torch", "mlflow", "pathlib", "time", "io", "socket", "requests"}, name
