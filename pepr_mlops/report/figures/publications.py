"""Where research is published: publications per inhabitant by region (Fig. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from pepr_mlops.errors import WrongUse
from pepr_mlops.report import theme
from pepr_mlops.report.figures.common import Panel, short, wrapped
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import number


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


# Files and the year their numbers are of: the paper's own figure calls those of 2023 2022.
FILES = {"regions_papers_data_2013.csv": 2013, "regions_papers_data_2023.csv": 2022}
# The column Region of the first file does not belong to its rows.
_NAMES = {"name": "name", "Region_updated": "region", "num_papers": "papers", "pop": "population"}
_FROM = "the paper's repository, https://github.com/saintslab/PePR"
_COLOURS = (theme.NEUTRAL, theme.COLOURS[0])


def read(folder: Path) -> pd.DataFrame:
    """`Material.publications` from the two files released with the paper.

    Raises `WrongUse` for a file that is missing, unreadable, or without a column or number.
    """
    return pd.concat(
        [_read(folder / name).assign(year=year) for name, year in FILES.items()], ignore_index=True
    )[["year", *_NAMES.values()]]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise WrongUse(
            f"publications: there is no {path.name} in {path.parent}; get it from {_FROM}"
        )
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise WrongUse(f"publications: {path} is no readable CSV table ({error})") from error
    missing = [c for c in _NAMES if c not in table]
    if missing:
        raise WrongUse(
            f"publications: {path} has no column {', '.join(missing)}; it is not the file of "
            f"{_FROM}"
        )
    table = table[list(_NAMES)].rename(columns=_NAMES)
    for column in ("papers", "population"):
        table[column] = pd.to_numeric(table[column], errors="coerce").astype(float)
    wrong = table.isna().any(axis=1) | (table["papers"] < 0) | (table["population"] <= 0)
    if wrong.any():
        raise WrongUse(
            f"publications: row {wrong.idxmax() + 2} of {path} is incomplete; get it again from "
            f"{_FROM}"
        )
    return table


def data(material: Material) -> pd.DataFrame:
    """A row per region and year: `region`, `year`, `papers`, `population`, `per_million`.

    Of a region's countries papers and inhabitants are summed; countries without either number are
    left out. Regions with the most per inhabitant in the last year come first. Raises
    `NothingToDraw` where there is no table of publications.
    """
    if material.publications is None:
        raise NothingToDraw(
            "there is no table of publications; `--publications DIR` takes the paper's two files, "
            f"{' and '.join(FILES)}"
        )
    numbers = ["papers", "population"]
    known = material.publications.dropna(subset=["region", *numbers])
    if known.empty:
        raise NothingToDraw("the table of publications is empty")
    sums = known.groupby(["region", "year"], as_index=False)[numbers].sum()
    sums["per_million"] = sums["papers"] / sums["population"] * 1e6
    last = sums[sums["year"] == sums["year"].max()].set_index("region")["per_million"]
    order = sums.assign(last=sums["region"].map(last))
    order = order.sort_values(["last", "region", "year"], ascending=[False, True, True])
    return order.drop(columns="last").reset_index(drop=True)


def draw(regions: pd.DataFrame) -> go.Figure:
    """A bar for each year next to the region's name, its number at the end."""
    order = {region: i for i, region in enumerate(regions["region"].unique())}
    figure = go.Figure()
    for i, (year, rows) in enumerate(regions.groupby("year")):
        figure.add_bar(
            x=short(rows["per_million"]),
            y=[order[region] for region in rows["region"]],
            orientation="h",
            name=str(year),
            marker={"color": _COLOURS[i % len(_COLOURS)]},
            text=[number(v, 3 if v >= 10 else 2) for v in rows["per_million"]],
            textposition="outside",
            textfont={"size": 11},
            cliponaxis=False,
            hovertemplate="%{x:.4g} per million<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        barmode="group",
        bargap=0.22,
        height=110 + 40 * len(order),
        xaxis={"title": {"text": "per million inhabitants"}, "nticks": 5,
               "range": [0, 1.13 * float(regions["per_million"].max())]},
        yaxis={"autorange": "reversed", "tickvals": list(order.values()), "ticks": "",
               "ticktext": [wrapped(r) for r in order], "showgrid": False},
        legend={"traceorder": "normal"},
        showlegend=True,
    )  # fmt: skip
    return figure


def panel(material: Material, options: Options) -> Panel:
    regions = data(material)
    return Panel(
        title="Publications per million inhabitants by region",
        caption=_caption(regions),
        reading=(
            "All countries of a region are taken together: their publications are divided by their "
            "inhabitants."
        ),
        figure=draw(regions),
        table=regions,
    )


def _caption(regions: pd.DataFrame) -> str:
    wide = regions.pivot(index="region", columns="year", values="per_million")
    first, last = wide.columns.min(), wide.columns.max()
    of_last = wide[last].dropna()
    top, bottom = of_last.idxmax(), of_last.idxmin()
    values = f"{number(of_last[top], 3)} and {number(of_last[bottom], 3)} per million inhabitants"
    if of_last[bottom] <= 0:
        return f"{top} had the most publications and {bottom} the fewest in {last}: {values}."
    times = number(of_last[top] / of_last[bottom], 2)
    words = f"{top} published {times} times as much as {bottom} in {last} ({values})"
    if first != last and wide.loc[bottom, first] > 0 and wide.loc[top, first] > 0:
        words += f", {number(wide.loc[top, first] / wide.loc[bottom, first], 2)} times in {first}"
    return f"{words}."
