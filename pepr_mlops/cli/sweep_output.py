"""What `pepr sweep` prints: jobs and forecasts before, progress during, and what came of it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pepr_mlops.cli import search_output
from pepr_mlops.cli.output import say, tell, text
from pepr_mlops.cli.table import table
from pepr_mlops.comparison.checks import disturbed
from pepr_mlops.comparison.notes import constant_text
from pepr_mlops.spec import AUTO, TRIED, Job
from pepr_mlops.sweep import forecasts, plan
from pepr_mlops.sweep.driver import Ended, Status
from pepr_mlops.sweep.engine import NOTE, Report
from pepr_mlops.sweep.frugal import Objective
from pepr_mlops.sweep.search import Search
from pepr_mlops.sweep.sweep import (
    Settings,
    default_checkpoints,
    downloads,
    frugal,
    jobs,
    look,
    parameters,
)
from pepr_mlops.text import printable
from pepr_mlops.train.progress import seconds_text

_ERASE = "\r\033[K"  # what is on the terminal's line
_SHOW_EVERY_S = 30.0  # where there is no terminal to write over

Sought = tuple[str, Objective]  # the letter of a cost, and what is sought with it


def dry_run(
    grid: Mapping[str, Any], settings: Settings, form: str, sought: Sought | None = None
) -> int:
    """Show the jobs, what is done, and what training the rest takes; a search will take less."""
    specs = plan.shuffled(jobs(grid), settings.order_seed)
    if sought is not None:
        frugal(specs, settings, *sought)  # or it cannot be
    _caution(specs)
    now = look(specs, settings)
    tell(now.notes)
    expected = forecasts.to_come(now.jobs, now.runs, parameters(specs))
    shown = _jobs_frame(now.jobs).assign(
        **{
            f"forecast_{unit}{end}": expected[cost + end]
            for cost, unit in zip(forecasts.COSTS, ("wh", "s"), strict=True)
            for end in ("", "_low", "_high")
        },
        basis=expected["basis"],
    )
    if form != "table":
        say(text(shown.reset_index(names="spec"), form))
        return 0
    columns = [*_varied(specs), "state"]
    rows = [
        [
            *(str(row[c]) for c in columns),
            _forecast(row, "forecast_wh"),
            _forecast(row, "forecast_s"),
            "" if pd.isna(row["basis"]) else row["basis"],
        ]
        for _, row in shown.iterrows()
    ]
    say(table(rows, [*columns, "energy", "time", "forecast from"]))
    left = shown[shown["state"].isin(["pending", "running"])]
    to_come = "to come" if sought is None else "to come at most"
    say("")
    say(
        table(
            [
                ("jobs", f"{len(shown)}: {_counts(now.jobs)}"),
                ("energy so far, with evaluation and trials", _spent(now)),
                (f"energy of training alone {to_come}", _sum(left, "forecast_wh")),
                (f"time of training alone {to_come}", _sum(left, "forecast_s")),
                *_machines(expected),
                ("download", downloads([now.jobs.loc[key, "spec"] for key in left.index])),
            ]
        )
    )
    return 0


def run(
    grid: Mapping[str, Any], settings: Settings, form: str, sought: Sought | None = None
) -> int:
    """Do the sweep with progress on standard error, and print what came of it.

    With `sought` it is a frugal search.
    """
    from pepr_mlops.sweep.sweep import run as sweep

    specs = jobs(grid)
    search = None if sought is None else frugal(specs, settings, *sought)
    _caution(specs)
    if sys.stderr.isatty():
        say("loading PyTorch, timm and MLflow …", err=True)
    progress = Progress(specs, search)
    try:
        ended = sweep(
            specs,
            settings,
            progress.show,
            progress.told,
            search or plan.exhaustive,
            lambda text: tell([text]),
        )
    finally:
        progress.close()
    status = summary(ended, specs, settings, form, search)
    if ended.interrupt is not None:
        raise ended.interrupt
    return status


def summary(
    ended: Ended,
    specs: Sequence[Job],
    settings: Settings,
    form: str,
    search: Search | None = None,
) -> int:
    """Print what came of each job, and how the sweep ended; its exit status."""
    shown = _jobs_frame(ended.jobs)
    errors = shown["error"].fillna(pd.Series(ended.errors, dtype=object))
    shown["error"] = errors.where(shown["state"] != "done")
    failed = (shown["state"] == "failed") | shown.index.isin(ended.given_up)
    shown["state"] = shown["state"].replace({"pending": "remains"})
    if search is not None:
        search_output.summary(ended, search, shown, _source(ended.jobs, ended.runs), form)
    elif form != "table":
        say(text(shown.reset_index(names="spec"), form))
    else:
        columns = [*_varied(specs), "state"]
        rows = [
            [*(str(row[c]) for c in columns), _number(row["energy_wh"], "Wh"), row["error"]]
            for _, row in shown.fillna({"error": ""}).iterrows()
        ]
        say(table(rows, [*columns, "energy", "why"]))
    left = shown["state"] != "done"
    note = [f"{len(shown)} jobs: {_counts(ended.jobs)}"]
    if search is not None:  # what it does not train is no remainder
        left, note = failed | (ended.stopped is not None), []
    if ended.stopped is not None:
        note.append(f"stopped: {ended.stopped}")
    if note:
        say("; ".join(note), err=True)
    done = ended.jobs.loc[ended.jobs["state"] == "done", "run_id"]
    mine = ended.runs[ended.runs["run_id"].isin(list(done))]
    if n := int(disturbed(mine).sum()):
        names = " ".join(f"--experiment {name}" for name in mine["experiment"].unique())
        say(
            f"{n} of them ran while other programs used the machine, or were stopped: their costs "
            f"are too high; pepr runs {names} lists them",
            err=True,
        )
    if n := int(mine["not_stored"].notna().sum()):
        say(
            f"{n} of them have files that the tracking server did not take (their tag "
            "pepr.not_stored names them): `pepr sync` sends what this machine has kept",
            err=True,
        )
    if left.any():
        words = "the same command goes on"
        if (shown["state"] == "failed").any():
            words += ", with --retry-failed also with what failed for good"
        if settings.engine == "local":
            logs = (settings.checkpoints or default_checkpoints()) / "logs"
            words += f"; what jobs printed: {logs}"
        say(words, err=True)
    return int(left.any())


def _caution(specs: Sequence[Job]) -> None:
    """Before it costs anything: what `auto` chooses for each job may not compare."""
    fields = [name for name in TRIED if any(getattr(spec, name) == AUTO for spec in specs)]
    if len({spec.model for spec in specs}) > 1 and fields:
        say(
            f"{', '.join(fields)}: each model tries once what is fastest for it on each kind of "
            "machine; models that choose different settings are not scored together without "
            "--allow-mixed, so name a setting to compare all of them",
            err=True,
        )


class Progress:
    """Shows a sweep on standard error: a line that is written over on a terminal."""

    def __init__(self, specs: Sequence[Job], search: Search | None = None) -> None:
        self._started = time.monotonic()
        self._parameters = parameters(specs)
        self._search = search
        self._shown = self._looked = -_SHOW_EVERY_S
        self._outlook = ""
        self._said: set[str] = set()

    def show(self, now: Status) -> None:
        on_terminal = sys.stderr.isatty()
        if not on_terminal and time.monotonic() - self._shown < _SHOW_EVERY_S:
            return
        self._shown = time.monotonic()
        line = self._line(now)
        if on_terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"{_ERASE}{printable(line)[:width]}")
            sys.stderr.flush()
        else:
            say(line, err=True)

    def told(self, report: Report) -> None:
        """One line for each task that ended, and each note once."""
        if report.reason == NOTE:
            # Each of many jobs may meet the same server, with details of its own in brackets.
            what = str(report.error).partition(" (")[0]
            if what not in self._said:
                self._said.add(what)
                if what.endswith("answers again"):
                    self._said.clear()  # the next absence is news again
                self.close()
                say(str(report.error), err=True)
            return
        words = {"paused": "rests", "claimed": "is done by another process"}
        line = f"{report.spec.model} {report.spec.seed} {words.get(report.reason, report.reason)}"
        if report.error is not None and report.reason not in words and report.reason != "probed":
            line += f": {report.error}"
        self.close()
        say(line, err=True)

    def close(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(_ERASE)
            sys.stderr.flush()

    def _line(self, now: Status) -> str:
        elapsed = time.monotonic() - self._started
        line = f"{_counts(now.jobs)} of {len(now.jobs)} jobs; {_spent(now)}, "
        line += seconds_text(elapsed)
        if self._search is not None:
            return f"{line}; {search_output.line(self._search, now)}"
        if time.monotonic() - self._looked >= _SHOW_EVERY_S:  # it takes time from the jobs
            self._looked = time.monotonic()
            self._outlook = self._found(now)
        return line + self._outlook

    def _found(self, now: Status) -> str:
        """What is to come, and the best so far."""
        text = ""
        expected = forecasts.to_come(now.jobs, now.runs, self._parameters)
        if expected["time_s"].notna().any():
            text += f"; to come {_sum(expected, 'energy_wh')}, "
            text += f"{_sum(expected, 'time_s')} of training"
        best = best_so_far(now.runs, list(now.jobs["spec"]))
        return text + (f"; best {best}" if best else "")


def best_so_far(runs: pd.DataFrame, specs: Sequence[Job]) -> str:
    """The best PePR-E of each comparison set among the finished runs of these jobs, or nothing."""
    from pepr_mlops.comparison import Question, compare
    from pepr_mlops.errors import PeprError

    mine = runs[runs["spec"].isin([spec.fingerprint for spec in specs])]
    if not (mine["status"] == "FINISHED").any():
        return ""
    try:
        scores = compare(mine, Question(mixed="stratify", draws=0)).scores
    except PeprError:  # no run has an energy, say: there is no best yet
        return ""
    best = scores[scores["rank"] == 1].drop_duplicates("comparison_set")
    return ", ".join(f"{row['model']} PePR-E {row['score']:.4f}" for _, row in best.iterrows())


def _jobs_frame(states: pd.DataFrame) -> pd.DataFrame:
    """The jobs with the fields of their specs as columns."""
    fields = pd.DataFrame([spec.as_params() for spec in states["spec"]], states.index)
    return fields.join(states.drop(columns="spec"))


def _varied(specs: Sequence[Job]) -> list[str]:
    """The fields that tell the jobs apart, the model first."""
    params = plan.settings(specs)
    return ["model", *(c for c in params if c != "model" and params[c].nunique() > 1)]


def _counts(states: pd.DataFrame) -> str:
    counts = states["state"].value_counts()
    words = {"done": "done", "running": "running", "failed": "failed", "pending": "to do"}
    return ", ".join(f"{counts[s]} {word}" for s, word in words.items() if s in counts)


def _spent(now: Status) -> str:
    """What the jobs took so far, in all phases."""
    source = _source(now.jobs, now.runs)
    unknown = int(now.jobs["energy_wh"].isna().sum())
    more = f", and {unknown} jobs of unknown energy" if unknown else ""
    return f"{now.spent_wh:.4g} Wh ({source}{more})"


def _source(jobs: pd.DataFrame, runs: pd.DataFrame) -> str:
    of = runs[runs["spec"].isin(list(jobs.index))]
    known = sorted(set(of["energy_source"].dropna()) - {"none"})
    return (" and ".join(known) or "no energy known") + constant_text(of)


def _number(value: float, unit: str) -> str:
    return "" if pd.isna(value) else f"{value:.4g} {unit}"


def _machines(expected: pd.DataFrame) -> list[tuple[str, str]]:
    """Where that ran which forecasts come from: the jobs may run elsewhere."""
    found = sorted(set(expected.loc[expected["time_s"].notna(), "machine"]) - {""})
    return [("forecast from runs on", "; ".join(found))] if found else []


def _amount(value: float, name: str) -> str:
    """Seconds or watt-hours, by the end of the column's name."""
    return seconds_text(value) if name.endswith("_s") else f"{value:.3g} Wh"


