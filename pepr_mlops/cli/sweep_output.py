"""What `pepr sweep` prints: jobs and forecasts before, progress during, and the result."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from pepr_mlops.cli import search_output
from pepr_mlops.cli.output import energies, note, render, say, table
from pepr_mlops.comparison.checks import disturbed
from pepr_mlops.comparison.notes import constant_text
from pepr_mlops.comparison.words import amount, status_words
from pepr_mlops.names import ScoredOn
from pepr_mlops.process import signals
from pepr_mlops.spec import AUTO, TRIED, Job
from pepr_mlops.sweep import forecasts, plan, sweep
from pepr_mlops.sweep.driver import Result, Status
from pepr_mlops.sweep.engine import NOTE, UNSENT, Report
from pepr_mlops.sweep.jobs import downloads, jobs, parameters, weights_gb
from pepr_mlops.sweep.observed import Objective
from pepr_mlops.sweep.search import Search
from pepr_mlops.sweep.sweep import Settings
from pepr_mlops.text import printable
from pepr_mlops.train.progress import seconds_text

_ERASE = "\r\033[K"  # the terminal's line
_STATES = {"done": "done", "running": "running", "failed": "failed", "pending": "to do"}
_SHOW_EVERY_S = 30.0  # where there is no terminal line to overwrite
_USUAL = Settings()

_ASKING = "looking for jobs to submit; Slurm is called at most once in 10 s …"
# Variables that decide where runs go, and which another shell may not have.
_ENVIRONMENT = ("MLFLOW_TRACKING_URI", "PEPR_JOURNAL", "PEPR_CHECKPOINTS")

# The letter of a cost, the objective of a search, the split that decides if one was named, and the
# source of the prior.
Target = tuple[str, Objective, ScoredOn | None, str]


def dry_run(
    grid: Mapping[str, Any], settings: Settings, form: str, target: Target | None = None
) -> int:
    """Show the jobs, their state, and the forecast of the rest; a search will take less."""
    specs = plan.shuffled(jobs(grid), settings.order_seed)
    search = None if target is None else sweep.frugal(specs, settings, *target)
    _caution(specs)
    now = sweep.status(specs, settings)
    note(*now.notes)
    sizes = parameters(specs)
    expected = forecasts.to_come(now.jobs, now.runs, sizes)
    names = {"energy_wh": "forecast_wh", "time_s": "forecast_s"}
    names |= {f"{cost}_{end}": f"{names[cost]}_{end}" for cost in names for end in ("low", "high")}
    rows = _jobs_frame(now.jobs).join(expected[[*names, "basis"]].rename(columns=names))
    if form != "table":
        say(render(rows.reset_index(names="spec"), form))
        return 0
    cells = rows[_varied(specs)].assign(
        state=[_state_words(row) for row in rows[["state", "reason"]].to_dict("records")],
        **{
            "training energy": [_forecast(row, "forecast_wh") for _, row in rows.iterrows()],
            "training time": [_forecast(row, "forecast_s") for _, row in rows.iterrows()],
            "forecast from": rows["basis"],
        },
    )
    say(render(cells, form) + "\n")
    to_come = _to_come(now.jobs)
    left = rows.loc[to_come.index]
    limit = "" if search is None else " at most"
    machines = sorted(set(expected.loc[expected["time_s"].notna(), "machine"]) - {""})
    summary = [
        ("jobs", f"{len(rows)}: {_counts(now.jobs)}"),
        ("search for", "" if search is None else search_output.sought(search)),
        ("prior", "" if search is None else search_output.source_of(search.prior)),
        (
            "energy so far, with evaluation and trials",
            _spent(now) + constant_text(_own(now.jobs, now.runs)),
        ),
        (
            f"energy of training alone to come{limit}",
            "" if all(spec.energy == "off" for spec in specs) else _sum(left, "forecast_wh"),
        ),
        (f"time of training alone to come{limit}", _sum(left, "forecast_s")),
        ("forecast from runs on", "; ".join(machines)),  # jobs may run elsewhere
        ("download", downloads(list(to_come))),
        ("weights that runs keep", _weights(to_come, sizes, settings)),
    ]
    say(table([row for row in summary if row[1]]))
    return 0


def run(
    grid: Mapping[str, Any], settings: Settings, form: str, target: Target | None = None
) -> int:
    """Run the sweep with progress on standard error, and print the result.

    With `target` it is a frugal search.
    """
    specs = jobs(grid)
    search = None if target is None else sweep.frugal(specs, settings, *target)
    _caution(specs)
    if sys.stderr.isatty():
        say("loading PyTorch, timm and MLflow …", err=True)
    if settings.engine == "slurm":
        say(_ASKING, err=True)
    progress = Progress(specs, search, settings)
    strategy = search or plan.exhaustive
    for hang_up in signals("SIGHUP") if settings.engine == "slurm" else ():
        if signal.getsignal(hang_up) is not signal.SIG_IGN:
            signal.signal(hang_up, signal.SIG_DFL)  # jobs outlive the connection
    try:
        result = sweep.run(specs, settings, progress.show, progress.report, strategy, note)
    finally:
        progress.close()
    status = summary(result, specs, settings, form, search)
    if result.interrupt is not None:
        raise result.interrupt
    return status


def detach(grid: Mapping[str, Any], settings: Settings, again: str) -> int:
    """Submit the jobs of the sweep, and print the command that continues, `again`."""
    specs = jobs(grid)
    _caution(specs)
    say(_ASKING, err=True)
    progress = Progress(specs, None, settings)
    result, left = sweep.detach(specs, settings, progress.report, note)
    say(f"{len(specs)} jobs; before this command: {_counts(result.jobs)}", err=True)
    if left:
        say(
            f"{left} of them are not submitted yet, since no more may wait: the command below "
            "submits them when others have ended",
            err=True,
        )
    used = [name for name in _ENVIRONMENT if name in os.environ]
    same = f" with the same {' and '.join(used)}" if used else ""
    say(f"to report and continue{same}:\n{again}", err=True)
    return 0


def summary(
    result: Result,
    specs: Sequence[Job],
    settings: Settings,
    form: str,
    search: Search | None = None,
) -> int:
    """Print the state of each job, and how the sweep ended; its exit status."""
    rows = _jobs_frame(result.jobs)
    errors = rows["error"].fillna(pd.Series(result.errors, dtype=object))
    rows["error"] = errors.where(rows["state"] != "done")
    failed = (rows["state"] == "failed") | rows.index.isin(result.given_up)
    if search is not None:
        own = _own(result.jobs, result.runs)
        source = (_source(own) or "no energy known") + constant_text(own)
        search_output.summary(result, search, rows, source, form)
    elif form != "table":
        say(render(rows.reset_index(names="spec"), form))
    else:
        costs = {"energy, all phases": energies(rows)}
        states = [_state_words(row) for row in rows[["state", "reason"]].to_dict("records")]
        cells = rows[_varied(specs)].assign(state=states, **costs, why=rows["error"])
        say(render(cells, form))
    # A search leaves jobs untrained on purpose.
    left = rows["state"] != "done" if search is None else failed | (result.stopped is not None)
    end = [f"{len(rows)} jobs: {_counts(result.jobs)}"] if search is None else []
    if result.stopped is not None:
        end.append(f"stopped: {result.stopped}")
    if end:
        say("; ".join(end), err=True)
    _about_runs(result)
    if left.any():
        text = "the same command resumes"
        if (rows["state"] == "failed").any():
            text += ", with --retry-failed also jobs that failed for good"
        if settings.engine != "ray":
            logs = (settings.checkpoints or sweep.default_checkpoints()) / "logs"
            text += f"; job logs: {logs}"
        say(text, err=True)
    return int(left.any())


def _about_runs(result: Result) -> None:
    """Report runs with doubtful costs or files that the server does not have."""
    done = result.jobs.loc[result.jobs["state"] == "done", "run_id"]
    own = result.runs[result.runs["run_id"].isin(list(done))]
    if n := int(disturbed(own).sum()):
        names = " ".join(f"--experiment {name}" for name in own["experiment"].unique())
        say(
            f"{n} of them ran while other programs used the machine, or were stopped: their costs "
            f"are too high; pepr runs {names} lists them",
            err=True,
        )
    probes = _own(result.jobs, result.runs)
    probes = probes[probes["probe"].notna()]
    if n := int(disturbed(probes).sum()):
        say(
            f"{n} of {len(probes)} probes ran while other programs used the machine: forecasts "
            "from them are too high, and so may be R",
            err=True,
        )
    if n := int(own["not_stored"].notna().sum()):
        say(
            f"{n} of them have files that the tracking server did not take (their tag "
            "pepr.not_stored names them): `pepr sync` sends those that are still on this machine",
            err=True,
        )


def _to_come(jobs: pd.DataFrame) -> pd.Series[Any]:
    """The specs of the jobs that are still to be done."""
    return jobs.loc[jobs["state"].isin(["pending", "running"]), "spec"]


def _weights(specs: Iterable[Job], sizes: Mapping[str, int], settings: Settings) -> str:
    """How much the weights of these jobs may take, nothing where none are kept."""
    size_gb = weights_gb(specs, sizes)
    before = "" if settings.keep_top is None else f" before {settings.keep_top} drops some"
    return f"up to {size_gb:.2g} GB{before}" if size_gb else ""


def _caution(specs: Sequence[Job]) -> None:
    """Warn, before it costs anything, that `auto` may choose settings that do not compare."""
    fields = [name for name in TRIED if any(getattr(spec, name) == AUTO for spec in specs)]
    if len({spec.model for spec in specs}) > 1 and fields:
        say(
            f"{', '.join(fields)}: each model tries once what is fastest for it on each kind of "
            "machine; models that choose different settings are not scored together without "
            "--allow-mixed, so name a setting to compare all of them",
            err=True,
        )


class Progress:
    """Shows a sweep on standard error: on a terminal in a line that is overwritten."""

    def __init__(
        self,
        specs: Sequence[Job],
        search: Search | None = None,
        settings: Settings = _USUAL,
    ) -> None:
        self._started = time.monotonic()
        self._parameters = parameters(specs)
        self._search, self._settings = search, settings
        self._shown = self._forecast_at = -_SHOW_EVERY_S
        self._outlook = ""
        self._noted: set[str] = set()

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

    def report(self, report: Report) -> None:
        """One line for each task that ended, and each note once."""
        if report.reason == UNSENT:
            return
        if report.reason == NOTE:
            # Many jobs may meet the same server, with their own details in brackets.
            what = str(report.error).partition(" (")[0]
            if what not in self._noted:
                self._noted.add(what)
                if what.endswith("answers again"):
                    self._noted.clear()  # report the next absence too
                self.close()
                say(str(report.error), err=True)
            return
        spec, finished = report.spec, report.reason == "finished"
        fold = "" if spec.fold is None else f" fold {spec.fold}"
        words = "finished" if finished else status_words("FAILED", report.reason)
        words = "is done by another process" if report.reason == "claimed" else words
        line = f"{spec.model} seed {spec.seed}{fold} {words}"
        if report.error is not None and report.reason not in ("paused", "claimed", "probed"):
            line += f" ({report.error})"
        self.close()
        say(line, err=True)

    def close(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(_ERASE)
            sys.stderr.flush()

    def _line(self, now: Status) -> str:
        seconds = time.monotonic()
        line = f"{_counts(now.jobs)} of {len(now.jobs)} jobs; {_spent(now)}, "
        line += f"{seconds_text(seconds - self._started)} elapsed"
        if weights := _weights(_to_come(now.jobs), self._parameters, self._settings):
            line += f"; weights to come: {weights}"
        if self._search is not None:
            return f"{line}; {search_output.line(self._search, now)}"
        if seconds - self._forecast_at >= _SHOW_EVERY_S:  # forecasting takes time from the jobs
            self._forecast_at = seconds
            self._outlook = self._forecast(now)
        return line + self._outlook

    def _forecast(self, now: Status) -> str:
        """The costs to come, and the best so far."""
        text = ""
        expected = forecasts.to_come(now.jobs, now.runs, self._parameters)
        known = [name for name in ("energy_wh", "time_s") if expected[name].notna().any()]
        if known:
            text += "; training to come: " + ", ".join(_sum(expected, name) for name in known)
        best = best_so_far(now.runs, list(now.jobs["spec"]))
        return text + (f"; best {best}" if best else "")


def best_so_far(runs: pd.DataFrame, specs: Sequence[Job]) -> str:
    """The best PePR-E of each comparison set among the finished runs of these jobs, or nothing."""
    from pepr_mlops.comparison import Question, compare
    from pepr_mlops.errors import PeprError

    own = runs[runs["spec"].isin([spec.fingerprint for spec in specs])]
    if not (own["status"] == "FINISHED").any():
        return ""
    try:
        scores = compare(own, Question(mixed="stratify", draws=0)).scores
    except PeprError:  # such as no run with an energy: there is no best yet
        return ""
    best = scores[scores["rank"] == 1].drop_duplicates("comparison_set")
    return ", ".join(f"{row['model']} PePR-E {row['score']:.4f}" for _, row in best.iterrows())


def _jobs_frame(states: pd.DataFrame) -> pd.DataFrame:
    """The jobs with the fields of their specs as columns."""
    fields = pd.DataFrame([spec.as_params() for spec in states["spec"]], states.index)
    return fields.join(states.drop(columns="spec"))


def _varied(specs: Sequence[Job]) -> list[str]:
    """The fields in which the jobs differ, the model first."""
    params = plan.settings(specs)
    return ["model", *(c for c in params if c != "model" and params[c].nunique() > 1)]


def _counts(states: pd.DataFrame) -> str:
    counts = states["state"].value_counts()
    return ", ".join(f"{counts[s]} {word}" for s, word in _STATES.items() if s in counts)


def _state_words(job: Mapping[str, Any]) -> str:
    """The state of a job; where its latest run has no result, how that ended."""
    return _STATES[job["state"]] if job["reason"] is None else status_words("FAILED", job["reason"])


def _spent(now: Status) -> str:
    """The energy of the jobs so far, in all phases."""
    source = _source(_own(now.jobs, now.runs))
    unknown = int(now.jobs["energy_wh"].isna().sum())
    if not source:
        return "energy not known" if unknown else "0 Wh"
    more = f", and {unknown} job{'s' * (unknown != 1)} of unknown energy" if unknown else ""
    return f"{amount(now.spent_wh, 'Wh', 4)} ({source}{more})"


def _own(jobs: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of these jobs."""
    return runs[runs["spec"].isin(list(jobs.index))]


