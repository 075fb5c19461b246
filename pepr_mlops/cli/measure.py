"""`pepr measure`: any command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pepr_mlops.cli.options import of_spec, option, pairs, spec_of, tracking_uri
from pepr_mlops.cli.output import note, say, table
from pepr_mlops.cli.srun import Once
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE

_COMMAND = "command"


class _Around(Once):
    """Options, then `--` and a command whose words are left as they are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, words = args, []
        if "--" in args:
            place = args.index("--")
            own, words = args[:place], args[place + 1 :]
        ctx.meta[_COMMAND] = words
        try:
            return super().parse_args(ctx, own)
        except click.UsageError as error:
            if words or "unexpected extra argument" not in error.message:
                raise
            text = "measure: write -- before the command, such as -- python train.py"
            raise WrongUse(text) from None


@click.command(cls=_Around, options_metavar="OPTIONS -- COMMAND [ARGUMENT]...")
@option("Essentials", "--experiment", "name the run is compared under", required=True)
@option("Essentials", "--model", "name of the model", required=True)
@option(
    "Essentials",
    "--param",
    "a setting that runs must share to be compared, or the seed; repeat it for each",
    name="params",
    metavar="NAME=VALUE",
    multiple=True,
)
@option(
    "Essentials",
    "--performance-from",
    "read P from a JSON file that the command writes, such as results.json:test.dice",
    metavar="FILE:KEY",
)
@option(
    "Essentials",
    "--performance-regex",
    "read P from the last match in the output, such as 'dice: ([0-9.]+)'",
    metavar="REGEX",
)
@option("Essentials", "--performance", "what P is, such as test/dice", default=PERFORMANCE)
@option(
    "Data",
    "--data",
    "file or folder of the data set, which its content identifies",
    type=click.Path(exists=True, path_type=Path),
)
@of_spec("energy", "country", "carbon_intensity", "pue")
@tracking_uri
def command(
    experiment: str,
    model: str,
    params: tuple[str, ...],
    performance_from: str | None,
    performance_regex: str | None,
    performance: str,
    data: Path | None,
    tracking_uri: str | None,
    **given: Any,
) -> int:
    """Run a command, and log its energy, time and memory as a run.

    Write the command after --. It runs unchanged, and its exit status is that of `pepr measure`.
    All processes that it starts count, and all GPUs that PyTorch sees: CUDA_VISIBLE_DEVICES and
    HIP_VISIBLE_DEVICES choose.

    P is a share from 0 to 1: better is higher. Where the command does not write it, add it later
    with `pepr log`.

    \b
    Examples:
      pepr measure --experiment seg --model nnunet2d --param dataset=1 --performance-from out/summary.json:foreground_mean.Dice -- nnUNetv2_train 1 2d 0
      pepr measure --experiment seg --model unet --param seed=1 --performance-regex 'dice: ([0-9.]+)' -- python train.py --seed 1
      pepr measure --experiment demo --model sleep -- sleep 2
    """  # noqa: E501
    words = click.get_current_context().meta[_COMMAND]
    if not words:
        raise WrongUse("measure: it has no command; write one after --, such as -- python train.py")
    from pepr_mlops.train import own_performance
    from pepr_mlops.train.own_command import measure_command

    sources = {"performance_from": performance_from, "performance_regex": performance_regex}
    chosen = [own_performance.SOURCES[name](text) for name, text in sources.items() if text]
    if len(chosen) > 1:
        raise WrongUse("performance: give --performance-from or --performance-regex, not both")
    found = measure_command(
        words,
        experiment,
        spec_of(given),
        model=model,
        params=dict(pairs(params, "param", "epochs=100")),
        source=chosen[0] if chosen else own_performance.Source(),
        performance=performance,
        data=data,
        tracking_uri=tracking_uri,
        note=note,
    )
    say(summary(found, performance), err=True)
    if found.problem is not None:
        say(f"pepr: {found.problem}", err=True)
    return found.status or int(found.problem is not None)


def summary(found: Any, performance: str) -> str:
    """What the command cost, and how to add its P."""
    from pepr_mlops.comparison.words import amount
    from pepr_mlops.train.progress import energy_text, seconds_text

    memory = {"memory/rss_gb": "all processes", "memory/device_used_gb": "GPUs"}
    rows = [
        ("energy", energy_text(found.metrics.get("energy/train_wh"), found.energy_source)),
        ("time", seconds_text(found.metrics["time/train_s"])),
        *(
            (f"peak memory, {words}", amount(found.metrics[name], "GB"))
            for name, words in memory.items()
            if name in found.metrics
        ),
    ]
    if PERFORMANCE in found.metrics:
        rows.append((performance, f"{found.metrics[PERFORMANCE]:.4f}"))
    elif found.status == 0 and not found.killed:
        rows.append(("to add its P", f"pepr log {found.run_id} {performance}=0.83"))
    lines = [*(f"caution: {text}" for text in found.cautions)]
    if found.status or found.killed:
        ended = f"ended with exit status {found.status}"
        if found.killed:
            ended = f"was stopped by a signal and {ended}"
        lines.append(f"the command {ended}: comparisons leave it out")
    return "\n".join(["", table(rows), *lines])
