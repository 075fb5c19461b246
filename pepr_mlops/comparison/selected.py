"""Which model of a comparison set is chosen, under budgets, and which of its runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import pandas as pd

from pepr_mlops.comparison import answer, selection
from pepr_mlops.comparison.answer import KEYS, USUAL, Answer, Choices, Terms
from pepr_mlops.comparison.question import Question
from pepr_mlops.comparison.scores import Comparison
from pepr_mlops.comparison.selection import Budget, Selection
from pepr_mlops.errors import WrongUse

By = Literal["cost", "performance", "score"]
BY: tuple[By, ...] = get_args(By)
# What budgets may name besides costs and metrics, by the column it is. A choice by one of these
# maximises it; that by cost weighs budgets by P.
OWN = {"P": "decided", "performance": "decided", "score": "decided_score"}


@dataclass(frozen=True)
class Choice:
    """How to choose: the cheapest good-enough model by the `terms` (`cost`), or the one of the
    greatest P or PePR on the deciding split, within the budgets."""

    terms: Terms = USUAL
    budgets: Sequence[Budget] = ()
    by: By = "cost"

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise WrongUse(f"by: {self.by!r} is not one of {', '.join(BY)}")


@dataclass(frozen=True)
class Selected:
    """The choice in one comparison set; its `answer` is None where no model is within the budgets.

    `models` are those within the budgets, the best one first.
    """

    found: Choices
    limits: list[str]
    by: str
    answer: Answer | None
    models: pd.DataFrame
    selection: Selection
    front: pd.DataFrame
    knee: str | None

    @classmethod
    def of(cls, comparison: Comparison, question: Question, name: str, choice: Choice) -> Self:
        """The choice in the comparison set `name`. Raises `WrongUse` as `answer.choices`."""
        own = OWN.values()
        limits = dict.fromkeys(b.column for b in choice.budgets if b.column not in own)
        others = [n for n in limits if n not in question.resources]
        found = answer.choices(comparison, question, name, choice.terms, others)
        table, order = found.table, OWN.get(choice.by, OWN["P"])
        selected = selection.select(table, choice.budgets, order)
        answered, models = None, selected.fitting
        if len(models):
            within = table[table.index.isin(models.index)]
            answered = answer.answer(found, None if len(within) == len(table) else within)
            models = answered.models
            if choice.by != "cost":
                models = models.sort_values(order, ascending=False, kind="stable")
        objectives = {"decided": "higher", **dict.fromkeys(question.resources, "lower")}
        front = table[selection.pareto(table, objectives)]  # type: ignore[arg-type]
        knee = selection.knee(table, "decided", question.resources[0])
        return cls(
            *(found, others, choice.by, answered, models, selected),
            front.sort_values("decided", ascending=False),
            None if knee is None else str(table.at[knee, "label"]),
        )

    @property
    def chosen(self) -> str | None:
        """The label of the chosen model, None where there is none."""
        if self.answer is None:
            return None
        return self.answer.choice if self.by == "cost" else str(self.models["label"].iloc[0])

    def best_run(self) -> pd.Series:
        """The run of the chosen model with the lowest seed, the latest of several, as a row of the
        runs compared. Raises `WrongUse` where no model is chosen."""
        name = self.chosen
        if name is None:
            why = "no model is within all budgets; relax one"
            if self.answer is not None:
                margin = self.found.terms.margin
                why = (
                    f"no model is surely good enough within {margin:g}; give a larger --margin, "
                    "or choose --by performance or --by score"
                )
            raise WrongUse(f"best: {why} (`pepr select` shows the models), or name a run")
        return self.run_of(name)

    def run_of(self, label: str) -> pd.Series:
        """The run of a model with the lowest seed, the latest of several, as `best_run`."""
        return first_run(self.found.members, self.models.set_index("label").loc[label])


def first_run(members: pd.DataFrame, model: pd.Series) -> pd.Series:
    """Of the runs of a comparison set that of a model, a row of its table, as `best_run`."""
    own = members[(members[KEYS] == model[KEYS]).all(axis=1)]
    order = own.sort_values(["seed", "start_time"], ascending=[True, False], kind="stable")
    return order.iloc[0]


def select(comparison: Comparison, question: Question, choice: Choice) -> Selected:
    """The choice where all runs are in one comparison set. Raises `WrongUse` for several."""
    names = list(comparison.sets["comparison_set"])
    if len(names) != 1:
        raise WrongUse(
            f"best: the runs are in {len(names)} comparison sets ({', '.join(map(str, names))}), "
            "each with a best model; keep one with --where NAME=VALUE, or name a run"
        )
    return Selected.of(comparison, question, str(names[0]), choice)
