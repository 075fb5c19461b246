"""What the probabilities of an image mean: its class, and whether it is positive. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pepr_mlops.comparison.metrics import Bools, Floats
from pepr_mlops.errors import WrongUse
from pepr_mlops.text import number
from pepr_mlops.train.use.description import Description, Weights

SEPARATOR = ";"  # between the labels of an image that may have several
USUAL = 0.5  # from which an image has one of several labels, where no threshold is known


@dataclass(frozen=True)
class Rule:
    """How probabilities [n, classes] become answers.

    The class is the one of the highest probability; of several labels it is those from their
    threshold on. `thresholds` has one for each label, of a binary task one for the second class,
    and is None for more classes and where none is known. `source` says where they are from.
    """

    classes: tuple[str, ...]
    several: bool
    thresholds: tuple[float, ...] | None
    source: str

    @property
    def positive(self) -> str | None:
        """The class that an image is positive of, of a binary task with a threshold."""
        return None if self.several or self.thresholds is None else self.classes[1]

    def header(self) -> list[str]:
        """The names of the columns of `rows`."""
        names = ["class", *(f"probability of {name}" for name in self.classes)]
        if self.several:
            return [*names, *(f"threshold of {name}" for name in self.classes)]
        return names if self.positive is None else [*names, "threshold", "positive"]

    def rows(self, chances: Floats) -> list[list[str]]:
        """The cells of each image; 9 digits are those of the network."""
        above = self.above(chances)
        limits = [f"{limit:.9g}" for limit in self.thresholds or ()]
        found = []
        for row, over in zip(chances, above, strict=True):
            cells = [self._named(row, over), *(f"{chance:.9g}" for chance in row), *limits]
            found.append(cells if self.positive is None else [*cells, "yes" if over[0] else "no"])
        return found

    def above(self, chances: Floats) -> Bools:
        """Whether each probability reaches its threshold, [n, thresholds]."""
        if self.thresholds is None:
            return np.zeros((len(chances), 0), np.bool_)
        columns = chances if self.several else chances[:, 1:]
        return np.asarray(columns >= self.thresholds)

    def counts(self, chances: Floats) -> dict[str, int]:
        """How many images are of each class or label."""
        if self.several:
            found = self.above(chances).sum(axis=0)
        else:
            found = np.bincount(chances.argmax(axis=1), minlength=len(self.classes))
        return dict(zip(self.classes, found.tolist(), strict=True))

    def _named(self, row: Floats, over: Bools) -> str:
        if self.several:
            return SEPARATOR.join(np.array(self.classes)[over])
        return self.classes[int(row.argmax())]


def rule_for(found: Description, weights: Weights, threshold: float | None = None) -> Rule:
    """The rule with this threshold for all labels, else with those chosen on validation.

    Raises `WrongUse` for a threshold that is no probability, and for one of several classes.
    """
    binary, several = found.task == "binary-class", found.several
    if threshold is None:
        chosen, source = weights.thresholds, "chosen on validation"
        if several and chosen is None:
            chosen, source = (USUAL,) * len(found.classes), "since none was chosen on validation"
        if not (binary or several):
            chosen = None
        return Rule(found.classes, several, chosen, source)
    if not (binary or several):
        raise WrongUse(
            f"threshold: {found.model} has {len(found.classes)} classes, of which the most likely "
            "one counts; leave it out"
        )
    if not 0 <= threshold <= 1:
        raise WrongUse(f"threshold: {threshold:g} is no probability; give one from 0 to 1")
    n = len(found.classes) if several else 1
    return Rule(found.classes, several, (threshold,) * n, "as given")


def threshold_text(rule: Rule) -> str:
    """A sentence on the thresholds."""
    if rule.thresholds is None:
        if len(rule.classes) > 2:
            return "the class is the most likely one"
        return "the class is the most likely one; no threshold was chosen on validation"
    if not rule.several:
        (limit,) = rule.thresholds
        return f"positive: {rule.positive} from a probability of {number(limit)} ({rule.source})"
    limits = _alike(rule.thresholds)
    return f"labels from a probability of {limits} ({rule.source})"


def _alike(values: Sequence[float]) -> str:
    if len(set(values)) == 1:
        return number(values[0])
    return f"{number(min(values))} to {number(max(values))}"
