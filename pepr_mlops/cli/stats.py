"""`pepr stats`: do groups of models or conditions of training differ?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pepr_mlops.cli.options import (
    Command,
    load_request,
    option,
    output_options,
    run_options,
    score_options,
)
from pepr_mlops.cli.output import note, render, say_or_write

_COLUMNS = {
    **{name: name for name in ("by", "where", "groups")},
    "quantity": "of",
    **{name: name for name in ("n", "means", "medians", "test", "p")},
    **{"p_holm": "p (Holm)", "size": "effect"},
}


@click.command(cls=Command)
@run_options
@score_options
@output_options
@option(
    "Essentials",
    "--by",
    "size, kind, efficient, or what runs differ in, such as pretrained or fraction",
    multiple=True,
    metavar="NAME",
)
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    form: str,
    out: Path | None,
    by: tuple[str, ...],
    **options: Any,
) -> None:
    """Test differences of P and PePR: small and large models, CNN and others, efficient or not, and
    the same models pretrained or not, on fractions of the data, …

    Different models: t and Mann-Whitney test; the same models under two conditions: paired t and
    Wilcoxon. Effects compare the first group with the second. p is also corrected over all rows of
    a test (Holm).

    \b
    Examples:
      pepr stats --experiment derma
      pepr stats --experiment derma --experiment derma_pt --by pretrained
      pepr stats --experiment derma --by size --by kind --resource E,M --format csv
    """
    from pepr_mlops.comparison import tally
    from pepr_mlops.comparison.significance import differences

    options["stratify"] = not options["allow_mixed"]  # each condition is a set of its own
    comparison = load_request(experiments, tracking_uri, **options).compare()
    table = differences(comparison, by)
    note(f"runs: {tally(comparison.runs)}", *comparison.notes)
    if form not in ("csv", "json"):
        rows = table.to_dict("records")
        table = table.assign(
            groups=[f"{r['a']} / {r['b']}" for r in rows],
            n=[" / ".join(map(str, dict.fromkeys((r["n_a"], r["n_b"])))) for r in rows],
            means=[f"{r['mean_a']:.4f} / {r['mean_b']:.4f}" for r in rows],
            medians=[f"{r['median_a']:.4f} / {r['median_b']:.4f}" for r in rows],
            size=[f"{r['effect']:.2f} {r['effect_name']}" for r in rows],
        )
    say_or_write(render(table, form, _COLUMNS), out)
