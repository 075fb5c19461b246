"""`pepr models`: the paper's model space."""

from __future__ import annotations

from dataclasses import asdict

import click

from pepr_mlops.cli.output import render, say

_COLUMNS = ("model", "parameters", "kind", "efficient", "size", "cached")


@click.command
@click.option("--name", default="*", help="glob the name must match, such as 'resnet*'")
@click.option("--kind", type=click.Choice(["CNN", "Other"], case_sensitive=False))
@click.option("--efficient/--not-efficient", default=None, help="designed for efficiency, or not")
@click.option("--size", type=click.Choice(["small", "large"]), help="side of the median")
@click.option("--cached", is_flag=True, help="only those with pretrained weights on this disk")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
def command(
    name: str, kind: str | None, efficient: bool | None, size: str | None, cached: bool, form: str
) -> None:
    """List the 131 models of the PePR paper (its Table A.1); any other timm name can be trained as
    well.

    Parameters include the 1,000-class head of ImageNet; models up to the median number of
    parameters are small.

    \b
    Examples:
      pepr models --kind CNN --efficient --size small
      pepr models --name 'resnet*' --format csv
    """
    from pepr_mlops.paper_models import select
    from pepr_mlops.train.models import cached_models

    here = cached_models()
    models = [
        {**asdict(m), "cached": m.model in here}
        for m in select(name=name, kind=kind, efficient=efficient, size=size)
        if m.model in here or not cached
    ]
    if form != "json":
        yes_or_no = {True: "yes", False: "no"}
        for model in models:
            del model["link"]
            model |= {key: yes_or_no[model[key]] for key in ("efficient", "cached")}
            if form == "table":
                model["parameters"] = f"{model['parameters']:,}"
    if form == "table" and not models:
        say("no model matches")
    else:
        say(render(models, form, {key: key for key in _COLUMNS}))
    if form == "table":
        say(f"{len(models)} of 131 models", err=True)
