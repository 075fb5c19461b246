"""`pepr runs`: what was found, what is left out, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pepr_mlops.cli import options as asked
from pepr_mlops.cli.options import Command, option

_EXAMPLE = """
    \b
    Examples:
      pepr runs --experiment derma
      pepr runs --experiment derma --resource E,T --strict --format csv --out runs.csv
      pepr runs --experiment derma --all
"""


@click.command(
    cls=Command,
    help="List the runs that `pepr score` leaves out or finds doubtful, and why.\n" + _EXAMPLE,
)
@asked.which
@asked.output
@option("Output", "--all", "every", is_flag=True, help="list the faultless ones as well, in tables")
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    form: str,
    out: Path | None,
    every: bool,
    **options: Any,
) -> None:
    from pepr_mlops.cli.output import give, tell, text
    from pepr_mlops.comparison import inspect, tally

    asked_for = asked.read(experiments, tracking_uri, **options)
    runs, notes = inspect(asked_for.runs, asked_for.question, asked_for.evidence)
    tell([f"runs: {tally(runs)}", *notes])
    by_id = asked_for.runs.drop_duplicates("run_id").set_index("run_id")
    about = by_id.reindex(runs["run_id"]).set_axis(runs.index)
    table = runs.assign(
        reasons=runs["reasons"] + runs["flags"],
        seed=about["seed"],
        started=about["start_time"].dt.strftime("%Y-%m-%d %H:%M"),
        data_digest=about["data_digest"],
    )
    columns = ["run_id", "experiment", "model", "seed", "started", "data_digest"]
    table = table[[*columns, "used", "codes", "reasons"]]
    if form in ("csv", "json"):
        give(text(table, form), out)
        return
    shown = table if every else table[table["codes"].str.len() > 0]
    shown = shown.assign(
        used=shown["used"].map({True: "yes", False: "no"}), reasons=shown["reasons"].str.join("; ")
    )
    if shown["data_digest"].nunique() < 2:
        columns.remove("data_digest")
    headings = {c: c for c in (*columns, "used", "reasons")}
    give(text(shown, form, headings) if len(shown) else "every run is used, none is doubtful", out)
