"""Finished runs that do not say what their data set held, as before `pepr.data_digest`. Pure.

Such a run has logged a digest of each split as it was drawn and resized. Where the data set that is
here, drawn and resized in the same way, has the same digests, it is the one that the run used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from pepr_mlops.errors import PeprError
from pepr_mlops.spec import Job

Digests = Mapping[str, str]  # of each split by its name


@dataclass(frozen=True)
class Earlier:
    """Ids of runs: with the job that each of them did (`same`), of runs that used other data, and
    of runs of which neither can be shown (`unknown`)."""

    same: Mapping[str, Job]
    other: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def fingerprints(self) -> dict[str, tuple[str, str]]:
        """Fingerprint of the job and digest of its data, by run id."""
        return {run_id: (job.fingerprint, job.data_digest) for run_id, job in self.same.items()}

    def told_in(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The frame of runs with what was found out about them."""
        runs = runs.copy()
        for run_id, (fingerprint, data_digest) in self.fingerprints.items():
            runs.loc[runs["run_id"] == run_id, ["spec", "data_digest"]] = fingerprint, data_digest
        return runs

    def texts(self) -> list[str]:
        """A line for each kind that there is."""
        kinds = (
            (
                len(self.same),
                "used the same images, as the digests they logged show: done, though they compare "
                "with new runs only by --allow-mixed, since they do not say their CPUs and threads",
            ),
            (len(self.other), "used other images: not counted as done"),
            (
                len(self.unknown),
                "may have used other images or weights, which cannot be checked: not counted as "
                "done",
            ),
        )
        return [f"{n} earlier run{'s' * (n != 1)} {text}" for n, text in kinds if n]


def recognise(
    jobs: Mapping[str, Job], logged: Mapping[str, Digests], drawn: Callable[[Job], Digests]
) -> Earlier:
    """Which runs used the data of the jobs that they would be.

    `jobs` are by run id; `logged` has the digests that runs logged; `drawn` gives those of the
    splits that a job trains on here, and may raise `PeprError`. A file of weights is known by its
    name only to runs of before.
    """
    same: dict[str, Job] = {}
    other: list[str] = []
    unknown: list[str] = []
    for run_id, job in jobs.items():
        try:
            here = drawn(job) if logged.get(run_id) and job.weights is None else None
        except PeprError:
            here = None
        if here is None:
            unknown.append(run_id)
        elif here == logged[run_id]:
            same[run_id] = job
        else:
            other.append(run_id)
    return Earlier(same, tuple(other), tuple(unknown))
