"""`pepr runs`: which runs are left out or doubtful, and why; and runs in formats of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.options import (
    FILE,
    FORMATS,
    Command,
    load_request,
    option,
    pairs,
    run_options,
)
from pepr_mlops.cli.output import as_json, note, render, say, say_or_write, write
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import SLURM

if TYPE_CHECKING:
    import pandas as pd

_OF_OTHERS = ("codecarbon", "boamps")


@click.command(cls=Command)
@run_options
@option(
    "Output",
    "--format",
    "how to write the list; codecarbon and boamps write the finished runs in these formats",
    name="form",
    type=click.Choice([*FORMATS, *_OF_OTHERS]),
    default="table",
)
@option(
    "Output",
    "--out",
    "write the result to this file, reports of boamps to this folder",
    type=FILE,
    metavar="PATH",
)
@option("Output", "--all", "list all runs, in tables", name="every", is_flag=True)
@option(
    "Output",
    "--boamps",
    "what runs do not know of their reports: infraType, taskFamily, dataType; may be repeated",
    name="given",
    multiple=True,
    metavar="NAME=VALUE",
)
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    form: str,
    out: Path | None,
    every: bool,
    given: Sequence[str],
    **options: Any,
) -> None:
    """List the runs that `pepr score` leaves out or finds doubtful, and why.

    Or write all finished runs as CodeCarbon's emissions.csv or as a BoAmps report for each;
    --where, --drop and --strict choose among them.

    \b
    Examples:
      pepr runs --experiment derma
      pepr runs --experiment derma --resource E,T --strict --format csv --out runs.csv
      pepr runs --experiment derma --all
      pepr runs --experiment derma --format codecarbon --out emissions.csv
      pepr runs --experiment derma --format boamps --boamps infraType=onPremise --out reports
    """
    from pepr_mlops.comparison import choose, inspect, tally
    from pepr_mlops.comparison.checks import FLAGS

    if form in _OF_OTHERS and (options["country"] or options["carbon_intensity"]) is not None:
        raise WrongUse(f"country: {form} has the CO2e that was logged; leave the option out")
    if given and form != "boamps":
        raise WrongUse("boamps: it describes reports; add --format boamps")
    request = load_request(experiments, tracking_uri, **options)
    runs, notes = inspect(request.runs, request.question, request.evidence)
    if form in _OF_OTHERS:
        barred = {*FLAGS} if request.question.strict else {*request.question.drop}
        dropped = runs["codes"].map(lambda codes: not barred.isdisjoint(codes)).astype(bool)
        chosen, _ = choose(request.runs[~dropped], request.question)
        _write(chosen.drop_duplicates("run_id"), form, out, given)
        return
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


def _write(runs: pd.DataFrame, form: str, out: Path | None, given: Sequence[str]) -> None:
    """Write the finished ones of the runs in a format of others."""
    from datetime import UTC, datetime

    from pepr_mlops.report.formats import boamps, codecarbon

    finished = runs[runs["status"] == "FINISHED"]
    if finished.empty:
        raise WorkFailed("runs: none is left to write; `pepr runs --all` says which finished")
    if len(finished) < len(runs):
        note(f"{len(runs) - len(finished)} of {len(runs)} runs are left out: they did not finish")
    if form == "codecarbon":
        say_or_write(render(codecarbon.rows(finished), "csv"), out)
        return
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    known = dict(pairs(given, "boamps", "infraType=onPremise"))
    reports, notes = boamps.reports(finished, known, made)
    note(*notes)
    if out is None:
        say(as_json(list(reports.values())))
        return
    for run_id, report in reports.items():
        write(out / f"{run_id}.json", as_json(report) + "\n")
    say(f"{len(reports)} reports written to {out}", err=True)
