"""`load_model`: the trained model of a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from pepr_mlops.comparison import Question, compare, selected
from pepr_mlops.comparison.selected import Choice
from pepr_mlops.costs.device import Device
from pepr_mlops.errors import WrongUse
from pepr_mlops.tracking import read
from pepr_mlops.tracking.read import registered, weights
from pepr_mlops.tracking.read.weights import Fetched
from pepr_mlops.train.use.description import Which
from pepr_mlops.train.use.model import Model, open_folder

_USUAL_QUESTION, _USUAL_CHOICE = Question(), Choice()


def load_model(
    run: str,
    *,
    experiment: str | Sequence[str] | None = None,
    tracking_uri: str | None = None,
    which: Which | None = None,
    device: str = "auto",
    question: Question = _USUAL_QUESTION,
    choice: Choice = _USUAL_CHOICE,
) -> Model:
    """The trained model of a run, by its id, or `best`: of the `experiment` the model that
    `pepr select` names first with this question and choice, and of it the run with the lowest seed.
    A registered model is named by `models:/NAME/VERSION`, `models:/NAME@ALIAS`, or `NAME`: its
    alias `champion`, else its latest version.

    `which` are the weights of the `last` epoch or of the `best` on validation, by default the last
    if they were kept. Raises `WrongUse` for a run without weights and for weights that are not
    those logged, and `WorkFailed` where the server does not answer.

    >>> import numpy as np
    >>> from pepr_mlops import load_model
    >>> from pepr_mlops.comparison.selected import Choice
    >>> model = load_model("best", experiment="digits", choice=Choice(by="performance"))
    >>> chances = model.probabilities(np.zeros((3, 100, 80), np.uint8))  # of any size
    >>> chances.shape, model.description.classes[:3]
    ((3, 10), ('0', '1', '2'))
    """
    if run == "best":
        if experiment is None:
            raise WrongUse("best: of which runs? Give experiment=NAME, or the id of a run")
        runs = read.load_runs(experiment, tracking_uri=tracking_uri)
        evidence = read.load_evidence(runs, tracking_uri=tracking_uri)
        found = selected.select(compare(runs, question, evidence), question, choice)
        run = str(found.best_run()["run_id"])
    if registered.is_name(run):
        return of_registered(run, tracking_uri=tracking_uri, which=which, device=device)
    return of_run(run, tracking_uri=tracking_uri, which=which, device=device)


def of_run(
    run_id: str,
    *,
    tracking_uri: str | None = None,
    which: Which | None = None,
    device: str = "auto",
) -> Model:
    """The trained model of a run by its id, as `load_model`."""
    return of_folder(weights.fetch(run_id, which, tracking_uri=tracking_uri), which, device)


def of_folder(fetched: Fetched, which: Which | None = None, device: str = "auto") -> Model:
    """The trained model in the folder of a run, as `load_model`."""
    model = open_folder(fetched.folder, which, Device.resolve(device).torch_device)
    if model.weights.epoch != model.description.epochs:
        warnings.warn(
            f"weights: these are of epoch {model.weights.epoch}; P of run {fetched.run_id} is of "
            f"epoch {model.description.epochs}",
            stacklevel=2,
        )
    return model


def of_registered(
    name: str,
    *,
    tracking_uri: str | None = None,
    which: Which | None = None,
    device: str = "auto",
) -> Model:
    """A registered model, by what `registered.fetch` takes."""
    found = registered.fetch(name, tracking_uri=tracking_uri)
    return open_folder(found.folder, which, Device.resolve(device).torch_device)
