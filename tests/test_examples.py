"""The examples in the docstrings of what the package offers to Python."""

from __future__ import annotations

import doctest

import pepr_mlops
from pepr_mlops import Question, RunSpec, compare, load_model, load_runs, measure, run

# Later ones read what earlier ones have logged.
PUBLIC = {
    "RunSpec": RunSpec,
    "Question": Question,
    "run": run,
    "measure": measure,
    "load_runs": load_runs,
    "compare": compare,
    "load_model": load_model,
}


def test_every_public_name_has_an_example_that_runs(store: str) -> None:
    assert sorted(PUBLIC) == pepr_mlops.__all__
    runner = doctest.DocTestRunner()
    for name, one in PUBLIC.items():
        (found,) = doctest.DocTestFinder(recurse=False).find(one, name, globs={})
        assert found.examples, name
        assert runner.run(found).failed == 0, name
