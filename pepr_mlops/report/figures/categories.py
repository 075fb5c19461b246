"""Any number of the models against any other, by category (Fig. 3c, 3d, 4b and A.2)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison.intervals import FEWEST, sizes
from pepr_mlops.errors import nearest
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.panel import Panel
from pepr_mlops.report.material import (
    KEYS,
    Material,
    NothingToDraw,
    cost_title,
    performance_name,
)
from pepr_mlops.text import number, p_value

_EXACT = 7  # points at most, for which the p value is counted out


@dataclass(frozen=True)
class Options:
    """`y` against `x`, each a column of `Material.models` or a metric, told apart `by` category.

    `score` is the main score. Of several `experiments`, by default those asked for, each model's
    mean is drawn.
    """

    x: str = "parameters"
    y: tuple[str, ...] = (PERFORMANCE, "score")
    by: Literal["efficient", "kind", "size"] = "efficient"
    experiments: tuple[str, ...] = ()


# Values of a category as a legend has them; everything else is NEITHER.
WORDS: Mapping[str, Mapping[str, str]] = {
    "efficient": {"yes": "efficient", "no": "not efficient"},
    "kind": {"CNN": "CNN", "Other": "Other"},
    "size": {"small": "small", "large": "large"},
}
NEITHER = "not classified"
STYLES: tuple[Mapping[str, Any] | None, ...] = (  # of both values and of neither
    {"color": theme.ORANGE, "symbol": "diamond", "line": {"width": 0.7, "color": theme.RED}},
    {"color": theme.SKY, "symbol": "circle", "line": {"width": 0.7, "color": theme.BLUE}},
    None,
)
_MAGNITUDES = 30  # times the least of x that the greatest must be for a logarithmic axis

# Numbers of `Material.models` that make sense as an axis, and what resources add to them.
_COLUMNS = (PERFORMANCE, "performance_sd", "score", "R", "rank", "parameters")
_OF_RESOURCES = ("cost ", "R ", "PePR-")


def data(material: Material, options: Options) -> pd.DataFrame:
    """A row per model: `label`, `category` (in the words of the legend), `run_id`, x and every y.

    `run_id` is missing where several experiments are averaged. A model of a small or large
    category is so among those of the same experiments. Rows that miss a number are left out.
    Raises `NothingToDraw` for unknown experiments and names, and where no row is left.
    """
    names = list(dict.fromkeys([options.x, *options.y]))
    if not options.y:
        raise NothingToDraw("y names nothing to draw")
    rows = averaged(material, chosen_sets(material, options.experiments), names)
    rows["size"] = sizes(rows["parameters"])
    rows["category"] = rows[options.by].map(WORDS[options.by]).fillna(NEITHER)
    rows = rows.dropna(subset=names)
    if rows.empty:
        raise NothingToDraw(f"no model has all of {', '.join(names)}")
    return rows[["label", "category", "run_id", *names]].reset_index(drop=True)


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
            rows["label"] += " " + rows["comparison_set"].map(_own_part)
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


def words(material: Material, sets: Sequence[str], name: str) -> str:
    """A number as an axis and a sentence call it, such as `P: test/accuracy`; not escaped."""
    if name == PERFORMANCE:
        return f"P: {performance_name(material.runs[material.runs['comparison_set'].isin(sets)])}"
    if name == "score":
        by = material.models.loc[material.models["comparison_set"].isin(sets), "scored_by"].unique()
        return f"PePR-{by[0]}" if len(by) == 1 else "PePR score"
    if name.startswith("cost "):
        return cost_title(name.removeprefix("cost "))
    if name.startswith("R "):
        return f"R, normalised {cost_title(name.removeprefix('R ')).split(' (')[0]}"
    return name if name == "R" or name.startswith("PePR-") else cost_title(name)


def short(numbers: Iterable[float]) -> list[float | None]:
    """Numbers as drawn: five significant digits, None where missing."""
    return [float(f"{v:.5g}") if v == v else None for v in numbers]


def wrapped(words: str, width: int = 16) -> str:
    """A person's words in short lines, escaped."""
    return "<br>".join(theme.texts(textwrap.wrap(words, width)))


def said(title: str) -> str:
    """The title of an axis in a sentence: `P` of `P: test/accuracy`, without the unit."""
    return title.split(": ")[0].split(" (")[0]


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
    if (
        len(x) <= _EXACT
    ):  # or three in order had p = 0, which they are by chance once in three times
        ranks = stats.rankdata(y)
        p = stats.permutation_test(
            (stats.rankdata(x),),
            lambda of, axis: (of * ranks).sum(axis=axis),
            permutation_type="pairings",
            n_resamples=math.inf,
            vectorized=True,
        ).pvalue
    return float(found.statistic), float(p)


