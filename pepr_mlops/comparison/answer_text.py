"""An answer in sentences, for the terminal and the report. Pure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pepr_mlops.comparison import lifetime_text
from pepr_mlops.comparison.answer import Answer
from pepr_mlops.comparison.conditions import about_energy
from pepr_mlops.comparison.good_enough import BAD, GOOD, OPEN, Saving
from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.names import LIFETIME, RESOURCES, resource_help
from pepr_mlops.text import decimals, few, number

_SPLITS = {"val": "validation", "test": "the test set"}


def verdict(answer: Answer) -> str:
    """Which model is good enough, or why none can be shown to be."""
    terms = answer.terms
    within = f"within {terms.margin:g} of the best {answer.decided_by}"
    within += " within the budgets" if answer.limited else ""
    sure = f"with {terms.level:.0%} confidence"
    if answer.choice is None:
        return _none_shown(answer, within, sure)
    by = resource_help(answer.resource)
    good = len(answer.of(GOOD))
    why = f"Of {good} models shown to be so it has the lowest {by}"
    if good == 1:
        why = "It is the only model shown to be so"
    best = ", and performs best itself" if answer.choice == answer.best else ""
    learnt = ""
    if "one_class" in answer.row(answer.choice)["codes"]:
        learnt = ". But it has learnt nothing: a run of it names one class for every image"
    return f"{answer.choice} is good enough: {within}, {sure}. {why}{best}{learnt}"


def _none_shown(answer: Answer, within: str, sure: str) -> str:
    models = answer.models
    start = f"No model can be shown to be {within} {sure}"
    if models["at_most"].isna().all():
        return f"{start}: the error of {answer.decided_by} is not known"
    nearest = models.loc[models["at_most"].idxmin()]
    maybe = models[models["verdict"] == OPEN]
    images = f"{answer.images:,} images" if answer.images else "these images"
    return (
        f"{start}: the least margin that {images} show is {_up(nearest['at_most'])} "
        f"({nearest['label']}). The cheapest of {_count(len(maybe), 'model')} that may be good "
        f"enough is {maybe.iloc[0]['label']}"
    )


def _up(value: float) -> str:
    """Rounded up to thousandths, so that a margin of this size is enough."""
    return f"{-(-value * 1000 // 1) / 1000:.3f}"


def performance(answer: Answer, name: str) -> str:
    """P of a model on the test set, with its interval, what it costs, and doubts about it."""
    row = answer.row(name)
    interval = f" (no interval: {row['no_interval']})"
    if not row["no_interval"]:
        interval = f" (95 % {decimals(row['p_low'])} to {decimals(row['p_high'])})"
    alone = {"E": " of training alone"} if LIFETIME in answer.resources else {}
    costs = ", ".join(f"{_amount(r, row[r])}{alone.get(r, '')}" for r in answer.resources)
    columns = [RESOURCES[r].column if r in RESOURCES else r for r in answer.resources]
    about = about_energy(columns)
    if about and "estimated" in str(row["energy_source"]):
        costs += " (energy ESTIMATED)"
    codes = [code.replace("_", " ") for code in row["codes"] if code != "estimated"]
    doubts = f"; doubtful: {', '.join(codes)}" if codes else ""
    best = ", which performs best" if name == answer.best != answer.choice else ""
    p = decimals(row["performance"])
    return f"{name}{best}: {answer.metric} {p}{interval} for {costs}{doubts}"


def external(answer: Answer) -> str | None:
    """The metric that is P on external sets, None without any."""
    if not answer.external:
        return None
    metric = answer.metric.rpartition("/")[2].replace("_", " ")
    each = ", ".join(f"{decimals(value)} on {name}" for name, value in answer.external.items())
    model = answer.choice or answer.best
    return f"On external sets, which chose nothing, the {metric} of {model} is {each}"


def saving(answer: Answer) -> str | None:
    """What the choice saves against the best performer, None where it is that itself."""
    if answer.choice is None or answer.choice == answer.best:
        return None
    lost = answer.row(answer.best)["decided"] - answer.row(answer.choice)["decided"]
    saved = answer.savings.items()
    less = [_saved(name, s) for name, s in saved if s.amount > 0]
    more = [_amount(name, -s.amount) for name, s in saved if s.amount < 0]
    return (
        f"Against {answer.best}, which performs best, it gives up {lost:.4f} of "
        f"{answer.decided_by} and saves {'; '.join(less) or 'nothing'}"
        + (f", but needs {', '.join(more)} more" if more else "")
    )


def _amount(name: str, amount: float) -> str:
    unit = f" {cost_unit(name)}" if cost_unit(name) else ""
    known = {"E": "", "T": "", "M": " of memory", "C": " of CO2e", LIFETIME: " of training and use"}
    of = known.get(name, f" of {name}")
    return f"{number(amount, 3)}{unit}{of}"


def _saved(name: str, saved: Saving) -> str:
    found = _amount(name, saved.amount)
    if saved.amount_low != saved.amount_high:
        found += f" (95 % {number(saved.amount_low, 3)} to {number(saved.amount_high, 3)})"
    if saved.amount_low <= 0 < saved.amount:
        return f"{found}, which may be nothing"
    if saved.times is not None and saved.times >= 1.05:
        found += f", a factor of {number(saved.times, 2)}"
        if saved.times_low is not None and saved.times_low != saved.times_high:
            found += f" ({number(saved.times_low, 2)} to {number(saved.times_high or 0.0, 2)})"
    return found


def undecided(answer: Answer) -> list[str]:
    """Which models are not good enough, which cannot be told, and what would tell."""
    found = []
    bad, maybe = answer.of(BAD), answer.of(OPEN)
    if bad:
        found.append(f"Not good enough ({len(bad)}): {few(bad)}")
    if maybe:
        found.append(f"Cannot tell ({len(maybe)}): {few(maybe)}")
        first = answer.row(maybe[0])
        found.append(f"For {maybe[0]} {_needed(first, answer)}")
    return found


def _needed(row: pd.Series, answer: Answer) -> str:
    images, runs, parts = row["more_images"], row["more_runs"], []
    if np.isnan(row["at_most"]):
        return "that needs an interval"
    if np.isnan(images):
        return "a hundred times as many images or runs would not tell"
    if images > 1:
        total = f" ({number(images * answer.images, 2)})" if answer.images else ""
        parts.append(f"{number(images, 2)} times as many images{total}")
    if runs > 1:
        parts.append(f"{np.ceil(runs * row['n']):,.0f} runs of each model")
    what = "show that it is" if row["behind"] <= answer.terms.margin else "show that it is not"
    return f"about {' and '.join(parts)} would {what}, if its distance to the best stays as it is"


def subgroups(answer: Answer) -> str | None:
    """In which groups of images the choice is worse than the best performer by more than the
    margin, the worst first; None where it is in none."""
    rows = answer.subgroups
    chosen = rows[rows["model"] == answer.choice]
    worse = chosen[chosen["behind"] > answer.terms.margin].sort_values("behind", ascending=False)
    if worse.empty:
        return None
    groups = []
    for row in worse.to_dict("records"):
        interval = "no interval"
        if row["behind_low"] == row["behind_low"]:
            interval = f"95 % {decimals(row['behind_low'])} to {decimals(row['behind_high'])}"
        groups.append(
            f"{row['group']} {row['value']} ({_count(row['n'], 'image')}) by "
            f"{decimals(row['behind'])} ({interval})"
        )
    return (
        f"In {len(worse)} of {len(chosen)} subgroups {answer.choice} is worse than {answer.best} "
        f"by more than the margin: {few(groups)}"
    )


def basis(answer: Answer) -> list[str]:
    """What decided, and what follows from that."""
    images = f" ({answer.images:,} images)" if answer.images else ""
    found = [f"Decided on {_SPLITS[answer.split]}{images}: {answer.decided_by}"]
    if answer.metric != answer.decided_by:
        found[0] += f"; reported on the test set: {answer.metric}"
    elif answer.split == "val":
        found[0] += ", which is no result on a test set"
    if answer.without_val:
        found.append(
            f"Validation does not decide: {_count(answer.without_val, 'run')} logged no usable "
            "predictions for it"
        )
    if answer.split == "test":
        text = "Models are chosen by the test set, so P of the winner is too good"
        if answer.optimism is not None:
            by = f"{answer.optimism:.3f}" if answer.optimism >= 0.001 else "less than 0.001"
            text += f": by {by} on average over draws of the images"
        found.append(text)
    if answer.shift is not None:
        found.append(
            f"Validation and test disagree by more than sampling allows: mean P "
            f"{decimals(answer.shift.val)} and {decimals(answer.shift.test)}. The test set seems "
            "to come from elsewhere, and a choice by validation may not carry over"
        )
    return found


def pepr(answer: Answer) -> str:
    """What PePR chooses, and for which α it agrees."""
    first = answer.models.loc[answer.models["score"].idxmax(), "label"]
    start = f"PePR-{answer.scored_by} of the test set is best for {first}"
    if answer.choice is None or first == answer.choice:
        return start + (", too" if answer.choice else "")
    if answer.agrees is None:
        return f"{start}, and for {answer.choice} with no α"
    low, high = answer.agrees
    until = "" if high == float("inf") else f" to {number(high, 3)}"
    return f"{start}; with α from {number(low, 3)}{until} for {answer.choice}"


def sentences(answer: Answer) -> list[str]:
    """The full answer, the most important first."""
    shown = [answer.choice or answer.best]
    found = [verdict(answer), *(performance(answer, name) for name in shown), external(answer)]
    found += [saving(answer), *lifetime_text.sentences(answer.lifetime), subgroups(answer)]
    return [s for s in [*found, *undecided(answer), *basis(answer), pepr(answer)] if s]


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"
