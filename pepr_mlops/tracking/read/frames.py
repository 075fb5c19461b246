"""From pages of runs to one wide frame, with the names of `mlflow.search_runs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.comparison.runs import INFINITE
from pepr_mlops.text import STEERING, printable

EXPERIMENT = "pepr.experiment"  # the tag that names a run's experiment
PERFORMANCE_TAG = "pepr.performance"  # the one that names the metric that is P
ENERGY = "energy/train_wh"

CONTEXT = "mlflow.data.context"  # the tag of an input that says what it is for

Triple = tuple[str, str, Any]  # run id, name, value
InputRow = tuple[str, str, str, str, str | None]  # run id, context, digest, source, profile
Point = tuple[str, str, float | None, int]  # run id, metric, value, step
Latest = tuple[str, int, int]  # run id, step and time in ms since 1970 of the latest point
# Experiment id, the tag EXPERIMENT, how many runs have both, and when the newest began in ms.
Size = tuple[str, str | None, int, int | None]


@dataclass
class Page:
    """Some runs: `info` are run id, experiment id, status, start and end in ms since 1970.

    `metrics` are the latest values; a logged NaN is NaN or None.
    """

    info: list[tuple[str, str, str, int | None, int | None]]
    metrics: list[Triple] = field(default_factory=list)
    params: list[Triple] = field(default_factory=list)
    tags: list[Triple] = field(default_factory=list)


def raw_frame(pages: Iterable[Page], experiments: Mapping[str, str]) -> pd.DataFrame:
    """The input of `comparison.runs.tidy`. Each page becomes columns before the next is fetched.

    A run that begins meanwhile shifts the others, so that one is on two pages: the later counts.
    """
    frames = [_wide(page, experiments) for page in pages if page.info]
    frames = frames or [_wide(Page([]), experiments)]
    return pd.concat(frames).drop_duplicates("run_id", keep="last", ignore_index=True)


def _wide(page: Page, experiments: Mapping[str, str]) -> pd.DataFrame:
    infos = {info[0]: info for info in page.info}
    row = {run_id: i for i, run_id in enumerate(infos)}
    columns_of = zip(*infos.values(), strict=True) if row else ((),) * 5
    ids, experiment_ids, status, start, end = columns_of
    columns: dict[str, Any] = {
        "run_id": _text(ids),
        "mlflow_experiment": _printable(_text([experiments[i] for i in experiment_ids])),
        "status": _text(status),
        "start_time": _time(start),
        "end_time": _time(end),
    }
    non_finite = np.full(len(row), "", dtype=object)
    values = np.array([value for _, _, value in page.metrics], dtype=float)
    for name, rows, places in _by_name(page.metrics, row):
        numbers = np.full(len(row), np.nan)
        numbers[rows] = values[places]
        columns[f"metrics.{name}"] = numbers
        for i in np.unique(rows[np.isnan(numbers[rows])]):
            non_finite[i] += f"\n{name}" if non_finite[i] else name
    columns["non_finite"] = _text(non_finite)
    for kind, triples in (("params", page.params), ("tags", page.tags)):
        texts = _printable(_text([value for _, _, value in triples]))
        for name, rows, places in _by_name(triples, row):
            where = np.full(len(row), -1)  # missing
            where[rows] = places
            columns[f"{kind}.{name}"] = texts.take(where, allow_fill=True)
    return pd.DataFrame(columns)


def _by_name(
    triples: Sequence[Triple], row: Mapping[str, int]
) -> Iterator[tuple[str, NDArray[np.intp], NDArray[np.intp]]]:
    """Each name in order of appearance, the rows of its runs and the places of its triples."""
    if not triples:
        return
    rows = np.array([row[run_id] for run_id, _, _ in triples])
    codes, names = pd.factorize(np.array([name for _, name, _ in triples], dtype=object))
    places = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))
    for name, of_name in zip(names, np.split(places, ends[:-1]), strict=True):
        yield name, rows[of_name], of_name


def _text(values: Iterable[Any]) -> Any:
    return pd.array(np.array(values, dtype=object), dtype="str")


def _printable(texts: Any) -> Any:
    """The texts with control characters as escapes, so that none does more than show a name."""
    steers = pd.Series(texts).str.contains(f"[{STEERING}]", na=False).to_numpy()
    if steers.any():
        texts[steers] = [printable(text) for text in texts[steers]]
    return texts


def _time(values: Iterable[int | None]) -> Any:
    times = pd.array(list(values), dtype="Int64")
    return pd.to_datetime(times, unit="ms", utc=True, errors="coerce")  # nanoseconds are no date


def epochs_frame(pages: Iterable[list[Point]]) -> pd.DataFrame:
    """One row per run and step, one column per metric; of several points the last one counts."""
    frames = [_epochs(points) for points in pages if points]
    if not frames:
        return pd.DataFrame({"run_id": pd.Series(dtype="str"), "step": pd.Series(dtype="int64")})
    return pd.concat(frames, ignore_index=True)


def _epochs(points: list[Point]) -> pd.DataFrame:
    runs, metrics, values, steps = zip(*points, strict=True)
    run, run_ids = pd.factorize(np.array(runs, dtype=object))
    metric, names = pd.factorize(np.array(metrics, dtype=object), sort=True)
    places = pd.DataFrame({"run": run, "step": np.array(steps)}).groupby(["run", "step"])
    at, row = places.size().index, places.ngroup().to_numpy()
    table = np.full((len(at), len(names)), np.nan)
    numbers = np.array(values, dtype=float)
    numbers[np.abs(numbers) >= INFINITE] *= np.inf
    table[row, metric] = numbers  # of equal places the last value stays
    return pd.DataFrame(
        {"run_id": _text(run_ids[at.get_level_values("run")]), "step": at.get_level_values("step")}
        | {name: table[:, i] for i, name in enumerate(names)}
    )
