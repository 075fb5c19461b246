"""Our classes leave alone what the classes of others that they extend keep to themselves."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from types import ModuleType

import pytest

import pepr_mlops


def _own(package: ModuleType) -> Iterator[type]:
    """Classes of this package that extend one of another."""
    for module in pkgutil.walk_packages(package.__path__, "pepr_mlops."):
        if module.name in ("pepr_mlops.__main__", "pepr_mlops.sweep.fork_server"):  # they act
            continue
        found = vars(importlib.import_module(module.name)).values()
        for one in found:
            if inspect.isclass(one) and one.__module__ == module.name and _foreign(one):
                yield one


def _foreign(kind: type) -> list[type]:
    return [
        b for b in kind.__mro__ if not b.__module__.startswith("pepr_mlops") and b is not object
    ]


def _names(kind: type) -> set[str]:
    """Attributes of the class, and those that its methods set on `self`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):  # written in C
        return set(vars(kind))
    on_self = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return on_self | set(vars(kind))


OWN = sorted(set(_own(pepr_mlops)), key=lambda kind: f"{kind.__module__}.{kind.__name__}")


def test_completion_finds_the_public_names() -> None:
    public = {"Question", "RunSpec", "compare", "load_model", "load_runs", "measure", "run"}
    assert public == set(pepr_mlops.__all__)
    assert public <= set(dir(pepr_mlops))
    for name in public:
        assert getattr(pepr_mlops, name).__name__ == name


def test_the_classes_that_extend_others_are_found() -> None:
    from pepr_mlops.tracking.claims import Heartbeat
    from pepr_mlops.tracking.outbox import Outbox

    assert {Heartbeat, Outbox} <= set(OWN)


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_no_class_hides_a_private_name_of_what_it_extends(kind: type) -> None:
    private = {name for name in _names(kind) if name.startswith("_") and not name.endswith("__")}
    hidden = {(b.__name__, name) for b in _foreign(kind) for name in private & _names(b)}
    assert not {(b, name) for b, name in hidden if name not in ("_abc_impl", "_is_protocol")}
