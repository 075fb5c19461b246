"""The jobs of runs that were logged without a digest of their data."""

from __future__ import annotations

from made import job

from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep.earlier import match

LOGGED = {"train": "a", "val": "b", "test": "c"}


def test_a_run_matches_the_job_whose_images_it_logged() -> None:
    jobs = {"r1": job(), "r2": job(seed=1), "r3": job(seed=2)}
    drawn = {0: LOGGED, 1: {**LOGGED, "test": "d"}}
    found = match(jobs, {"r1": LOGGED, "r2": LOGGED, "r3": {}}, lambda spec: drawn[spec.seed])
    assert found.fingerprints == {"r1": (job().fingerprint, job().data_digest)}
    assert (found.other, found.unknown) == (("r2",), ("r3",))


def test_earlier_weights_and_unreadable_data_are_unknown() -> None:
    def drawn(_: object) -> dict[str, str]:
        raise WrongUse("dataset: damaged")

    weights = job(weights="/w.safetensors", weights_digest="a")
    assert match({"r": weights}, {"r": LOGGED}, lambda _: LOGGED).unknown == ("r",)
    assert match({"r": job()}, {"r": LOGGED}, drawn).unknown == ("r",)
