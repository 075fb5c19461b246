"""`pepr log`: metrics of a run that has ended."""

from __future__ import annotations

import click

from pepr_mlops.cli.options import Command, option, tracking_uri
from pepr_mlops.cli.output import note, say
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE


@click.command(cls=Command)
@click.argument("run", metavar="RUN")
@click.argument("metrics", metavar="NAME=VALUE...", nargs=-1, required=True)
@option("Essentials", "--replace", "replace what the run has; its history keeps that", is_flag=True)
@option("Essentials", "--performance", "the metric that is P [default: as the run names it]")
@tracking_uri
def command(
    run: str,
    metrics: tuple[str, ...],
    replace: bool,
    performance: str | None,
    tracking_uri: str | None,
) -> None:
    """Add metrics to a run that has ended, such as P that was computed later.

    RUN is a run's id, as `pepr runs --all` lists it. P is a share from 0 to 1. What the run has
    already is replaced only with --replace, and costs cannot be added.

    \b
    Examples:
      pepr log 0123456789abcdef0123456789abcdef performance=0.83
      pepr log 0123456789abcdef0123456789abcdef test/dice=0.83 test/hausdorff_mm=4.1 --performance test/dice
    """  # noqa: E501
    from pepr_mlops.tracking import add_metrics

    values = dict(_pair(text) for text in metrics)
    if performance is not None and performance not in values:
        raise WrongUse(f"performance: {performance} is not among the metrics; add {performance}=…")
    known = add_metrics(run, values, performance, tracking_uri, replace=replace)
    say(f"{run}: {', '.join(f'{name} {value:g}' for name, value in values.items())}")
    if PERFORMANCE not in known:
        first = next(iter(values))
        note(f"the run still has no P; name the metric that is P, such as --performance {first}")


def _pair(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise WrongUse(f"{text}: it is not NAME=NUMBER, such as performance=0.83") from None