def _source(runs: pd.DataFrame) -> str:
    return " and ".join(sorted(set(runs["energy_source"].dropna()) - {"none"}))


def _amount(value: float, name: str) -> str:
    """Seconds or watt-hours, by the end of the column's name."""
    return seconds_text(value) if name.endswith("_s") else amount(value, "Wh")


def _forecast(row: pd.Series[Any], name: str) -> str:
    """The forecast of a job, with its range if it is extrapolated."""
    if pd.isna(row[name]):
        return ""
    if pd.isna(row[f"{name}_low"]):
        return _amount(row[name], name)
    low, high = (_amount(row[f"{name}_{end}"], name) for end in ("low", "high"))
    return f"{_amount(row[name], name)} ({low} to {high})"


def _sum(expected: pd.DataFrame, name: str) -> str:
    """The sum over all jobs, with its range where some are extrapolated."""
    values = expected[name]
    known = values.dropna()
    unknown = len(values) - len(known)
    if not known.sum():
        unit = "s" if name.endswith("_s") else "Wh"
        return "not known: no job like these has run here" if unknown else f"0 {unit}"
    text = f"about {_amount(known.sum(), name)}"
    guessed = int(expected["basis"].str.startswith(forecasts.EXTRAPOLATED).sum())
    if guessed:
        low, high = (expected[f"{name}_{end}"].fillna(values).sum() for end in ("low", "high"))
        text += f" ({_amount(low, name)} to {_amount(high, name)}, {guessed} of {len(values)} jobs "
        text += "extrapolated)"
    jobs = "1 job" if unknown == 1 else f"{unknown} jobs"
    return text + (f" and {jobs} without a forecast" if unknown else "")
