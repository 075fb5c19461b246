"""Which medical-imaging model is good enough, and what does it cost?

`run(RunSpec(...))` is one training job, `measure(...)` the same measurement around your own code;
`compare(load_runs(...), Question(...))` scores the runs of an experiment, and `load_model("best",
experiment=...)` is the model that won.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pepr_mlops.comparison import Question, compare
    from pepr_mlops.spec import RunSpec
    from pepr_mlops.tracking.read import load_runs
    from pepr_mlops.train.job import run
    from pepr_mlops.train.own_loop import measure
    from pepr_mlops.train.use.load import load_model

__all__ = ["Question", "RunSpec", "compare", "load_model", "load_runs", "measure", "run"]


_HOMES = {
    "Question": "comparison",
    "RunSpec": "spec",
    "compare": "comparison",
    "load_model": "train.use.load",
    "load_runs": "tracking.read",
    "measure": "train.own_loop",
    "run": "train.job",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line answers before torch and MLflow are loaded."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'pepr_mlops' has no attribute {name!r}")
    return getattr(import_module(f"pepr_mlops.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
