"""What the figures share: the panel, names of quantities, groups of models, small statistics."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pydantic import Field

from pepr_mlops.comparison.answer import Answer
from pepr_mlops.comparison.significance import FEWEST
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.material import KEYS, Material, NothingToDraw, cost_title

# Why a line is dotted.
SPREAD = (
    " ESTIMATED where dotted: only the cost of the full run is known, which is spread evenly over "
    "its epochs."
)
Count = Annotated[int, Field(strict=True, gt=0)]  # how many to show

# Values of a category as a legend has them; everything else is NEITHER.
WORDS: Mapping[str, Mapping[str, str]] = {
    "efficient": {"yes": "efficient", "no": "not efficient"},
    "kind": {"CNN": "CNN", "Other": "Other"},
    "size": {"small": "small", "large": "large"},
}
NEITHER = "not classified"
# Points of both values of a category, and faint crosses for neither.
_MARKERS: tuple[Mapping[str, Any], ...] = (
    {"color": theme.ORANGE, "symbol": "diamond", "line": {"width": 0.7, "color": theme.RED},
     "size": 8, "opacity": 0.85},
    {"color": theme.SKY, "symbol": "circle", "line": {"width": 0.7, "color": theme.BLUE},
     "size": 8, "opacity": 0.85},
    {"color": theme.NEUTRAL, "symbol": "x-thin-open", "line": {"width": 1, "color": theme.NEUTRAL},
     "size": 6, "opacity": 0.75},
)  # fmt: skip
# Numbers of `Material.models` that make sense as an axis, and what resources add to them.
_COLUMNS = (PERFORMANCE, "performance_sd", "score", "R", "rank", "parameters")
_OF_RESOURCES = ("cost ", "R ", "PePR-")
_EXACT = 7  # points at most, for which the p value is counted out


@dataclass(frozen=True)
class Panel:
    """A figure, what to read off it and the numbers drawn.

    `title` and `caption` are plain text, `table` is what the CSV file of the figure holds, and
    `sets` names the comparison sets it shows. `recompute` is what a page needs to score again when
    a slider moves, where the figure has sliders. The page fills in `kind`.
    """

    title: str
    caption: str
    figure: go.Figure
    table: pd.DataFrame
    sets: tuple[str, ...] = ()
    recompute: Mapping[str, Any] | None = None
    kind: str = ""


def of_folds(material: Material, comparison_set: str) -> str:
    """What P of an epoch is where models were cross-validated, as a sentence of a caption."""
    if material.runs_of(comparison_set)["fold_runs"].isna().all():
        return ""
    return " Of folds, P after an epoch is their mean, and their costs are added."


def answer_of(material: Material, comparison_set: str) -> Answer:
    """Which model of a set is good enough. Raises `NothingToDraw` where that is not known."""
    if not material.question(comparison_set).draws:
        raise NothingToDraw("intervals are not drawn yet")
    try:
        return material.answers[comparison_set]
    except WrongUse as error:
        raise NothingToDraw(str(error)) from error


def chosen_sets(material: Material, experiments: Sequence[str]) -> list[str]:
    """Names of comparison sets, in order. Raises `NothingToDraw` for an unknown experiment."""
    known = material.sets["experiment"].unique()
    for name in experiments:
        if name not in known:
            raise NothingToDraw(
                f"there is no experiment {name} here{nearest(name, known) or ';'} valid: "
                f"{', '.join(known)}"
            )
    return material.sets_of(list(dict.fromkeys(experiments)))


def chosen_models(
    models: Sequence[str], ranked: pd.Series[str], known: pd.Series[str], top: int, what: str
) -> list[str]:
    """The labels of an option `models`, by default the `top` ones, that are `known`; best first.

    `ranked` are the labels of a set. Raises `NothingToDraw` where none of `models` has `what`.
    """
    there = ranked[ranked.isin(known)]
    found = list(there[there.isin(models)] if models else there[:top])
    if not found:
        raise NothingToDraw(
            f"none of {', '.join(models)}, which the option models names, has {what}"
        )
    return found


def averaged(material: Material, sets: Sequence[str], names: Iterable[str]) -> pd.DataFrame:
    """`names` of the models in comparison sets of one experiment, or their means over several.

    Columns `label`, `kind`, `efficient`, `parameters`, `run_id` (missing for means) and those of
    `names`. Of several experiments a model must be in all of them, and its mean is missing where a
    number is. Of one experiment that is split into sets a model has a row for each set it is in,
    whose label says which. Raises `NothingToDraw` for unknown names, and for several experiments of
    which one is split.
    """
    rows = material.models[material.models["comparison_set"].isin(sets)].copy()
    numbers = pd.DataFrame(
        {"parameters": rows["parameters"], **{n: values(material, rows, n) for n in names}}
    )
    texts = ["comparison_set", "experiment", "label", "kind", "efficient", "run_id"]
    rows = rows[texts].join(numbers)
    if rows["experiment"].nunique() == 1:
        if len(sets) > 1:
            # `[image_size=224]` of `imagenet [image_size=224]`
            rows["label"] += " [" + rows["comparison_set"].str.partition(" [")[2]
        return rows.drop(columns=["comparison_set", "experiment"]).reset_index(drop=True)
    split = rows.groupby("experiment")["comparison_set"].nunique()
    if split.max() > 1:
        raise NothingToDraw(
            f"{split.idxmax()} is split into {split.max()} comparison sets, which are not averaged "
            "with other experiments; name it alone"
        )
    by_label = rows.groupby("label", sort=False)
    means = by_label[list(numbers)].agg(lambda column: column.mean(skipna=False))
    table = by_label[["kind", "efficient"]].first().join(means).assign(run_id=None)
    return table[by_label.size() == len(sets)].reset_index()


def values(material: Material, rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """A number of each of `rows` of `Material.models`, under their index; missing where unknown.

    `name` is one of their columns or a metric, averaged over the runs of a row and missing where
    one of them has no finite value. Raises `NothingToDraw` for what is known of none of the rows,
    naming the valid ones.
    """
    if name in _columns(rows):
        return rows[name].astype(float)
    runs = material.runs[material.runs["comparison_set"].isin(rows["comparison_set"].unique())]
    if name in _metrics(runs):
        logged = runs[f"metrics.{name}"].astype(float).replace([np.inf, -np.inf], np.nan)
        means = logged.groupby([runs[key] for key in KEYS]).mean(skipna=False)
        found = means.reindex(pd.MultiIndex.from_frame(rows[KEYS]))
        return pd.Series(found.to_numpy(), rows.index, name=name)
    known = [*_columns(rows), *_metrics(runs)]
    raise NothingToDraw(
        f"these models have no number {name!r}{nearest(name, known) or ';'} valid: "
        f"{', '.join(known)}"
    )


def _columns(rows: pd.DataFrame) -> list[str]:
    return [
        c for c in rows if c.startswith(_OF_RESOURCES) or c in _COLUMNS if rows[c].notna().any()
    ]


def _metrics(runs: pd.DataFrame) -> list[str]:
    names = [c for c in runs if c.startswith("metrics.") and runs[c].notna().any()]
    return [c.removeprefix("metrics.") for c in names if c != f"metrics.{PERFORMANCE}"]


def quantity_title(material: Material, sets: Sequence[str], name: str) -> str:
    """A number as an axis and a sentence call it, such as `P: test/accuracy`; not escaped."""
    if name == PERFORMANCE:
        return f"P: {material.performance_name(*sets)}"
    if name == "score":
        by = material.models.loc[material.models["comparison_set"].isin(sets), "scored_by"].unique()
        return f"PePR-{by[0]}" if len(by) == 1 else "PePR score"
    if name.startswith("cost "):
        return cost_title(name.removeprefix("cost "))
    if name.startswith("R "):
        return f"R, normalised {cost_title(name.removeprefix('R ')).split(' (')[0]}"
    return name if name == "R" or name.startswith("PePR-") else cost_title(name)


def in_sentence(title: str) -> str:
    """The title of an axis in a sentence: `P` of `P: test/accuracy`, without the unit."""
    return title.split(": ")[0].split(" (")[0]


def short(numbers: Iterable[float]) -> list[float | None]:
    """Numbers as drawn: five significant digits, None where missing."""
    return [float(f"{v:.5g}") if v == v else None for v in numbers]


def error_bars(
    low: pd.Series[float],
    middle: pd.Series[float],
    high: pd.Series[float],
    colour: str | None = None,
) -> dict[str, Any]:
    """Lines from `low` to `high` through the points at `middle`."""
    bars = {"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low}
    return {**bars, "color": colour, "thickness": 2}


def wrapped(words: str, width: int = 16) -> str:
    """A person's words in short lines, escaped."""
    return "<br>".join(theme.texts(textwrap.wrap(words, width)))


