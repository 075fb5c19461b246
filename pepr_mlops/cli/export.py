"""`pepr export`: a trained model for other programs, or for MLflow's registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.chosen import Chosen, choice_from, chosen_run, model_options
from pepr_mlops.cli.options import FILE, Command, load_request, option
from pepr_mlops.cli.output import note, say
from pepr_mlops.errors import PeprError, WrongUse

if TYPE_CHECKING:
    from pepr_mlops.comparison import Comparison
    from pepr_mlops.train.use.export import Exported

# What to do next, by format.
_NEXT = {
    "mlflow": "serve it: mlflow models serve --env-manager local -m {folder}",
    "onnx": "use it: onnxruntime.InferenceSession('{folder}/model.onnx'), input `images` uint8",
    "torch": "predict: pepr predict {folder} IMAGES",
}


@click.command(cls=Command)
@click.argument("model", metavar="MODEL")
@model_options
@option(
    "Essentials",
    "--to",
    "an MLflow model, an ONNX graph, or the weights with model.json",
    type=click.Choice(list(_NEXT)),
    required=True,
)
@option(
    "Output",
    "--out",
    "the folder to write, missing or empty [default: MODEL-FORMAT]",
    type=FILE,
    metavar="DIR",
)
@option(
    "Model",
    "--which",
    "the weights of the last epoch, or of the best on validation [default: last if kept]",
    type=click.Choice(["last", "best"]),
)
@option("Tracking", "--register", "also a version of this registered model", metavar="NAME")
@option("Tracking", "--alias", "of the registered version, such as champion", metavar="NAME")
def command(
    model: str,
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    to: str,
    out: Path | None,
    which: str | None,
    register: str | None,
    alias: str | None,
    **options: Any,
) -> None:
    """Write the trained MODEL, a run or `best`, for other programs.

    It predicts from 8-bit images of any size: their preprocessing is a part of it. What it predicts
    is compared with the model on 200 images first; if it differs, nothing is written.

    `best` is the model that `pepr select` chooses with the same options.

    \b
    Examples:
      pepr export best --experiment derma --to onnx
      pepr export best --experiment derma --by performance --to mlflow --out derma-model
      pepr export best --experiment derma --to mlflow --register derma --alias champion
      pepr export RUN --to torch --which best
    """
    from pepr_mlops.tracking import registry

    if alias is not None and register is None:
        raise WrongUse("alias: there is no version to give it to; add --register NAME")
    if register is not None:
        registry.check_names(register, alias)
        if to != "mlflow":
            raise WrongUse("register: the registry takes MLflow models; give --to mlflow")
    chosen = chosen_run(model, experiments, tracking_uri, **options)
    note(chosen.text)
    from pepr_mlops.train.use import export, load

    trained = load.of_run(chosen.run_id, tracking_uri=tracking_uri, which=which, device="cpu")  # type: ignore[arg-type]
    folder = out or Path(f"{trained.description.model}-{to}")
    written = export.export(trained, to, folder, chosen.run_id)  # type: ignore[arg-type]
    say(_summary(written))
    if register is not None:
        tags = {}
        if trained.weights.epoch != trained.description.epochs:
            note(
                f"registered without a score: these weights are of epoch {trained.weights.epoch}, "
                f"and P of the run is of epoch {trained.description.epochs}"
            )
        elif (found := _comparison(chosen, experiments, tracking_uri, options)) is not None:
            tags = registry.standing(found, chosen.run_id)
        tags |= {"pepr.registered.run_id": chosen.run_id, registry.DIGEST: written.digest}
        version = registry.register(
            folder,
            register,
            alias=alias,
            run_id=chosen.run_id,
            tags=tags,
            tracking_uri=tracking_uri,
        )
        named = f"models:/{register}@{alias}" if alias else f"models:/{register}/{version}"
        say(f"registered: version {version} of {register}; load it as {named}")


def _summary(written: Exported) -> str:
    return (
        f"{written.folder}: {written.bytes / 1e6:.1f} MB; probabilities differ by "
        f"{written.difference:.1g} at most on {written.images} images\n"
        f"{_NEXT[written.format].format(folder=written.folder)}"
    )


def _comparison(
    chosen: Chosen, experiments: tuple[str, ...], tracking_uri: str | None, options: dict[str, Any]
) -> Comparison | None:
    """The comparison that led to the run, or that it is a part of, by default of its experiment;
    None where its runs cannot be scored."""
    from pepr_mlops.tracking import read

    if chosen.selected is not None:
        return chosen.selected.found.comparison
    names = experiments or (read.experiment_of(chosen.run_id, tracking_uri=tracking_uri),)
    choice_from(options)  # it decides on no score
    try:
        return load_request(names, tracking_uri, **options).compare()
    except PeprError as error:
        note(f"registered without a score: {error}")
        return None
