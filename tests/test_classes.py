"""Our classes leave alone what the classes of others that they extend keep to themselves."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator

import pytest

import pepr_mlops


def _own(of: type) -> Iterator[type]:
    """Classes of this package that extend one of another."""
    for module in pkgutil.walk_packages(of.__path__, "pepr_mlops."):
        if module.name in ("pepr_mlops.__main__", "pepr_mlops.sweep.fork_server"):  # they act
            continue
        found = vars(importlib.import_module(module.name)).values()
        for one in found:
            if inspect.isclass(one) and one.__module__ == module.name and _foreign(one):
                yield one


def _foreign(of: type) -> list[type]:
    return [b for b in of.__mro__ if not b.__module__.startswith("pepr_mlops") and b is not object]


def _names(of: type) -> set[str]:
    """Attributes of the class, and those that its methods set on `self`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(of)))
    except (OSError, TypeError):  # written in C
        return set(vars(of))
    on_self = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return on_self | set(vars(of))


OWN = sorted(set(_own(pepr_mlops)), key=lambda of: f"{of.__module__}.{of.__name__}")


def test_what_is_public_is_found_by_completion() -> None:
    public = {"Question", "RunSpec", "compare", "load_runs", "measure", "run"}
    assert public == set(pepr_mlops.__all__)
    assert public <= set(dir(pepr_mlops))
    for name in public:
        assert getattr(pepr_mlops, name).__name__ == name


def test_there_are_such_classes() -> None:
    from pepr_mlops.tracking.claims import Heartbeat
    from pepr_mlops.tracking.outbox import Outbox

    assert {Heartbeat, Outbox} <= set(OWN)


@pytest.mark.parametrize("of", OWN, ids=lambda of: of.__name__)
def test_no_class_hides_a_private_name_of_what_it_extends(of: type) -> None:
    private = {name for name in _names(of) if name.startswith("_") and not name.endswith("__")}
    hidden = {(b.__name__, name) for b in _foreign(of) for name in private & _names(b)}
    assert not {(b, name) for b, name in hidden if name not in ("_abc_impl", "_is_protocol")}
