"""The quick faults of `benchmarks/fault_matrix.py`, done to real processes."""

from __future__ import annotations

import fault_matrix
import pytest


@pytest.mark.parametrize(
    "name",
    [
        # So is a job that is killed once it has logged of tests/sweep/test_sweep.py.
        pytest.param("SIGKILL while logging", marks=pytest.mark.slow),
        # A signal amid a checkpoint is one of tests/train/test_checkpoint.py, too.
        pytest.param("SIGTERM while checkpointing", marks=pytest.mark.slow),
        "server that hangs at the start",
        "no server: --offline, then pepr sync",
    ],
)
def test_nothing_is_lost_and_the_status_is_true(name: str) -> None:
    row = fault_matrix.inject(name, fault_matrix.faults(outage_s=5)[name])
    assert row.ok, row
