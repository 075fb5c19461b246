"""`pepr runs`: which runs are left out or doubtful, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pepr_mlops.cli.options import Command, load_request, option, output_options, run_options
from pepr_mlops.cli.output import note, render, say_or_write
from pepr_mlops.names import SLURM


@click.command(cls=Command)
@run_options
@output_options
@option("Output", "--all", "list all runs, in tables", name="every", is_flag=True)
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    form: str,
    out: Path | None,
    every: bool,
    **options: Any,
) -> None:
    """List the runs that `pepr score` leaves out or finds doubtful, and why.

    \b
    Examples:
      pepr runs --experiment derma
      pepr runs --experiment derma --resource E,T --strict --format csv --out runs.csv
      pepr runs --experiment derma --all
    """
    from pepr_mlops.comparison import inspect, tally

    request = load_request(experiments, tracking_uri, **options)
    runs, notes = inspect(request.runs, request.question, request.evidence)
    note(f"runs: {tally(runs)}", *notes)
    by_id = request.runs.drop_duplicates("run_id").set_index("run_id")
    about = by_id.reindex(runs["run_id"]).set_axis(runs.index)
    table = runs.assign(
        reasons=runs["reasons"] + runs["flags"],
        seed=about["seed"],
        fold=about["fold"],
        started=about["start_time"].dt.strftime("%Y-%m-%d %H:%M"),
        data_digest=about["data_digest"],
    )
    columns = ["run_id", "experiment", "model", "seed", "fold", "started", "data_digest"]
    table = table.join(about[[*SLURM]])[[*columns, *SLURM, "used", "codes", "reasons"]]
    if form in ("csv", "json"):
        say_or_write(render(table, form), out)
        return
    shown = table if every else table[table["codes"].str.len() > 0]
    shown = shown.assign(
        used=shown["used"].map({True: "yes", False: "no"}), reasons=shown["reasons"].str.join("; ")
    )
    if shown["data_digest"].nunique() < 2:
        columns.remove("data_digest")
    if shown["fold"].isna().all():
        columns.remove("fold")
    columns += [n for n in ("slurm_job_id", "slurm_nodes") if shown[n].notna().any()]
    headings = {c: c for c in (*columns, "used", "reasons")}
    none = "every run is used, none is doubtful"
    say_or_write(render(shown, form, headings) if len(shown) else none, out)
