"""The only writer of MLflow.

A run that is logged (`run`) puts each entry into its journal (`journal`), from which a thread sends
it (`outbox`); what remains when the run ends is sent later (`unsent`). Which process may run a job
is decided in `ownership`, from the tags that `claims` writes and reads; without a server in
`offline`, from files.
"""

from pepr_mlops.tracking.add_metrics import add_metrics
from pepr_mlops.tracking.claims import Attempt, close_lost, identify
from pepr_mlops.tracking.experiments import has_run, prepare
from pepr_mlops.tracking.import_runs import import_runs
from pepr_mlops.tracking.offline import delivered, forget
from pepr_mlops.tracking.run import Run, active, address_of, fail_inherited, start
from pepr_mlops.tracking.server import reach
from pepr_mlops.tracking.shared_autotune import shared_settings
from pepr_mlops.tracking.unsent import Synced, catch_up, sync

__all__ = [
    "Attempt",
    "Run",
    "Synced",
    "active",
    "add_metrics",
    "address_of",
    "catch_up",
    "close_lost",
    "delivered",
    "fail_inherited",
    "forget",
    "has_run",
    "identify",
    "import_runs",
    "prepare",
    "reach",
    "shared_settings",
    "start",
    "sync",
]
