"""`pepr stats`: do groups of models or conditions of training differ?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pepr_mlops.cli import options as asked
from pepr_mlops.cli.options import Command, option

_EXAMPLE = """
    \b
    Examples:
      pepr stats --experiment derma
      pepr stats --experiment derma --experiment derma_pt --by pretrained
      pepr stats --experiment derma --by size --by kind --resource E,M --format csv
"""


@click.command(
    cls=Command,
    help="Test differences of P and PePR: small and large models, CNN and others, efficient or "
    "not, and the same models pretrained or not, on fractions of the data, …\n\n"
    "Different models: t and Mann-Whitney test; the same models under two conditions: paired t "
    "and Wilcoxon. Effects are of the first against the second. p is also corrected over all rows "
    "of a test (Holm).\n" + _EXAMPLE,
)
@asked.which
@asked.how
@asked.output
@option(
    "Essentials",
    "--by",
    multiple=True,
    metavar="NAME",
    help="size, kind, efficient, or what runs differ in, such as pretrained or fraction",
)
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    form: str,
    out: Path | None,
    by: tuple[str, ...],
    **options: Any,
) -> None:
    from pepr_mlops.cli.output import give, tell, text
    from pepr_mlops.comparison import tally
    from pepr_mlops.comparison.significance import differences

    options["stratify"] = not options["allow_mixed"]  # each condition is a set of its own
    asked_for = asked.read(experiments, tracking_uri, **options)
    found = asked.compared(asked_for)
    table = differences(found, by)
    tell([f"runs: {tally(found.runs)}", *found.notes])
    shown = table.assign(
        groups=table["a"] + " / " + table["b"],
        n=[
            str(a) if a == b else f"{a} / {b}"
            for a, b in zip(table["n_a"], table["n_b"], strict=True)
        ],
        means=[f"{a:.4f} / {b:.4f}" for a, b in zip(table["mean_a"], table["mean_b"], strict=True)],
        medians=[
            f"{a:.4f} / {b:.4f}" for a, b in zip(table["median_a"], table["median_b"], strict=True)
        ],
        size=[f"{e:.2f} {n}" for e, n in zip(table["effect"], table["effect_name"], strict=True)],
    )
    columns = {
        "by": "by",
        "where": "where",
        "groups": "groups",
        "quantity": "of",
        "n": "n",
        "means": "means",
        "medians": "medians",
        "test": "test",
        "p": "p",
        "p_holm": "p (Holm)",
        "size": "effect",
    }
    give(text(table if form in ("csv", "json") else shown, form, columns), out)
