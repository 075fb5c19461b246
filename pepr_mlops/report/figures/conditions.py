"""The same models under two conditions, such as pretrained and from scratch (Fig. 3a, 3b)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pepr_mlops.comparison import significance
from pepr_mlops.comparison.conditions import NOT_KNOWN
from pepr_mlops.comparison.words import condition_name, condition_words, sentence, value_text
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import (
    Panel,
    averaged,
    chosen_sets,
    effect,
    in_sentence,
    performance_axis,
    quantity_title,
    short,
    wrapped,
)
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import number, p_value


@dataclass(frozen=True)
class Options:
    """`quantity` is a column of `Material.models` or a metric, `score` is the main score.

    `a` and `b` are experiments under either condition, over which each model is averaged, and
    `names` two words for the conditions. Without them all pairs of comparison sets are drawn that
    differ in `pretrained` or in `fraction` alone.
    """

    quantity: str = PERFORMANCE
    a: tuple[str, ...] = ()
    b: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two conditions: their names, the comparison sets under either, and `where`, the titles of
    these, such as `derma_pt / derma`."""

    names: tuple[str, str]
    a: Sequence[str]
    b: Sequence[str]
    where: str


COLUMNS = ["pair", "condition", "label", "value"]
TESTS = [
    *("pair", "a", "b", "test", "n_a", "n_b", "median_a", "median_b", "difference"),
    *("statistic", "p", "p_holm", "effect", "effect_name"),
]
_FOUND = ("pretrained", "fraction")
_COLOURS = (theme.COLOURS[0], theme.COLOURS[2])
_WRAP = 34  # characters that fit next to the names on a phone


def pairs(material: Material, options: Options) -> list[Pair]:
    """The pairs of conditions to compare.

    Raises `NothingToDraw` without a pair, where `a` or `b` is missing, and for unknown experiments.
    """
    if options.a or options.b or options.names:
        if not (options.a and options.b) or len(options.names) not in (0, 2):
            raise NothingToDraw(
                "a and b each name experiments, and names two words for them; or give none of them"
            )
        one, two = options.names or (", ".join(options.a), ", ".join(options.b))
        if one == two:
            raise NothingToDraw(f"both conditions are called {one}")
        sets = (chosen_sets(material, options.a), chosen_sets(material, options.b))
        return [Pair((one, two), *sets, _where(material, *sets))]
    found = list(_pairs(material))
    if not found:
        raise NothingToDraw(
            f"no two groups of models differ only in {' or '.join(map(condition_name, _FOUND))}; a "
            "dashboard of your own can name others as a and b"
        )
    return found


def _pairs(material: Material) -> Iterator[Pair]:
    sets = material.sets[~material.sets["mixed"]]
    shared: Mapping[str, Mapping[str, str]] = sets.set_index("comparison_set")["shared"].to_dict()
    for condition in _FOUND:
        for pair in combinations(shared, 2):
            one, two = sorted(pair, key=lambda s: _order(shared[s].get(condition)))
            keys = shared[one].keys() | shared[two].keys()
            differ = [k for k in keys if shared[one].get(k) != shared[two].get(k)]
            values = [shared[s].get(condition, NOT_KNOWN) for s in (one, two)]
            if differ == [condition] and NOT_KNOWN not in values:
                a, b = (condition_words(condition, value) for value in values)
                yield Pair((a, b), [one], [two], _where(material, [one], [two]))


def _where(material: Material, a: Sequence[str], b: Sequence[str]) -> str:
    return " / ".join(", ".join(map(material.title, sets)) for sets in (a, b))


def _order(value: str | None) -> tuple[bool, float]:
    """Pretrained before from scratch, much data before little."""
    try:
        return False, -float(value or 0)
    except ValueError:
        return value != "true", 0.0


def data(material: Material, options: Options) -> pd.DataFrame:
    """A row per model and condition, in COLUMNS, of the models that are under both conditions.

    `pair` is `Pair.where`; models are joined by name and variant. Raises `NothingToDraw`
    for unknown experiments and quantities and for fewer than 3 models in common.
    """
    frames, few = [], []
    for pair in pairs(material, options):
        sides = [
            averaged(material, sets, [options.quantity]).set_index("label")[options.quantity]
            for sets in (pair.a, pair.b)
        ]
        both = pd.concat(sides, axis=1, join="inner", keys=[0, 1]).dropna()
        if len(both) < significance.FEWEST:
            few.append(f"{pair.where} have {len(both)} models in common")
            continue
        for i, name in enumerate(pair.names):
            values = {"label": both.index, "value": both[i]}
            frames.append(pd.DataFrame({"pair": pair.where, "condition": name, **values}))
    if not frames:
        raise NothingToDraw(f"{'; '.join(few)}; a test needs {significance.FEWEST}")
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def tests(points: pd.DataFrame) -> pd.DataFrame:
    """Tests of every pair of `data`, one row each, in TESTS; differences are `a` minus `b`.

    Paired t and Wilcoxon tests, and the unpaired t test of the paper. `p_holm` is corrected over
    the pairs.
    """
    rows = []
    for pair, sides in _sides(points):
        (a, x), (b, y) = sides.items()
        for test in [*significance.paired(x, y), significance.unpaired(x, y)[0]]:
            name = "unpaired t" if test.test == "t" else test.test
            medians = {"median_a": float(x.median()), "median_b": float(y.median())}
            rows.append({"pair": pair, "a": a, "b": b, **asdict(test), "test": name, **medians})
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("test")["p"].transform(significance.holm)
    return table[TESTS]