def effect(value: float) -> str:
    """An effect size as papers print it; it is not defined where nothing varies."""
    return f"{round(value, 2) + 0.0:.2f}" if value == value else "not defined"  # no minus zero


def correlation(x: pd.Series[float], y: pd.Series[float]) -> tuple[float, float] | None:
    """Spearman's rank correlation and its two-sided p value, or None where it is not defined.

    The p value of few points is that of all their orders, as `scipy.stats.spearmanr` advises.
    """
    if len(x) < FEWEST or x.nunique() < 2 or y.nunique() < 2:
        return None
    from scipy import stats  # takes a second

    found = stats.spearmanr(x, y)
    p = float(found.pvalue)
    # SciPy gives p = 0 to three points in order, which they are by chance once in three times.
    if len(x) <= _EXACT:
        ranks = stats.rankdata(y)
        p = stats.permutation_test(
            (stats.rankdata(x),),
            lambda of, axis: (of * ranks).sum(axis=axis),
            permutation_type="pairings",
            n_resamples=math.inf,
            vectorized=True,
        ).pvalue
    return float(found.statistic), float(p)


def classified(rows: pd.DataFrame, by: str) -> pd.Series[str]:
    """The category of each row in the words of the legend."""
    return rows[by].map(WORDS[by]).fillna(NEITHER)


def by_category(
    points: pd.DataFrame, by: str, x: str, y: str, hover: str, details: Sequence[str] = ()
) -> list[go.Scatter]:
    """A trace for each value of the column `category`; what is not classified lies beneath.

    `hover` is the template of the text of a point, for which `details` are its custom data.
    """
    traces = []
    for rank, name in reversed(list(enumerate([*WORDS[by].values(), NEITHER]))):
        rows = points[points["category"] == name]
        if rows.empty:
            continue
        custom = np.array([short(rows[c]) for c in details], dtype=float).T
        traces.append(
            go.Scatter(
                x=short(rows[x]),
                y=short(rows[y]),
                text=theme.texts(rows["label"]),
                ids=list(rows["run_id"]),
                customdata=custom if details else None,
                mode="markers",
                marker=_MARKERS[rank],
                name=name,
                legendrank=rank + 1,
                hovertemplate=f"<b>%{{text}}</b><br>{hover}<extra>%{{fullData.name}}</extra>",
            )
        )
    return traces
