"""Runs that are under way: how far they are, and about when they end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pepr_mlops.text import printable
from pepr_mlops.tracking.ownership import STALE_S


def under_way(
    running: pd.DataFrame, experiments: Sequence[str], now: pd.Timestamp
) -> list[dict[str, Any]]:
    """What the page shows of each run of the experiments, the one that ends first at the top.

    `running` is as `tracking.read.running` returns it. Times are in ms since 1970 and energy in Wh;
    what is not known is None. `until` is the forecast of the end: the time of the latest epoch and,
    for each epoch to come, the mean time of those before. It is None once it has passed.
    `to_come_wh` is the forecast of the energy in the same way, without that of evaluation.
    `at_most` says that the run may end earlier and take less. `silent_since` is the last sign of
    life of a run whose heartbeat has stopped.
    """
    names = [printable(name) for name in experiments]
    own = running["experiment"].isin(names) | running["mlflow_experiment"].isin(names)
    rows = running[own & running["probe"].isna()].to_dict("records")
    found = [_progress(row, now) for row in rows]
    return sorted(found, key=lambda run: (run["until"] is None, run["until"] or run["started"]))


def _progress(row: dict[Any, Any], now: pd.Timestamp) -> dict[str, Any]:
    known = {key: None if pd.isna(value) else value for key, value in row.items()}
    beat_ms, now_ms = known["heartbeat_ms"], _ms(now)
    silent_since = None
    if beat_ms is not None and now_ms - beat_ms > STALE_S * 1000:
        silent_since = int(beat_ms)
    until = _end(known) if silent_since is None else None
    until = until if until is not None and until > now_ms else None
    return {
        "run_id": known["run_id"],
        "model": known["model"] or known["run_name"] or known["run_id"],
        "seed": known["seed"],
        "experiment": known["experiment"],
        "done": known["epoch"] or 0,
        "of": known["epochs"],
        "started": None if known["start_time"] is None else _ms(known["start_time"]),
        "until": until,
        "at_most": known["patience"] is not None,
        "silent_since": silent_since,
        "energy_wh": known["energy_wh"],
        "to_come_wh": None if until is None else _to_come_wh(known),
        "energy_source": known["energy_source"],
    }


def _end(known: dict[Any, Any]) -> int | None:
    """When the last epoch ends; the time of evaluation counts where it is known."""
    done, of, train_s = known["epoch"], known["epochs"], known["train_time_s"]
    if not done or of is None or train_s is None or done > of:
        return None
    each_s = (train_s + (known.get("metrics.time/eval_s") or 0)) / done
    return int(_ms(known["epoch_time"]) + 1000 * each_s * (of - done))


def _to_come_wh(known: dict[Any, Any]) -> float | None:
    """The training energy of the epochs to come."""
    done, energy_wh = known["epoch"], known["energy_wh"]
    return None if energy_wh is None else energy_wh / done * (known["epochs"] - done)


def _ms(time: pd.Timestamp) -> int:
    return int(time.timestamp() * 1000)
