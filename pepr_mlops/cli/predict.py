"""`pepr predict`: a trained model's answers for new images, in a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pepr_mlops.cli.chosen import BEST, chosen_run, model_options
from pepr_mlops.cli.options import FILE, Command, of_spec, option, spec_of
from pepr_mlops.cli.output import note, render, say, table
from pepr_mlops.errors import WorkFailed
from pepr_mlops.text import few

if TYPE_CHECKING:
    from pepr_mlops.train.use.predict import Evaluation, Outcome

_OF_SPEC = (
    *("size", "data_root", "folds", "fold", "device"),
    *("images", "image_column", "label_columns", "patient_column", "uncertain", "missing"),
)


@click.command(cls=Command)
@click.argument("model")
@click.argument("data")
@option(
    "Essentials",
    "--out",
    "table to write; the same command continues it",
    type=FILE,
    default=Path("predictions.csv"),
    metavar="CSV",
)
@option(
    "Essentials",
    "--threshold",
    "probability from which an image is positive, or has a label [default: as chosen on "
    "validation]",
    type=float,
    metavar="P",
)
@option(
    "Data",
    "--split",
    "images of this split alone [default: test of a named data set, else all]",
    type=click.Choice(["train", "val", "test"]),
)
@option(
    "Model",
    "--which",
    "weights of the last epoch, or of the best on validation [default: last, if kept]",
    type=click.Choice(["last", "best"]),
)
@option("Machine", "--batch", "images at once", type=click.IntRange(min=1), default=32, metavar="N")
@of_spec(*_OF_SPEC)
@model_options
def command(
    model: str,
    data: str,
    out: Path,
    threshold: float | None,
    split: str | None,
    which: Literal["last", "best"] | None,
    batch: int,
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    **options: Any,
) -> None:
    """Predict new images, and evaluate the predictions where labels are known.

    MODEL is a run, a folder that `pepr export` wrote, a registered model, or `best`: what `pepr
    select` with the same options names first. DATA is an image, a folder or a table of images, or a
    data set by name. Images are read as those of the training were.

    \b
    Examples:
      pepr predict best ./new_images --experiment digits --by performance
      pepr predict ./exported ./new_images --out clinic_b.csv --threshold 0.3
      pepr predict ./exported table.csv --images ./scans
      pepr predict ./exported digits
    """
    given = {name: options.pop(name) for name in _OF_SPEC}
    spec = spec_of({**given, "dataset": data})
    if model == BEST:
        chosen = chosen_run(model, experiments, tracking_uri, **options)
        note(chosen.text)
        model = chosen.run_id
    if sys.stderr.isatty():
        say("loading PyTorch and the model …", err=True)
    from pepr_mlops.data import inputs
    from pepr_mlops.train.use import find
    from pepr_mlops.train.use.predict import form_of, predict
    from pepr_mlops.train.use.rule import rule_for, threshold_text

    found = find.find(model, tracking_uri=tracking_uri, which=which, device=spec.device)
    rule = rule_for(found.description, found.weights, threshold)
    new = inputs.find(spec, form_of(found.description), split)
    note(*new.notes)
    try:
        outcome = predict(found, new, out, rule, batch_size=batch)
    except (KeyboardInterrupt, SystemExit):  # by a signal
        say(f"the same command continues {out}", err=True)
        raise
    say(_summary(outcome, out, threshold_text(rule)))
    if outcome.evaluation is not None:
        say(_evaluation(outcome.evaluation))
    elif new.no_labels is not None:
        note(f"the predictions are not evaluated: {new.no_labels}")
    else:
        note("the predictions are not evaluated: no label is known")
    if outcome.faults:
        n, first = len(outcome.faults), [f"{name} {why}" for name, why in outcome.faults]
        raise WorkFailed(
            f"predict: {n:,} of {len(new.names):,} files gave no prediction, as {outcome.errors} "
            f"says: {few(first, 3)}; repair them, and the same command predicts them"
        )


def _summary(outcome: Outcome, out: Path, rule: str) -> str:
    counts = table([[name, f"{n:,}"] for name, n in outcome.counts.items()], ["class", "images"])
    lines = [f"{outcome.images:,} images predicted, in {out}"]
    if outcome.earlier:
        lines[0] += f"; done before: {outcome.earlier:,} files"
    lines += ["", counts, "", rule]
    if outcome.positive is not None:
        lines[-1] += f": {outcome.positive:,} images"
    return "\n".join(lines)


def _evaluation(found: Evaluation) -> str:
    columns = {"metric": "metric", "value": "value", "low": "95% from", "high": "to"}
    if found.metrics["missing"].any():
        columns["missing"] = "note"
    of_patients = "" if found.patients is None else f" of {found.patients:,} patients"
    return "\n".join(
        [
            "",
            f"Compared with the labels of {found.images:,} images{of_patients}, after the training "
            "and its choice of a model:",
            "",
            render(found.metrics, "table", columns),
            "",
            "Accuracies are of the column `class`; sensitivity and specificity of the thresholds.",
            "",
            render(found.classes, "table"),
            "",
            "This is an external validation only if no image is of a patient whose images the "
            "model was trained or chosen on.",
        ]
    )
