"""An answer in sentences, for the terminal and the report. Pure.

Sentences have no full stop.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pepr_mlops.comparison import lifetime_text
from pepr_mlops.comparison.answer import Answer
from pepr_mlops.comparison.conditions import about_energy
from pepr_mlops.comparison.good_enough import BAD, GOOD, OPEN, Saving
from pepr_mlops.comparison.words import (
    CODES,
    all_of,
    cost_text,
    cost_words,
    count,
    difference_text,
    margin_text,
    metric_words,
    value_text,
)
from pepr_mlops.names import LIFETIME, RESOURCES
from pepr_mlops.text import few, number


def verdict(answer: Answer) -> str:
    """Which model is good enough, or why none can be shown to be."""
    learnt = ""
    if "one_class" in answer.row(answer.choice or answer.best)["codes"]:
        learnt = ". But it has learnt nothing: a run of it names one class for every image"
    if len(answer.models) == 1:
        return f"{answer.best} is the only model, so there is nothing to compare it with{learnt}"
    if answer.choice is None:
        return _none_shown(answer)
    by = cost_words(answer.resource)["name"]
    good = len(answer.of(GOOD))
    why = f"Of the {good} models shown to be good enough it has the lowest {by}"
    if good == 1:
        why = "It is the only model shown to be good enough"
    best = f", and it has the best {_metric(answer)}, too" * (answer.choice == answer.best)
    return (
        f"{answer.choice} is good enough: with {_sure(answer)} its {_decided_by(answer)} is at "
        f"most {_margin(answer)} below that of {_of_best(answer)}. {why}{best}{learnt}"
    )


def _none_shown(answer: Answer) -> str:
    models = answer.models
    start = "No model can be shown to be good enough"
    if models["at_most"].isna().all():
        return f"{start}: the error of {_decided_by(answer)} is not known"
    nearest = models.loc[models["at_most"].idxmin()]
    which, found = _candidate(answer)
    images = f"{answer.images:,} images" if answer.images else "these images"
    return (
        f"{start}: at most {_margin(answer)} below {_of_best(answer)} in {_decided_by(answer)}, "
        f"with {_sure(answer)}. With {images} the margin would have to be at least "
        f"{margin_text(answer.decided_by, _up(nearest['at_most']))} ({nearest['label']}). "
        f"{which} is {found['label']}"
    )


def _candidate(answer: Answer) -> tuple[str, pd.Series]:
    """Of the undecided models the cheapest that is good enough in half of the draws, or else the
    one nearest to the best, as the page names it; and which it is."""
    rows = answer.models[answer.models["verdict"] == OPEN]
    within = rows["behind"] <= answer.terms.margin
    probable = rows[np.where(rows["at_most"].isna(), within, rows["likely"] >= 0.5)]
    if probable.empty:
        which = f"The nearest to the best of {count(len(rows), 'model')} that may be good enough"
        return which, rows.loc[rows["behind"].idxmin()]
    return "The cheapest model that is probably good enough", probable.iloc[0]


def _up(value: float) -> float:
    """Rounded up to thousandths, so that a margin of this size is enough."""
    return round(-(-value * 1000 // 1) / 1000, 3)


def _metric(answer: Answer) -> str:
    return metric_words(answer.metric)["name"]


def _decided_by(answer: Answer) -> str:
    """The metric that decides; where it is not the reported one, with the split that it is on."""
    words = metric_words(answer.decided_by)
    return words["name"] if answer.split == "test" else f"{words['name']} on {words['on']}"


def _margin(answer: Answer) -> str:
    return margin_text(answer.decided_by, answer.terms.margin)


def _sure(answer: Answer) -> str:
    return f"{100 * answer.terms.level:g}% confidence"


def _of_best(answer: Answer) -> str:
    return "the best model" + " within the budgets" * answer.limited


def performance(answer: Answer, name: str) -> str:
    """P of a model on the test set, with its interval, what it costs, and doubts about it."""
    row = answer.row(name)
    bounds = row["p_low"], row["p_high"]
    interval = f" (no interval: {row['no_interval']})"
    if not row["no_interval"]:
        low, high = (value_text(answer.metric, bound, *bounds) for bound in bounds)
        interval = f" (95%: {low} to {high})"
    alone = {"E": " alone"} if LIFETIME in answer.resources else {}
    costs = all_of(
        [
            cost_text(r, row[r], row[f"{r}_low"], row[f"{r}_high"]) + alone.get(r, "")
            for r in answer.resources
        ]
    )
    columns = [RESOURCES[r].column if r in RESOURCES else r for r in answer.resources]
    about = about_energy(columns)
    if about and "estimated" in str(row["energy_source"]):
        costs += " (energy estimated)"
    codes = [CODES.get(code, code) for code in row["codes"] if code != "estimated"]
    doubts = f". Doubtful: {'; '.join(codes)}" if codes else ""
    best = f", the model with the best {_metric(answer)}," * (name == answer.best != answer.choice)
    reached = value_text(answer.metric, row["performance"], *bounds)
    split = metric_words(answer.metric)["on"]
    on = f" on {split}" if split else ""
    return (
        f"{name}{best} reaches {_with_name(answer.metric, reached)}{on}{interval} for "
        f"{costs}{doubts}"
    )


def _with_name(metric: str, value: str) -> str:
    """`85.8% accuracy`, `an AUC of 0.912`."""
    words = metric_words(metric)
    if words["share"]:
        return f"{value} {words['name']}"
    article = "an" if words["name"][0].lower() in "aeiou" else "a"
    return f"{article} {words['name']} of {value}"


def external(answer: Answer) -> str | None:
    """The metric that is P on external sets, None without any."""
    if not answer.external:
        return None
    metric = answer.metric
    each = all_of([f"{value_text(metric, v)} on {name}" for name, v in answer.external.items()])
    model = answer.choice or answer.best
    return f"On external sets, which decide nothing, the {_metric(answer)} of {model} is {each}"


def saving(answer: Answer) -> str | None:
    """What the choice saves against the best performer, None where it is that itself."""
    if answer.choice is None or answer.choice == answer.best:
        return None
    lost = answer.row(answer.best)["decided"] - answer.row(answer.choice)["decided"]
    saved = answer.savings.items()
    less = [_saved(name, s) for name, s in saved if s.amount > 0]
    more = [cost_text(name, -s.amount) for name, s in saved if s.amount < 0]
    return (
        f"Against {answer.best}, the model with the best {_metric(answer)}, it gives up "
        f"{difference_text(answer.decided_by, lost)} of {_decided_by(answer)} and saves "
        f"{'; '.join(less) or 'nothing'}" + (f", but needs {all_of(more)} more" if more else "")
    )


def _saved(name: str, saved: Saving) -> str:
    bounds = saved.amount_low, saved.amount_high
    found = cost_text(name, saved.amount, *bounds)
    if saved.amount_low != saved.amount_high:
        low, high = (cost_text(name, bound, *bounds, kind=False) for bound in bounds)
        found += f" (95%: {low} to {high})"
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
        found.append(f"Not good enough: {count(len(bad), 'model')} ({few(bad)})")
    if maybe:
        found.append(f"Cannot tell: {count(len(maybe), 'model')} ({few(maybe)})")
        one = answer.row(maybe[0]) if answer.choice else _candidate(answer)[1]
        found.append(_needed(one, answer))
    return found


def _needed(row: pd.Series, answer: Answer) -> str:
    """What would tell whether a model is good enough."""
    name, images, runs, parts = row["label"], row["more_images"], row["more_runs"], []
    if np.isnan(row["at_most"]):
        return f"To judge {name}, its {_decided_by(answer)} needs an interval"
    if np.isnan(images):
        return f"Not even a hundred times as many images or runs would tell for {name}"
    if images > 1:
        total = f" ({number(images * answer.images, 2)})" if answer.images else ""
        parts.append(f"{number(images, 2)} times as many images{total}")
    if runs > 1:
        parts.append(f"{np.ceil(runs * row['n']):,.0f} runs of each model")
    isnt = "is" if row["behind"] <= answer.terms.margin else "is not"
    return (
        f"About {' and '.join(parts)} would show that {name} {isnt} good enough, if its distance "
        "to the best stays as it is"
    )


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
            low, high = (
                difference_text(answer.metric, row[f"behind_{end}"]) for end in ("low", "high")
            )
            interval = f"95%: {low} to {high}"
        groups.append(
            f"{row['group']} {row['value']} ({count(row['n'], 'image')}) by "
            f"{difference_text(answer.metric, row['behind'])} ({interval})"
        )
    return (
        f"In {len(worse)} of {len(chosen)} subgroups {answer.choice} is worse than {answer.best} "
        f"by more than the margin: {few(groups)}"
    )


def basis(answer: Answer) -> list[str]:
    """What decided, and what follows from that."""
    on = metric_words(answer.decided_by)["on"] or "the test set"
    images = f" ({answer.images:,} images)" if answer.images else ""
    found = [f"Models are chosen by {metric_words(answer.decided_by)['name']} on {on}{images}"]
    if answer.metric != answer.decided_by:
        found[0] += f"; the {_metric(answer)} reported is that of the test set"
    elif answer.split == "val":
        found[0] += ", which is no result on a test set"
    if answer.without_val:
        found.append(
            "Validation cannot decide, since "
            f"{count(answer.without_val, 'run')} logged no usable predictions for it"
        )
    if answer.split == "test":
        found.append(optimism(answer))
    if answer.shift is not None:
        found.append(shift(answer))
    return found


def optimism(answer: Answer) -> str:
    """What follows from a choice by the test set."""
    text = (
        f"The test images that choose the model also give its {_metric(answer)}, which is "
        "therefore too optimistic"
    )
    if answer.optimism is None:
        return text
    by = difference_text(answer.decided_by, answer.optimism)
    if answer.optimism < 0.001:
        by = f"less than {difference_text(answer.decided_by, 0.001)}"
    return f"{text}, by {by} on average over draws of the images"


def shift(answer: Answer) -> str:
    """What follows from a validation and a test set that disagree."""
    assert answer.shift is not None
    val, test = (value_text(answer.metric, v) for v in (answer.shift.val, answer.shift.test))
    return (
        f"Validation and test disagree by more than chance: the mean {_metric(answer)} of all "
        f"models is {val} and {test}. The test set seems to come from elsewhere, and a choice by "
        "validation may not carry over"
    )


def pepr(answer: Answer) -> str:
    """What PePR chooses, and for which α it agrees."""
    first = answer.models.loc[answer.models["score"].idxmax(), "label"]
    start = f"PePR-{answer.scored_by} ranks {first} first"
    if answer.choice is None or first == answer.choice:
        return start + (", too" if answer.choice else "")
    if answer.agrees is None:
        return f"{start}, and {answer.choice} for no α"
    low, high = answer.agrees
    until = "" if high == float("inf") else f" to {number(high, 3)}"
    return f"{start}, and with α from {number(low, 3)}{until} {answer.choice}"


def sentences(answer: Answer) -> list[str]:
    """The full answer, the most important first."""
    shown = [answer.choice or answer.best]
    found = [verdict(answer), *(performance(answer, name) for name in shown), external(answer)]
    found += [saving(answer), *lifetime_text.sentences(answer.lifetime), subgroups(answer)]
    return [s for s in [*found, *undecided(answer), *basis(answer), pepr(answer)] if s]
