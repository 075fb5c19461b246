"""`pepr select`: the cheapest model that is good enough, or the best one, under budgets."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from pepr_mlops.cli.chosen import choice_from, choice_options, use_options
from pepr_mlops.cli.options import (
    Command,
    load_request,
    option,
    output_options,
    run_options,
    score_options,
)
from pepr_mlops.cli.output import as_json, caption, note, render, say_or_write
from pepr_mlops.errors import WorkFailed

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison.answer import Answer
    from pepr_mlops.comparison.selected import Selected


@click.command(cls=Command)
@run_options
@score_options
@choice_options
@use_options
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

    With --images-per-year the cheapest is the one of the least energy of training and use, as `pepr
    profile` measured it.

    \b
    Examples:
      pepr select --experiment derma
      pepr select --experiment derma --margin 0.02 --max memory_gb=4
      pepr select --experiment derma --images-per-year 20000 --years 5
      pepr select --experiment derma --by performance --max energy_wh=20 --min P=0.8
      pepr select --experiment derma --resource E,M --max parameters=1e7 --format json
    """
    from pepr_mlops.comparison import tally
    from pepr_mlops.comparison.selected import Selected

    choice = choice_from(options)
    request = load_request(experiments, tracking_uri, **options)
    comparison = request.compare()
    selected = [
        Selected.of(comparison, request.question, str(name), choice)
        for name in comparison.sets["comparison_set"]
    ]
    note(f"runs: {tally(comparison.runs)}", *comparison.notes)
    if form == "json":
        say_or_write(as_json([_for_programs(one, top) for one in selected]), out)
    elif form == "csv":
        rows = [row for one in selected for row in one.models.to_dict("records")]
        say_or_write(render(rows, form), out)
    else:
        say_or_write("\n\n".join(_rendered(one, form, top) for one in selected), out)
    if all(one.answer is None for one in selected):
        raise WorkFailed(
            "select: no model is within all budgets; the table shows what each excludes"
        )


def _budgets(one: Selected) -> pd.DataFrame:
    """What each budget costs, P and PePR by the names they have on the split that decides."""
    p, rows = one.found.decided_by, one.selection.budgets
    names = {"decided_score": f"PePR by {p}", "decided": p}
    return rows.assign(budget=rows["budget"].replace(names, regex=True))


def _for_programs(one: Selected, top: int) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    from pepr_mlops.comparison.good_enough import Verdict

    answer, models = one.answer, one.models
    row = None if one.chosen is None else models[models["label"] == one.chosen].iloc[0]
    rest = models[models["label"] != one.chosen]
    found: dict[str, Any] = {
        "comparison_set": one.found.comparison_set,
        "by": one.by,
        "margin": one.found.terms.margin,
        "confidence": one.found.terms.level,
        "decided_on": one.found.split,
        "best": None if row is None else row.to_dict(),
        "runners_up": rest.head(top),
        "fitting": len(models),
        "models": len(one.found.table),
        "budgets": _budgets(one),
        "pareto": one.front,
        "knee": one.knee,
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
            "lifetime": None if answer.lifetime is None else asdict(answer.lifetime),
        }
    return found


def _rendered(one: Selected, form: str, top: int) -> str:
    """The answer for people."""
    from pepr_mlops.comparison import answer_text

    n, fit = len(one.found.table), len(one.models)
    within = (
        f"{fit} of {n} models fit" if len(one.selection.budgets) else f"{n} model{'s' * (n != 1)}"
    )
    blocks = [caption(f"{one.found.comparison_set}: {within}", form)]
    if one.answer is None:
        blocks.append(caption("No model is within all budgets.", form))
    else:
        lines = answer_text.sentences(one.answer)
        if one.by != "cost":
            lines = [
                f"Best by {one.by}: {one.chosen}",
                *answer_text.basis(replace(one.answer, optimism=None)),  # of another choice
            ]
        blocks.append(caption("\n".join(f"{line}." for line in lines), form))
        blocks.append(_table(one, one.answer, form, top))
    if len(one.selection.budgets):
        headings = {"budget": "budget", "excluded": "excludes", "only": "alone"}
        headings |= {
            "best": "without it",
            "needed": "needs",
            "gain": f"gain in {'PePR' if one.by == 'score' else 'P'}",
        }
        blocks.append(render(_budgets(one), form, headings))
    front = ", ".join(one.front["label"])
    costs = ", ".join(one.found.question.resources)
    text = f"Pareto set of all models, {one.found.decided_by} against {costs} "
    text += f"({len(one.front)}): {front}"
    blocks.append(caption(text + (f"; knee: {one.knee}" if one.knee else ""), form))
    return "\n\n".join(blocks)


def _table(one: Selected, answer: Answer, form: str, top: int) -> str:
    """The chosen model and the runners-up."""
    from pepr_mlops.comparison.intervals import rank_texts
    from pepr_mlops.comparison.table import with_unit

    columns = {"label": "model", "verdict": f"within {answer.terms.margin:g}?"}
    columns |= {"behind": "behind", "at_most": "at most", "decided": answer.decided_by}
    if answer.split != "test":
        columns["performance"] = answer.metric
    shown = [*answer.resources, *one.limits]
    columns |= {name: with_unit(name) for name in shown}
    columns |= {"score": f"PePR-{answer.scored_by}", "ranks": "ranks"}
    columns |= {"n": "runs", "energy_source": "energy", "codes": "flags"}
    rows = one.models.head(1 + top)
    return render(rows.assign(ranks=rank_texts(rows)), form, columns)
