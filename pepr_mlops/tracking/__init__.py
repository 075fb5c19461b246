"""The only writer of MLflow."""

from pepr_mlops.tracking.choices import choice_of_others
from pepr_mlops.tracking.claims import Attempt, close, identify
from pepr_mlops.tracking.imported import import_runs
from pepr_mlops.tracking.leftovers import Synced, catch_up, sync
from pepr_mlops.tracking.run import Run, active, fail_inherited, start, where
from pepr_mlops.tracking.scores import write_scores
from pepr_mlops.tracking.store import knows, prepare, reach

__all__ = [
    "Attempt",
    "Run",
    "Synced",
    "active",
    "catch_up",
    "choice_of_others",
    "close",
    "fail_inherited",
    "identify",
    "import_runs",
    "knows",
    "prepare",
    "reach",
    "start",
    "sync",
    "where",
    "write_scores",
]
