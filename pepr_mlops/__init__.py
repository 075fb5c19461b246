"""Which medical-imaging model is good enough, and what does it cost?

`run(RunSpec(...))` is one training job, `measure(...)` the same measurement around your own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pepr_mlops.job import run
    from pepr_mlops.measurement import measure
    from pepr_mlops.spec import RunSpec

__all__ = ["RunSpec", "measure", "run"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line answers before torch and MLflow are loaded."""
    from importlib import import_module

    homes = {"RunSpec": "spec", "measure": "measurement", "run": "job"}
    if name not in homes:
        raise AttributeError(f"module 'pepr_mlops' has no attribute {name!r}")
    return getattr(import_module(f"pepr_mlops.{homes[name]}"), name)
