"""`pepr profile`: what using trained models costs on this device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.chosen import choice_from, model_options
from pepr_mlops.cli.options import load_request, of_spec, option, output_options, spec_of
from pepr_mlops.cli.output import caption, render, say, say_or_write
from pepr_mlops.cli.srun import Once
from pepr_mlops.errors import WrongUse
from pepr_mlops.text import decimals

if TYPE_CHECKING:
    from pepr_mlops.train.use.profile import Value
    from pepr_mlops.train.use.profiled import Profiled


@click.command(cls=Once)
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@model_options
@option(
    "Essentials",
    "--top",
    "profile so many of the models that `pepr select` lists first, one run of each",
    type=click.IntRange(min=1),
    default=5,
    metavar="N",
)
@option(
    "Measuring",
    "--batch",
    "images of a large batch",
    type=click.IntRange(min=2),
    default=32,
    metavar="N",
)
@option("Measuring", "--onnx", "profile the model as ONNX on the CPU", is_flag=True)
@option(
    "Measuring", "--replace", "overwrite the values of other hardware or conditions", is_flag=True
)
@of_spec("device", "threads", "energy")
@output_options
def command(
    runs: tuple[str, ...],
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    top: int,
    batch: int,
    onnx: bool,
    replace: bool,
    device: str | None,
    threads: str | None,
    energy: str | None,
    form: str,
    out: Path | None,
    **options: Any,
) -> None:
    """Measure what using trained models costs on this device, and add it to their runs.

    Time and energy of one image and of large batches, five times each for at least 3 s, with
    preprocessing and transfers. The metrics are inference/*, or inference_onnx/* with --onnx; score
    by them with --resource inference/wh_per_image.

    \b
    Examples:
      pepr profile --experiment derma --top 3
      pepr profile 0a1b2c3d4e5f60718293a4b5c6d7e8f9 --batch 64
      pepr profile --experiment derma --onnx --threads 4
      pepr profile --experiment derma --replace --format json
    """
    if bool(runs) == bool(experiments):
        raise WrongUse(
            "profile: of which runs? Give ids of runs, or --experiment NAME for its best models, "
            "and not both"
        )
    from pepr_mlops.tracking.read import weights
    from pepr_mlops.train.use.profiled import Settings, check, profile_run

    spec = spec_of({"device": device, "threads": threads, "energy": energy})
    settings = Settings(spec.device, spec.energy, spec.threads, batch, onnx, replace)
    ids = runs or _best(experiments, tracking_uri, top, **options)
    fetched = [weights.fetch(run_id, tracking_uri=tracking_uri) for run_id in dict.fromkeys(ids)]
    for one in fetched:  # before the first of them takes a minute
        check(one, settings)
    found = []
    for i, one in enumerate(fetched, 1):
        where = f"{i} of {len(fetched)}: run {one.run_id}"
        found.append(profile_run(one, settings, tracking_uri=tracking_uri, shown=_progress(where)))
    say_or_write(rendered(found, form), out)


def _best(
    experiments: Sequence[str], tracking_uri: str | None, top: int, **options: Any
) -> list[str]:
    """The runs of the models that `pepr select` lists first."""
    from pepr_mlops.comparison import selected

    choice = choice_from(options)
    request = load_request(experiments, tracking_uri, **options)
    found = selected.select(request.compare(), request.question, choice)
    return [str(found.run_of(label)["run_id"]) for label in found.models["label"].head(top)]


def _progress(where: str) -> Callable[[str], None]:
    return lambda text: say(f"{where}, {text}", err=True)


def rendered(profiles: Sequence[Profiled], form: str) -> str:
    """The values in a form, with what they hold for."""
    if form in ("csv", "json"):
        rows = [
            {"model": one.model, "run_id": one.run_id, **one.profile.metrics(),
             **one.profile.conditions, "one_training": one.one_training}
            for one in profiles
        ]  # fmt: skip
        return render(rows, form)
    first = profiles[0].profile
    batch = first.conditions["batch"]
    headings = {
        "ms_p50": "ms p50",
        "ms_p95": "ms p95",
        "images_per_s": f"images/s ({batch})",
        "wh_per_image": f"Wh/image ({batch})",
        "wh_per_image_b1": "Wh/image (1)",
        "memory_gb": "GB",
        "load_s": "load s",
    }
    rows = [
        {
            "model": one.model,
            "run": one.run_id,
            **{name: _cell(one.profile.values.get(name)) for name in headings},
            "energy": one.profile.conditions["energy_source"],
        }
        for one in profiles
    ]
    columns = {"model": "model", "run": "run", **headings, "energy": "energy"}
    lines = [_conditions(first.form, first.conditions)]
    if any(value.unstable for one in profiles for value in one.profile.values.values()):
        lines.append(
            "* varies by more than 5% between the five repeats: measure on an idle machine"
        )
    for one in profiles:
        lines += _lines(one)
    return f"{render(rows, form, columns)}\n\n{caption(chr(10).join(lines), form)}"


def _cell(value: Value | None) -> str:
    return "" if value is None else f"{decimals(value.mean)}{'*' if value.unstable else ''}"


def _conditions(form: str, found: dict[str, str] | Any) -> str:
    name = "ONNX, onnxruntime" if form == "inference_onnx" else "PyTorch"
    energy = found.get("energy_method", "none")
    return (
        f"{name} in {found['precision']} on {found['hardware']}, {found['threads']} threads; "
        f"{found['images']}; loaded from the disk cache; energy by {energy}, with that of an idle "
        "machine"
    )


def _lines(one: Profiled) -> list[str]:
    """What belongs to one run."""
    found, lines = one.profile.conditions, []
    if one.one_training is not None:
        lines.append(f"{one.one_training}.")
    if "estimated" in found["energy_source"]:
        lines.append(f"{one.model}: the energy is ESTIMATED, time x a power by a model.")
    elif "wh_per_image" not in one.profile.values:
        why = found["energy_missing"] if found["energy_missing"] != "none" else "it is off"
        lines.append(f"{one.model}: the energy is not known ({why}).")
    if found["disturbed"] != "none":
        lines.append(f"{one.model}: caution: {found['disturbed']}.")
    return lines
