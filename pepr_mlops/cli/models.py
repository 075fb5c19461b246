"""`pepr models`: the paper's model space."""

from __future__ import annotations

import click

from pepr_mlops.cli.output import say

_EXAMPLE = """
    \b
    Examples:
      pepr models --kind CNN --efficient --size small
      pepr models --name 'resnet*' --format csv
"""


@click.command(
    help="List the 131 models of the PePR paper (its Table A.1); any other timm name can be "
    "trained as well.\n\nParameters are with the 1,000-class head of ImageNet; small is up to "
    "and with their median.\n" + _EXAMPLE
)
@click.option("--name", default="*", help="glob the name must match, such as 'resnet*'")
@click.option("--kind", type=click.Choice(["CNN", "Other"], case_sensitive=False))
@click.option("--efficient/--not-efficient", default=None, help="designed for efficiency, or not")
@click.option("--size", type=click.Choice(["small", "large"]), help="side of the median")
@click.option("--cached", is_flag=True, help="only those with pretrained weights on this disk")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
def command(
    name: str, kind: str | None, efficient: bool | None, size: str | None, cached: bool, form: str
) -> None:
    from pepr_mlops.paper_models import select
    from pepr_mlops.train.models import cached_models

    here = cached_models()
    found = [
        (m, m.model in here)
        for m in select(name=name, kind=kind, efficient=efficient, size=size)
        if m.model in here or not cached
    ]
    if form == "json":
        import json
        from dataclasses import asdict

        say(json.dumps([{**asdict(m), "cached": c} for m, c in found], indent=2))
        return
    header = ["model", "parameters", "kind", "efficient", "size", "cached"]
    rows = [
        [m.model, str(m.parameters), m.kind, _yes(m.efficient), m.size, _yes(c)] for m, c in found
    ]
    if form == "csv":
        import csv
        import sys

        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
        return
    from pepr_mlops.cli.table import table

    for row in rows:
        row[1] = f"{int(row[1]):,}"
    say(table(rows, header) if rows else "no model fits")
    say(f"{len(rows)} of 131 models", err=True)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