def draw(
    points: pd.DataFrame, options: Options, titles: Mapping[str, str], *, linked: bool = False
) -> go.Figure:
    """One plot for each y above the next, over one x axis; `titles` are those of the axes."""
    figure = make_subplots(
        rows=len(options.y), cols=1, shared_xaxes=True, vertical_spacing=0.16 / len(options.y)
    )
    names = [*WORDS[options.by].values(), NEITHER]
    for i, y in enumerate(options.y, 1):
        for rank, name in reversed(list(enumerate(names))):  # what is not classified lies beneath
            rows = points[points["category"] == name]
            if rows.empty:
                continue
            figure.add_scatter(
                x=short(rows[options.x]),
                y=short(rows[y]),
                text=theme.texts(rows["label"]),
                ids=list(rows["run_id"]) if linked else None,
                mode="markers",
                marker=marker(STYLES[rank]),
                name=name,
                legendgroup=name,
                legendrank=rank + 1,
                showlegend=i == 1,
                hovertemplate="<b>%{text}</b><br>%{y:.4g} at %{x:.4s}"
                "<extra>%{fullData.name}</extra>",
                row=i,
                col=1,
            )
        figure.update_yaxes(
            title={"text": theme.text(titles[y]), "font": {"size": 13}}, row=i, col=1
        )
    figure.update_xaxes(title=theme.text(titles[options.x]), row=len(options.y), col=1)
    if options.x != "rank" and _wide(points[options.x]):
        figure.update_xaxes(type="log", dtick=1)
    if len(options.y) > 1:
        figure.update_layout(height=90 + 230 * len(options.y))
    return figure


def marker(style: Mapping[str, Any] | None) -> dict[str, Any]:
    """Points of a category, faint crosses for none."""
    if style is None:
        cross = {"symbol": "x-thin-open", "line": {"width": 1, "color": theme.NEUTRAL}}
        return {**cross, "color": theme.NEUTRAL, "size": 6, "opacity": 0.75}
    return {**style, "size": 8, "opacity": 0.85}


def panel(material: Material, options: Options) -> Panel:
    points = data(material, options)
    sets = chosen_sets(material, options.experiments)
    titles = {name: words(material, sets, name) for name in (options.x, *options.y)}
    experiments = list(material.sets.set_index("comparison_set").loc[sets, "experiment"].unique())
    return Panel(
        kind="categories",
        title=f"{', '.join(said(titles[y]) for y in options.y)} against "
        f"{said(titles[options.x])} by {_BY[options.by]}",
        caption=" ".join(
            [
                _origin(points, experiments, material, sets),
                *_correlations(material, sets, points, options, titles),
                f"Medians of {said(titles[options.y[0]])}: "
                f"{_medians(points, options.by, options.y[0])}.",
            ]
        ),
        figure=draw(
            points,
            options,
            titles,
            linked=material.run_page is not None and len(experiments) == 1,
        ),
        table=points,
        sets=tuple(sets),
    )


_BY = {"efficient": "efficiency", "kind": "kind of network", "size": "size"}


def _origin(
    points: pd.DataFrame, experiments: Sequence[str], material: Material, sets: Sequence[str]
) -> str:
    every = material.models.loc[material.models["comparison_set"].isin(sets), "label"]
    if len(experiments) > 1:
        left = every.nunique() - len(points)
        return (
            f"Each point is the mean of one of {len(points)} models over {', '.join(experiments)}"
            + (f"; {left} that are not in all of them are left out." if left else ".")
        )
    left = len(every) - len(points)
    where = f"{experiments[0]}, split into {len(sets)} comparison sets" * (len(sets) > 1)
    return f"Each point is one of {len(points)} models of {where or experiments[0]}" + (
        f"; {left} for which a number is missing are left out." if left else "."
    )


def _correlations(
    material: Material,
    sets: Sequence[str],
    points: pd.DataFrame,
    options: Options,
    titles: Mapping[str, str],
) -> list[str]:
    """A sentence for each y; one in all where points repeat a model and tell nothing of models."""
    rows = material.models[material.models["comparison_set"].isin(sets)]
    if rows.duplicated(["experiment", "model"]).any():
        return [
            "Several points of a model are no models of their own, so that no correlation is given."
        ]
    x_name = said(titles[options.x])
    return [_correlated(points[options.x], points[y], x_name, said(titles[y])) for y in options.y]


def _correlated(x: pd.Series[float], y: pd.Series[float], x_name: str, y_name: str) -> str:
    found = correlation(x, y)
    if found is None:
        return f"The rank correlation of {y_name} with {x_name} is not defined."
    strength, p = found
    moves = (
        "shows no correlation with" if p >= 0.05 else "rises with" if strength > 0 else "falls with"
    )
    return (
        f"{y_name} {moves} {x_name} (Spearman's rank correlation {strength:.2f}, "
        f"{p_value(p)}, n = {len(x)})."
    )


def _medians(points: pd.DataFrame, by: str, y: str) -> str:
    groups = points.groupby("category")[y].agg(["median", "size"])
    names = [n for n in (*WORDS[by].values(), NEITHER) if n in groups.index]
    return ", ".join(
        f"{number(groups.loc[n, 'median'])} {n} (n = {groups.loc[n, 'size']})" for n in names
    )


def _wide(numbers: pd.Series[float]) -> bool:
    return bool(numbers.min() > 0 and numbers.max() > _MAGNITUDES * numbers.min())


def _own_part(comparison_set: str) -> str:
    """`[image_size=224]` of `imagenet [image_size=224]`."""
    return f"[{comparison_set.partition(' [')[2].removesuffix(']')}]"


def _columns(rows: pd.DataFrame) -> list[str]:
    return [
        c for c in rows if c.startswith(_OF_RESOURCES) or c in _COLUMNS if rows[c].notna().any()
    ]


def _metrics(runs: pd.DataFrame) -> list[str]:
    names = [c for c in runs if c.startswith("metrics.") and runs[c].notna().any()]
    return [c.removeprefix("metrics.") for c in names if c != f"metrics.{PERFORMANCE}"]
