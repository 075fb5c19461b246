"""Do groups of models, or the same models under two conditions, differ? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import combinations

import pandas as pd

from pepr_mlops.comparison import Comparison, intervals
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import COMPARED, ENERGY_OF, PERFORMANCE
from pepr_mlops.paper_models import paper_models

GROUPS = {"size": ("small", "large"), "kind": ("CNN", "Other"), "efficient": ("yes", "no")}
# Conditions by name and the column they are; other data sets are no condition of training.
CONDITIONS = {
    "dataset_size" if c == "size" else c: c
    for c in (*COMPARED, *ENERGY_OF, "memory_metric")
    if c not in ("dataset", "data_digest")
}
COLUMNS = [
    "by",
    "where",
    "quantity",
    "a",
    "b",
    "n_a",
    "n_b",
    "mean_a",
    "mean_b",
    "median_a",
    "median_b",
    "difference",
    "test",
    "statistic",
    "p",
    "p_holm",
    "effect",
    "effect_name",
]


def differences(comparison: Comparison, by: Sequence[str] = ()) -> pd.DataFrame:
    """Tests of P and of every score, one row each, in `COLUMNS`.

    Groups of models within each comparison set, by t and Mann-Whitney test (`intervals.unpaired`):
    `size` (small up to the median number of parameters of the set), `kind` (CNN or Other) and
    `efficient`, the last two as the paper's Table A.1 has them; other models are in neither group.
    The same models in two comparison sets that differ in one condition only, such as `pretrained`
    or `fraction`: paired t and Wilcoxon test (`intervals.paired`), and the paper's unpaired ones.

    `by` limits it to some groups and conditions. `p_holm` is corrected over all rows of one test.
    Raises `WrongUse` for an unknown `by` and `WorkFailed` where nothing can be tested.
    """
    for name in by:
        if name not in (*GROUPS, *CONDITIONS):
            valid = ", ".join((*GROUPS, *CONDITIONS))
            raise WrongUse(f"by: {name!r} is no grouping; valid: {valid}")
    quantities = _wide(comparison)
    rows = [*_groups(comparison, quantities, by), *_conditions(comparison, quantities, by)]
    if not rows:
        raise WorkFailed(
            f"stats: nothing to test{' by ' + ', '.join(by) if by else ''}: groups need "
            f"{intervals.FEWEST} models on each side, and conditions two sets that differ in one "
            f"thing and share {intervals.FEWEST} models"
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("test")["p"].transform(intervals.holm)
    return table[COLUMNS]


def _wide(comparison: Comparison) -> pd.DataFrame:
    """P and each score by comparison set and model."""
    scores = comparison.scores
    several = scores[scores.duplicated(["comparison_set", "resource", "model"], keep=False)]
    if len(several):
        first = several.iloc[0]
        raise WrongUse(
            f"stats: {first['comparison_set']} has several rows of a model ({first['model']}: "
            f"{first['variant']}), which are no models of their own; choose runs or resources "
            "that leave one"
        )
    keys = ["comparison_set", "model"]
    wide = scores.pivot(index=keys, columns="resource", values="score").add_prefix("PePR-")
    return wide.assign(**{PERFORMANCE: scores.groupby(keys)[PERFORMANCE].first()})


def _groups(
    comparison: Comparison, quantities: pd.DataFrame, by: Sequence[str]
) -> Iterator[dict[str, object]]:
    table = {m.model: m for m in paper_models()}
    for name, rows in quantities.groupby(level="comparison_set", sort=False):
        rows = rows.droplevel("comparison_set")
        used = comparison.used[comparison.used["comparison_set"] == name]
        parameters = used.groupby("model")["parameters"].first().reindex(rows.index)
        known = [table.get(model) for model in rows.index]
        members = {
            "size": intervals.sizes(parameters),
            "kind": pd.Series([m and m.kind for m in known], rows.index),
            "efficient": pd.Series(
                [m and ("yes" if m.efficient else "no") for m in known], rows.index
            ),
        }
        for group, (a, b) in GROUPS.items():
            if by and group not in by:
                continue
            for quantity in rows:
                x = rows.loc[members[group] == a, quantity]
                y = rows.loc[members[group] == b, quantity]
                if min(len(x), len(y)) >= intervals.FEWEST:
                    yield from _rows(
                        group, str(name), quantity, (a, b), x, y, intervals.unpaired(x, y)
                    )


def _conditions(
    comparison: Comparison, quantities: pd.DataFrame, by: Sequence[str]
) -> Iterator[dict[str, object]]:
    shared = comparison.sets.set_index("comparison_set")["shared"]
    names = {column: name for name, column in CONDITIONS.items()}
    for one, two in combinations(shared.index, 2):
        keys = shared[one].keys() | shared[two].keys()
        differ = [k for k in keys if shared[one].get(k) != shared[two].get(k)]
        if "size" in differ and "data_digest" in differ:
            differ.remove("data_digest")  # each size is a file of its own
        condition = names.get(differ[0]) if len(differ) == 1 else None
        if condition is None or (by and condition not in by):
            continue
        for quantity in quantities:
            x, y = quantities.loc[one, quantity], quantities.loc[two, quantity]
            common = x.index.intersection(y.index)
            if len(common) >= intervals.FEWEST:
                x, y = x[common], y[common]
                yield from _rows(
                    condition,
                    f"{one} / {two}",
                    str(quantity),
                    (shared[one][differ[0]], shared[two][differ[0]]),
                    x,
                    y,
                    [*intervals.paired(x, y), *intervals.unpaired(x, y)],
                )


def _rows(
    by: str,
    where: str,
    quantity: str,
    names: tuple[str, str],
    x: pd.Series[float],
    y: pd.Series[float],
    tests: Sequence[intervals.Test],
) -> Iterator[dict[str, object]]:
    for test in tests:
        found = asdict(test)
        yield {
            "by": by,
            "where": where,
            "quantity": quantity,
            "a": names[0],
            "b": names[1],
            "mean_a": float(x.mean()),
            "mean_b": float(y.mean()),
            "median_a": float(x.median()),
            "median_b": float(y.median()),
            "test": found.pop("name"),
            **found,
        }