def _sides(points: pd.DataFrame) -> Iterator[tuple[str, dict[str, pd.Series[float]]]]:
    """Each pair with the values by model under both its conditions."""
    for pair, rows in points.groupby("pair", sort=False):
        by_condition = rows.groupby("condition", sort=False)
        yield str(pair), {str(c): r.set_index("label")["value"] for c, r in by_condition}


def draw(points: pd.DataFrame, tested: pd.DataFrame, axis: Mapping[str, Any]) -> go.Figure:
    """Violins with box and points, a plot for each pair under its name and tests.

    `axis` is that of the quantity.
    """
    every = list(_sides(points))
    headers = [_header(pair, tested[tested["pair"] == pair]) for pair, _ in every]
    room = 16 + 15 * max(len(lines) for lines in headers)
    inner = len(every) * 120 + (len(every) - 1) * room
    gap = room / inner if len(every) > 1 else 0.0
    figure = make_subplots(rows=len(every), cols=1, shared_xaxes=True, vertical_spacing=gap)
    for i, ((_, sides), lines) in enumerate(zip(every, headers, strict=True), 1):
        for place, (numbers, colour) in enumerate(zip(sides.values(), _COLOURS, strict=True)):
            figure.add_violin(
                x=short(numbers),
                y0=place,
                orientation="h",
                width=0.85,
                text=theme.texts(numbers.index),
                hovertemplate="%{text}: %{x:.4g}<extra></extra>",
                hoveron="points",
                points="all",
                pointpos=0,
                jitter=0.35,
                marker={"size": 3, "color": colour, "opacity": 0.7},
                line={"color": colour, "width": 1.5},
                box={"visible": True, "width": 0.25},
                spanmode="hard",
                showlegend=False,
                row=i,
                col=1,
            )
        figure.update_yaxes(
            tickvals=[0, 1], ticktext=[wrapped(name) for name in sides], ticks="",
            range=[1.55, -0.55], showgrid=False, row=i, col=1,
        )  # fmt: skip
        figure.add_annotation(
            text="<br>".join(lines), x=0, xref="paper", y=1,
            yref=f"y{i} domain" if i > 1 else "y domain", xanchor="left", yanchor="bottom",
            align="left", showarrow=False, font={"size": 11},
        )  # fmt: skip
    figure.update_xaxes(axis, row=len(every), col=1)
    top = room + 4
    return figure.update_layout(height=inner + top + 60, margin={"t": top, "b": 60})


def _header(pair: str, tested: pd.DataFrame) -> list[str]:
    """The lines above a pair."""
    return [
        *(f"<b>{line}</b>" for line in theme.texts(textwrap.wrap(pair, _WRAP))),
        f"n = {tested['n_a'].iloc[0]} models under both",
        *(
            f"{row['test']}: {p_value(row['p'])}, {row['effect_name']} {effect(row['effect'])}"
            for _, row in tested.iterrows()
        ),
    ]


def panel(material: Material, options: Options) -> Panel:
    points = data(material, options)
    tested = tests(points)
    drawn = [p for p in pairs(material, options) if p.where in set(points["pair"])]
    sets = tuple(dict.fromkeys(s for pair in drawn for s in (*pair.a, *pair.b)))
    quantity = options.quantity
    title = quantity_title(material, sets, quantity)
    metric = material.performance_name(*sets) if quantity == PERFORMANCE else ""
    axis = performance_axis(metric) if metric else {"title": {"text": theme.text(title)}}
    findings = [
        _finding(rows, in_sentence(title), metric) for _, rows in tested.groupby("pair", sort=False)
    ]
    caption, *others = [_corrected(tested, in_sentence(title)), *findings][len(drawn) == 1 :]
    return Panel(
        title=f"{sentence(in_sentence(title))} of the same models: "
        + (" and ".join(drawn[0].names) if len(drawn) == 1 else "two conditions"),
        caption=caption,
        reading=" ".join(
            [
                "Each point is a model that was trained under both conditions; the box spans the "
                "middle half.",
                *others,
                *(_tests(rows) for _, rows in tested.groupby("pair", sort=False)),
                "Since the models are the same, rely on the paired tests; the unpaired t test is "
                "the one of the paper.",
            ]
        ),
        figure=draw(points, tested, axis),
        table=points,
        sets=sets,
    )


def _corrected(tested: pd.DataFrame, title: str) -> str:
    """In how many of several pairs the difference holds."""
    hold = (tested["p_holm"] < 0.05).groupby(tested["test"]).sum()
    return (
        f"The difference in {title} is significant (0.05, corrected for the "
        f"{tested['pair'].nunique()} pairs after Holm) in {hold['paired t']} by paired t and in "
        f"{hold['Wilcoxon']} by Wilcoxon."
    )


def _finding(rows: pd.DataFrame, title: str, metric: str) -> str:
    row = rows.iloc[0]
    one, two = (
        value_text(metric, row[of]) if metric else number(row[of], 3)
        for of in ("median_a", "median_b")
    )
    return _of_pair(
        row,
        f"the median {title} is {one} ({row['a']}) against {two} ({row['b']}), "
        f"{row['n_a']} models.",
    )


def _tests(rows: pd.DataFrame) -> str:
    row = rows.iloc[0]
    tests = "; ".join(
        f"{r['test']} {p_value(r['p'])}, {r['effect_name']} {effect(r['effect'])}"
        for _, r in rows.iterrows()
    )
    return _of_pair(row, f"mean difference {number(row['difference'], 3)} ({tests}).")


def _of_pair(row: pd.Series[Any], words: str) -> str:
    """A sentence about a pair, which it names unless the conditions already do."""
    if row["pair"] == f"{row['a']} / {row['b']}":
        return sentence(words)
    return f"{row['pair']}: {words}"
