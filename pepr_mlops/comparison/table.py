"""The columns of a ranking as people read them: headings with units, and cells as text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pepr_mlops.comparison.intervals import NOT_DRAWN, interval_texts, rank_texts
from pepr_mlops.comparison.runs import label
from pepr_mlops.names import LIFETIME, METRICS, RESOURCES
from pepr_mlops.text import decimals, number


def cost_unit(name: str) -> str:
    """Unit of a resource or of any column, empty where it is not known or is a share."""
    units = {key: r.unit for r in RESOURCES.values() for key in (r.letter, r.column)}
    units[LIFETIME] = "Wh"
    metric = METRICS.get(label(name))
    unit = units.get(name, metric.unit if metric else "")
    return "" if unit == "1" else unit


def with_unit(resource: str) -> str:
    """`E (Wh)`: a resource as a heading."""
    unit = cost_unit(resource)
    return f"{resource} ({unit})" if unit else resource


def _words(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


@dataclass(frozen=True)
class Column:
    """A column: its heading, its cells as text, and whether they are set flush right."""

    heading: str
    text: Callable[[Any], str] = _words
    right: bool = True


_COLUMNS = {
    "rank": Column("rank"),
    "model": Column("model", right=False),
    "variant": Column("variant", right=False),
    "n": Column("runs"),
    "P": Column("P", decimals),
    "P_sd": Column("± P", decimals),
    "p_interval": Column("P 95%"),
    "cost": Column("cost", number),
    "R": Column("R", decimals),
    "score": Column("PePR", decimals),
    "interval": Column("PePR 95%"),
    "ranks": Column("ranks"),
    "parameters_m": Column("parameters (millions)", number),
    "kind": Column("type", right=False),
    "efficient": Column("efficient", right=False),
    "energy_source": Column("energy", right=False),
    "codes": Column("flags", right=False),
}


def column(key: str, by: str = "") -> Column:
    """The column of a key, as `cost E`; `by` names what the column `score` is by."""
    what, _, name = key.partition(" ")
    heading = {"cost": with_unit(name), "score": f"PePR-{name or by}"}.get(what)
    return replace(_COLUMNS[what], heading=heading) if heading else _COLUMNS[what]


def readable(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows as text in the columns of keys; intervals that are not found yet are an ellipsis.

    The columns `p_interval`, `interval` and `ranks` are made of those of `intervals.intervals`.
    """
    texts = {"p_interval": interval_texts(rows, "p"), "interval": interval_texts(rows)}
    full = rows.assign(**texts, ranks=rank_texts(rows))
    full.loc[rows["no_interval"] == NOT_DRAWN, [*texts, "ranks"]] = "…"
    return pd.DataFrame({key: full[key].map(column(key).text) for key in keys})
