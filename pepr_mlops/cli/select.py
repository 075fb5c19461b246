"""`pepr select`: the cheapest model that is good enough, or the best one, under budgets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from pepr_mlops.cli.options import (
    Command,
    load_request,
    option,
    output_options,
    run_options,
    score_options,
    terms_options,
)
from pepr_mlops.cli.output import as_json, caption, note, render, say_or_write
from pepr_mlops.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison import Comparison, Question
    from pepr_mlops.comparison.answer import Answer, Choices, Terms
    from pepr_mlops.comparison.selection import Budget, Selection

# What budgets may name besides costs and metrics, by the column it is.
_OWN = {"P": "decided", "performance": "decided", "score": "decided_score"}
# What each choice maximises; budgets are weighed by it.
_ORDERS = {"cost": "decided", "performance": "decided", "score": "decided_score"}


@click.command(cls=Command)
@run_options
@score_options
@terms_options
@option("Essentials", "--max", "at most this value", multiple=True, metavar="NAME=LIMIT")
@option("Essentials", "--min", "at least this value", multiple=True, metavar="NAME=LIMIT")
@option(
    "Essentials",
    "--by",
    "the cheapest good-enough model by the first resource, or the best by P or PePR",
    type=click.Choice(["cost", "performance", "score"]),
    default="cost",
)
@option(
    "Output",
    "--top",
    "how many runners-up to list",
    type=click.IntRange(min=1),
    default=5,
    metavar="N",
)
@output_options
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    margin: float,
    confidence: float,
    decide_on: str | None,
    max: tuple[str, ...],
    min: tuple[str, ...],
    by: str,
    top: int,
    form: str,
    out: Path | None,
    **options: Any,
) -> None:
    """Which model is good enough, and what it saves.

    A model is good enough if its P is surely no more than the margin below the best one's. Of these
    the cheapest is chosen, on validation where runs logged its predictions; the P reported is that
    of the test set. --by performance and --by score choose the best instead.

    A budget names P, a cost (E, energy_wh, memory_gb, train_time_s, parameters, …) or any metric,
    averaged over seeds. Also the Pareto set of P against the resources, and its knee.

    \b
    Examples:
      pepr select --experiment derma
      pepr select --experiment derma --margin 0.02 --max memory_gb=4
      pepr select --experiment derma --by performance --max energy_wh=20 --min P=0.8
      pepr select --experiment derma --resource E,M --max parameters=1e7 --format json
    """
    from pepr_mlops.comparison import tally
    from pepr_mlops.comparison.answer import Terms

    terms = Terms(margin, confidence, decide_on)  # type: ignore[arg-type]
    budgets = [*(_budget(word, "max") for word in max), *(_budget(word, "min") for word in min)]
    request = load_request(experiments, tracking_uri, **options)
    comparison = request.compare()
    selected = [
        _Selected.of(comparison, request.question, str(name), terms, budgets, by)
        for name in comparison.sets["comparison_set"]
    ]
    note(f"runs: {tally(comparison.runs)}", *comparison.notes)
    if form == "json":
        say_or_write(as_json([one.for_programs(top) for one in selected]), out)
    elif form == "csv":
        rows = [row for one in selected for row in one.models.to_dict("records")]
        say_or_write(render(rows, form), out)
    else:
        say_or_write("\n\n".join(one.rendered(form, top) for one in selected), out)
    if all(one.answer is None for one in selected):
        raise WorkFailed(
            "select: no model is within all budgets; the table shows what each excludes"
        )


def _budget(word: str, kind: str) -> Budget:
    from pepr_mlops.comparison.selection import Budget

    name, equals, number = word.rpartition("=")
    try:
        limit = float(number)
    except ValueError:
        limit = float("nan")
    if not equals or not name or limit != limit:
        raise WrongUse(f"{kind}: {word!r} is not NAME=NUMBER, such as energy_wh=20")
    return Budget(_OWN.get(name, name), kind, limit)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Selected:
    """The answer for one comparison set, None where no model is within the budgets.

    `models` are those within the budgets, the best by `by` first.
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
    def of(
        cls,
        comparison: Comparison,
        question: Question,
        name: str,
        terms: Terms,
        budgets: list[Budget],
        by: str,
    ) -> _Selected:
        from pepr_mlops.comparison import answer, selection

        limits = dict.fromkeys(b.column for b in budgets if b.column not in _OWN.values())
        others = [n for n in limits if n not in question.resources]
        found = answer.choices(comparison, question, name, terms, others)
        table = found.table
        selected = selection.select(table, budgets, _ORDERS[by])
        answered, models = None, selected.fitting
        if len(models):
            within = table[table.index.isin(models.index)]
            answered = answer.answer(found, None if len(within) == len(table) else within)
            models = answered.models
            if by != "cost":
                models = models.sort_values(_ORDERS[by], ascending=False, kind="stable")
        objectives = {"decided": "higher", **dict.fromkeys(question.resources, "lower")}
        front = table[selection.pareto(table, objectives)]  # type: ignore[arg-type]
        knee = selection.knee(table, "decided", question.resources[0])
        return cls(
            *(found, others, by, answered, models, selected),
            front.sort_values("decided", ascending=False),
            None if knee is None else str(table.at[knee, "label"]),
        )

    @property
    def chosen(self) -> str | None:
        """The label of the chosen model, None where there is none."""
        if self.answer is None:
            return None
        return self.answer.choice if self.by == "cost" else str(self.models["label"].iloc[0])

    @property
    def budgets(self) -> pd.DataFrame:
        """What each budget costs, P and PePR by the names they have on the split that decides."""
        p, rows = self.found.decided_by, self.selection.budgets
        names = {"decided_score": f"PePR by {p}", "decided": p}
        return rows.assign(budget=rows["budget"].replace(names, regex=True))

    def for_programs(self, top: int) -> dict[str, Any]:
        """All numbers, as JSON has them."""
        from pepr_mlops.comparison.good_enough import Verdict

        answer, models = self.answer, self.models
        row = None if self.chosen is None else models[models["label"] == self.chosen].iloc[0]
        rest = models[models["label"] != self.chosen]
        found: dict[str, Any] = {
            "comparison_set": self.found.comparison_set,
            "by": self.by,
            "margin": self.found.terms.margin,
            "confidence": self.found.terms.level,
            "decided_on": self.found.split,
            "best": None if row is None else row.to_dict(),
            "runners_up": rest.head(top),
            "fitting": len(models),
            "models": len(self.found.table),
            "budgets": self.budgets,
            "pareto": self.front,
            "knee": self.knee,
        }
        if answer is not None:
            found |= {
                "metric": answer.metric,
                "decided_by": answer.decided_by,
                "images": answer.images,
                "best_performer": answer.best,
                **{name.replace(" ", "_"): answer.of(name) for name in get_args(Verdict)},
                "savings": {name: asdict(saved) for name, saved in answer.savings.items()},
                "pepr_agrees_for_alpha": answer.agrees,
                "optimism": answer.optimism,
                "external": dict(answer.external),
                "subgroups": answer.subgroups,
                "shift": None if answer.shift is None else asdict(answer.shift),
            }
        return found

    def rendered(self, form: str, top: int) -> str:
        """The answer for people."""
        from pepr_mlops.comparison import answer_text

        n, fit = len(self.found.table), len(self.models)
        within = (
            f"{fit} of {n} models fit"
            if len(self.selection.budgets)
            else f"{n} model{'s' * (n != 1)}"
        )
        blocks = [caption(f"{self.found.comparison_set}: {within}", form)]
        if self.answer is None:
            blocks.append(caption("No model is within all budgets.", form))
        else:
            lines = answer_text.sentences(self.answer)
            if self.by != "cost":
                lines = [
                    f"Best by {self.by}: {self.chosen}",
                    *answer_text.basis(replace(self.answer, optimism=None)),  # of another choice
                ]
            blocks.append(caption("\n".join(f"{line}." for line in lines), form))
            blocks.append(self._table(self.answer, form, top))
        if len(self.selection.budgets):
            headings = {"budget": "budget", "excluded": "excludes", "only": "alone"}
            headings |= {
                "best": "without it",
                "needed": "needs",
                "gain": f"gain in {'PePR' if self.by == 'score' else 'P'}",
            }
            blocks.append(render(self.budgets, form, headings))
        front = ", ".join(self.front["label"])
        costs = ", ".join(self.found.question.resources)
        text = f"Pareto set of all models, {self.found.decided_by} against {costs} "
        text += f"({len(self.front)}): {front}"
        blocks.append(caption(text + (f"; knee: {self.knee}" if self.knee else ""), form))
        return "\n\n".join(blocks)

    def _table(self, answer: Answer, form: str, top: int) -> str:
        """The chosen model and the runners-up."""
        from pepr_mlops.comparison.intervals import rank_texts
        from pepr_mlops.comparison.table import with_unit

        columns = {"label": "model", "verdict": f"within {answer.terms.margin:g}?"}
        columns |= {"behind": "behind", "at_most": "at most", "decided": answer.decided_by}
        if answer.split != "test":
            columns["performance"] = answer.metric
        shown = [*self.found.question.resources, *self.limits]
        columns |= {name: with_unit(name) for name in shown}
        columns |= {"score": f"PePR-{answer.scored_by}", "ranks": "ranks"}
        columns |= {"n": "runs", "energy_source": "energy", "codes": "flags"}
        rows = self.models.head(1 + top)
        return render(rows.assign(ranks=rank_texts(rows)), form, columns)
