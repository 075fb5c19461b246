"""The only writer of MLflow."""

from pepr_mlops.tracking.choices import choice_of_others
from pepr_mlops.tracking.claims import Attempt, close, identify
from pepr_mlops.tracking.experiments import knows, prepare, reach
from pepr_mlops.tracking.import_runs import import_runs
from pepr_mlops.tracking.run import Run, active, fail_inherited, start, where
from pepr_mlops.tracking.score_tags import write_scores
from pepr_mlops.tracking.unsent import Synced, catch_up, sync

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
