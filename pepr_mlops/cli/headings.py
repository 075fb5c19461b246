"""Options that a command's help shows under headings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# In the order of the help; the last one has what no heading was given for, such as --help.
HEADINGS = (
    *("Essentials", "Model", "Data", "Recipe", "Machine", "Measuring", "Search", "Sweep"),
    *("Runs", "Score", "Tracking", "Output", "Other"),
)


class Option(click.Option):
    """An option with its heading, one of `HEADINGS`."""

    def __init__(self, *args: Any, heading: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class Command(click.Command):
    """A command whose help has a section for each heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                sections[getattr(parameter, "heading", HEADINGS[-1])].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def option(heading: str, *names: str, **settings: Any) -> Callable[[F], F]:
    """`click.option` under a heading."""
    return click.option(*names, cls=Option, heading=heading, **settings)


def tracking_uri(command: F) -> F:
    """The option that names the tracking server."""
    say = "MLflow tracking server [default: MLFLOW_TRACKING_URI]"
    return option("Tracking", "--tracking-uri", help=say)(command)
