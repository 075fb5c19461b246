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
from scipy.special import stdtr

from pepr_mlops.comparison.answer import Answer
from pepr_mlops.comparison.significance import FEWEST
from pepr_mlops.comparison.words import cost_title, cost_words, metric_name, share
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import METRICS, PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.material import KEYS, Material, NothingToDraw
from pepr_mlops.text import number

# Why a line is dotted, on the axis and in a sentence.
DOTTED = "<br>dotted: estimated"
SPREAD = (
    "Dotted lines are estimated: only the cost of the whole run is known, so it is spread evenly "
    "over its epochs."
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
    {"color": theme.COLOURS[0], "symbol": "diamond", "size": 9, "opacity": 0.85},
    {"color": theme.COLOURS[2], "symbol": "circle", "size": 7, "opacity": 0.75},
    {"color": theme.NEUTRAL, "symbol": "x-thin-open", "line": {"width": 1, "color": theme.NEUTRAL},
     "size": 6, "opacity": 0.75},
)  # fmt: skip
# Numbers of `Material.models` that make sense as an axis, and what resources add to them.
_COLUMNS = (PERFORMANCE, "performance_sd", "score", "R", "rank", "parameters")
_OF_RESOURCES = ("cost ", "R ", "PePR-")
_EXACT = 7  # points at most, for which the p value is counted out
_DECADE = 10.0  # times the least that the greatest must be for a logarithmic axis
_MOST_TICKS = 6
_MOST_LETTERS = 24  # of all ticks of an axis, on a phone


@dataclass(frozen=True)
class Panel:
    """A figure, what to read off it and the numbers drawn.

    `title`, `caption` (one sentence, what to see) and `reading` (how to read it) are plain text,
    `table` is what the CSV file of the figure holds, `paper` the same as a paper prints it, where
    that is less, and `sets` names the comparison sets it shows. The page fills in `kind`.
    """

    title: str
    caption: str
    figure: go.Figure
    table: pd.DataFrame
    sets: tuple[str, ...] = ()
    reading: str = ""
    paper: pd.DataFrame | None = None
    kind: str = ""


def of_folds(material: Material, comparison_set: str) -> str:
    """What P of an epoch is where models were cross-validated, as a sentence."""
    if material.runs_of(comparison_set)["fold_runs"].isna().all():
        return ""
    performance = metric_name(material.performance_name(comparison_set))
    return (
        f"Models were cross-validated: the {performance} after an epoch is the mean over the "
        "folds, whose costs are added."
    )


def answer_of(material: Material, comparison_set: str) -> Answer:
    """Which model of a set is good enough. Raises `NothingToDraw` where that is not known."""
    if not material.question(comparison_set).draws:
        raise NothingToDraw("intervals are not drawn yet")
    try:
        return material.answers[comparison_set]
    except WrongUse as error:
        raise NothingToDraw(str(error)) from error


def choice_and_best(material: Material, comparison_set: str) -> tuple[str | None, str | None]:
    """The good-enough model and the best performer of a set, as far as they are known."""
    try:
        answer = answer_of(material, comparison_set)
    except NothingToDraw:
        return None, None
    return answer.choice, answer.best


def styles(material: Material, comparison_set: str) -> dict[str, dict[str, str]]:
    """Colour and symbol of each model of a set, the same in all of its figures."""
    labels = list(material.models_of(comparison_set)["label"])
    return theme.styles(labels, *choice_and_best(material, comparison_set))


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
            words = {name: ", ".join(material.differs(name).values()) for name in sets}
            rows["label"] += ", " + rows["comparison_set"].map(words)
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
    """A number as an axis calls it, such as `training energy (Wh)`; not escaped."""
    if name == PERFORMANCE:
        return metric_name(material.performance_name(*sets))
    if name == "performance_sd":
        performance = metric_name(material.performance_name(*sets))
        return f"standard deviation of {performance} between runs"
    if name == "score":
        by = material.models.loc[material.models["comparison_set"].isin(sets), "scored_by"].unique()
        return f"PePR-{by[0]} score" if len(by) == 1 else "PePR score"
    if name.startswith("PePR-"):
        return f"{name} score"
    if name == "R" or name.startswith("R "):
        return f"normalised {cost_words(name.removeprefix('R').strip() or 'cost')['name']} (R)"
    if name == "parameters":
        return "parameters (millions)"
    if name.partition("/")[0] in ("test", "val", "best_val") and name in METRICS:
        return metric_name(name)
    return cost_title(name.removeprefix("cost "))


def in_sentence(title: str) -> str:
    """The title of an axis in a sentence, without the unit."""
    return title.partition(" (")[0]


def performance_axis(name: str) -> dict[str, Any]:
    """The axis of a metric such as `test/accuracy`."""
    return {
        "title": {"text": theme.text(metric_name(name))},
        "tickformat": ".1~%" if share(name) else "",
    }


def performance_hover(name: str, value: str) -> str:
    """A metric in the text of a point, of which `value` is a variable of plotly's templates."""
    return f"{theme.text(metric_name(name))} %{{{value}:{'.1%' if share(name) else '.3f'}}}"


def spans_decades(values: Iterable[float]) -> bool:
    """Whether values are positive and differ so much that a logarithmic axis shows them better."""
    known = np.asarray(list(values), float)
    return bool(known.size and 0 < _DECADE * known.min() < known.max())


def log_ticks(
    low: float, high: float, unit: str = "", *, scale: float = 1.0, upright: bool = False
) -> dict[str, Any]:
    """The ticks of a logarithmic axis: 1, 2 and 5 of each power of ten while there are few, even
    ones where it spans no two of these; what they say is divided by `scale`. Those of an axis that
    is not `upright` fit a phone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    if len(found) > _MOST_TICKS:
        found = [10.0**p for p in powers if low <= 10.0**p <= high]
        found = found[:: math.ceil(len(found) / _MOST_TICKS)]
    if len(found) < 2:
        found = _even_ticks(low, high)
    texts = [f"{number(value / scale)} {unit}".rstrip() for value in found]
    while not upright and len("".join(texts)) > _MOST_LETTERS:
        found, texts = found[::2], texts[::2]
    return {"type": "log", "tickvals": found, "ticktext": texts}


def _even_ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers from low to high."""
    size = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(n * size for n in (1, 2, 5, 10) if high - low <= 5 * n * size)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


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
    return {**bars, "color": colour, "thickness": 2, "width": 0}


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
    found = float(x.rank().corr(y.rank()))
    if len(x) <= _EXACT:
        from scipy import stats  # takes a second

        ranks = stats.rankdata(y)
        p = stats.permutation_test(
            (stats.rankdata(x),),
            lambda of, axis: (of * ranks).sum(axis=axis),
            permutation_type="pairings",
            n_resamples=math.inf,
            vectorized=True,
        ).pvalue
    else:
        freedom = len(x) - 2
        t = np.inf if abs(found) >= 1 else found * math.sqrt(freedom / (1 - found**2))
        p = 2 * stdtr(freedom, -abs(t))
    return found, float(p)


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
                # plotly draws a single one of the points without ids
                ids=list(rows["run_id"]) if rows["run_id"].notna().all() else None,
                customdata=custom if details else None,
                mode="markers",
                marker=_MARKERS[rank],
                name=name,
                legendrank=rank + 1,
                hovertemplate=f"<b>%{{text}}</b><br>{hover}<extra>%{{fullData.name}}</extra>",
            )
        )
    return traces
