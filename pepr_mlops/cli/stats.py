"""`pepr stats`: do groups of models, conditions of training or two models differ?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.options import (
    Command,
    Request,
    load_request,
    names,
    option,
    output_options,
    run_options,
    score_options,
)
from pepr_mlops.cli.output import note, render, say_or_write
from pepr_mlops.errors import WrongUse

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {
    **{name: name for name in ("by", "where", "groups")},
    "quantity": "of",
    **{name: name for name in ("n", "means", "medians", "test", "p")},
    **{"p_holm": "p (Holm)", "size": "effect"},
}
_OF_TWO = {
    **{name: name for name in ("where", "groups")},
    "quantity": "of",
    **{name: name for name in ("seed", "n", "images", "means", "difference", "interval", "test")},
    **{"alone": "n10 / n01", "p": "p", "p_holm": "p (Holm)"},
}


_SCOPE = (
    "the models of a data set share its test images, so that their differences are no independent "
    "observations of new images: these tests are about a population of models on these images; "
    "--models A,B tests two models"
)


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
@option(
    "Essentials",
    "--models",
    "test these two models on their common test images instead",
    metavar="A,B",
)
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    form: str,
    out: Path | None,
    by: tuple[str, ...],
    models: str | None,
    **options: Any,
) -> None:
    """Test differences of P and PePR: small and large models, CNN and others, efficient or not, and
    the same models pretrained or not, on fractions of the data, …

    Different models: t and Mann-Whitney test; the same models under two conditions: paired t and
    Wilcoxon. Effects compare the first group with the second. With --models, P of two models: a
    paired bootstrap over images and runs, and for each seed McNemar's and DeLong's test. p is also
    corrected over all rows of a test (Holm). Tests of groups are about models like these on the
    same test images, not about new images.

    \b
    Examples:
      pepr stats --experiment derma
      pepr stats --experiment derma --experiment derma_pt --by pretrained
      pepr stats --experiment derma --by size --by kind --resource E,M --format csv
      pepr stats --experiment derma --models resnet18d,dla46_c
    """
    if models is not None and by:
        raise WrongUse("models: give either --models or --by, not both")
    two = None if models is None else _two(models)
    options["stratify"] = not options["allow_mixed"]  # each condition is a set of its own
    request = load_request(experiments, tracking_uri, **options)
    people = form not in ("csv", "json")
    if two is None:
        table, columns = _of_groups(request, by, people), _COLUMNS
    else:
        table, columns = _of_two(request, two, people), _OF_TWO
    say_or_write(render(table, form, columns), out)


def _two(models: str) -> tuple[str, str]:
    found = names(models)
    if len(found) != 2 or found[0] == found[1]:
        raise WrongUse(f"models: {models!r} is not two models; name two, such as resnet18d,dla46_c")
    return found[0], found[1]


def _of_groups(request: Request, by: tuple[str, ...], people: bool) -> pd.DataFrame:
    from pepr_mlops.comparison import tally
    from pepr_mlops.comparison.significance import differences

    comparison = request.compare()
    table = differences(comparison, by)
    note(f"runs: {tally(comparison.runs)}", *comparison.notes, _SCOPE)
    if not people:
        return table
    rows = table.to_dict("records")
    return _for_people(table).assign(
        medians=[f"{r['median_a']:.4f} / {r['median_b']:.4f}" for r in rows],
        size=[f"{r['effect']:.2f} {r['effect_name']}" for r in rows],
    )


def _of_two(request: Request, models: tuple[str, str], people: bool) -> pd.DataFrame:
    from pepr_mlops.comparison import tally
    from pepr_mlops.comparison.two_models import compared

    comparison = request.compare()
    table, notes = compared(comparison, request.question, *models)
    note(f"runs: {tally(comparison.runs)}", *comparison.notes, *notes)
    if not people:
        return table
    rows = table.to_dict("records")
    return _for_people(table).assign(
        interval=[
            "" if r["low"] != r["low"] else f"{r['low']:.4f} to {r['high']:.4f}" for r in rows
        ],
        alone=["" if r["n10"] is None else f"{r['n10']} / {r['n01']}" for r in rows],
    )


def _for_people(table: pd.DataFrame) -> pd.DataFrame:
    """With the two sides of each test in one column."""
    rows = table.to_dict("records")
    return table.assign(
        groups=[f"{r['a']} / {r['b']}" for r in rows],
        n=[" / ".join(map(str, dict.fromkeys((r["n_a"], r["n_b"])))) for r in rows],
        means=[f"{r['mean_a']:.4f} / {r['mean_b']:.4f}" for r in rows],
    )