def _forecast(row: pd.Series[Any], name: str) -> str:
    """The forecast of a job, with the range of one that is extrapolated."""
    if pd.isna(row[name]):
        return ""
    if pd.isna(row[f"{name}_low"]):
        return _amount(row[name], name)
    low, high = (_amount(row[f"{name}_{end}"], name) for end in ("low", "high"))
    return f"{_amount(row[name], name)} ({low} to {high})"


def _sum(expected: pd.DataFrame, name: str) -> str:
    """What all jobs take, from the least to the most that those may take which are extrapolated."""
    values = expected[name]
    known = values.dropna()
    if known.empty:
        unit = "s" if name.endswith("_s") else "Wh"
        return "not known: no job like these has run here" if len(values) else f"0 {unit}"
    text = f"about {_amount(known.sum(), name)}"
    guessed = int(expected["basis"].str.startswith(forecasts.EXTRAPOLATED).sum())
    if guessed:
        low, high = (expected[f"{name}_{end}"].fillna(values).sum() for end in ("low", "high"))
        text += f" ({_amount(low, name)} to {_amount(high, name)}, {guessed} of {len(values)} jobs "
        text += "extrapolated)"
    unknown = len(values) - len(known)
    return text + (f", and {unknown} jobs of which nothing is known" if unknown else "")
