"""`pepr select`: the best model under budgets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.options import (
    Command,
    load_request,
    option,
    output_options,
    run_options,
    score_options,
)
from pepr_mlops.cli.output import as_json, caption, note, render, say_or_write
from pepr_mlops.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    from pepr_mlops.comparison import Comparison
    from pepr_mlops.comparison.selection import Budget


@click.command(cls=Command)
@run_options
@score_options
@option("Essentials", "--max", "at most this value", multiple=True, metavar="NAME=LIMIT")
@option("Essentials", "--min", "at least this value", multiple=True, metavar="NAME=LIMIT")
@option(
    "Essentials",
    "--by",
    "rank models by this; score is PePR by the first resource",
    type=click.Choice(["performance", "score"]),
    default="performance",
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
    max: tuple[str, ...],
    min: tuple[str, ...],
    by: str,
    top: int,
    form: str,
    out: Path | None,
    **options: Any,
) -> None:
    """The best model within budgets, the runners-up, and what each budget excludes.

    A budget names P, a cost (E, energy_wh, memory_gb, train_time_s, parameters, …) or any metric,
    averaged over seeds. Also the Pareto set of P against the resources, and its knee.

    \b
    Examples:
      pepr select --experiment derma --max memory_gb=4 --max energy_wh=20
      pepr select --experiment derma --max energy_wh=20 --min test/accuracy=0.8 --by score
      pepr select --experiment derma --resource E,M --max parameters=1e7 --format json
    """
    from pepr_mlops.comparison import tally

    budgets = [*(_budget(word, "max") for word in max), *(_budget(word, "min") for word in min)]
    request = load_request(experiments, tracking_uri, **options)
    comparison, resources = request.compare(), request.question.resources
    answers = [
        _answer(comparison, str(name), budgets, resources, by, top)
        for name in comparison.sets["comparison_set"]
    ]
    note(f"runs: {tally(comparison.runs)}", *comparison.notes)
    if form == "json":
        for_programs = [{k: v for k, v in a.items() if k != "columns"} for a in answers]
        say_or_write(as_json(for_programs), out)
    else:
        say_or_write("\n\n".join(_rendered(answer, form) for answer in answers), out)
    if not any(a["fitting"] for a in answers):
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
    return Budget("performance" if name == "P" else name, kind, limit)  # type: ignore[arg-type]


def _answer(
    comparison: Comparison,
    name: str,
    budgets: list[Budget],
    resources: tuple[str, ...],
    by: str,
    top: int,
) -> dict[str, Any]:
    """The answer for one comparison set."""
    from pepr_mlops.comparison import means, selection
    from pepr_mlops.comparison.runs import column
    from pepr_mlops.comparison.table import with_unit

    scores = comparison.scores[comparison.scores["comparison_set"] == name]
    scored_by = scores["resource"].iloc[0]
    keys = ["comparison_set", "model", "variant"]
    own = ["performance", "score", "n", "energy_source", "flags", "codes"]
    models = scores.loc[scores["resource"] == scored_by, [*keys, *own]]
    limited = dict.fromkeys(b.column for b in budgets if b.column not in ("performance", "score"))
    for taken in {*keys, *own} & limited.keys():
        raise WrongUse(f"{taken}: a budget cannot have this name; the answer has such a column")
    costs = {k: column(comparison.used, k) for k in [*limited, *resources]}
    models = models.merge(means(comparison, costs), on=keys)
    models["model"] += models["variant"].map(lambda v: f" ({v})" if v else "")
    chosen = selection.select(models, budgets, by)
    objectives = {"performance": "higher", **dict.fromkeys(resources, "lower")}
    front = models[selection.pareto(models, objectives)].sort_values(  # type: ignore[arg-type]
        "performance", ascending=False
    )
    knee = selection.knee(models, "performance", resources[0])
    shown = [k for k, v in costs.items() if k in limited or v not in map(costs.get, limited)]
    return {
        "comparison_set": name,
        "by": by,
        "best": None if chosen.fitting.empty else chosen.fitting.iloc[0].to_dict(),
        "runners_up": chosen.fitting.iloc[1 : 1 + top],
        "fitting": len(chosen.fitting),
        "models": len(models),
        "budgets": chosen.budgets,
        "objectives": objectives,
        "pareto": front,
        "knee": None if knee is None else models.loc[knee, "model"],
        "columns": {"model": "model", "performance": "P", "score": f"PePR-{scored_by}"}
        | {k: with_unit(k) for k in shown}
        | {"energy_source": "energy", "codes": "flags"},
    }


def _rendered(answer: dict[str, Any], form: str) -> str:
    """An answer for people."""
    columns, by, pareto = answer["columns"], answer["by"], answer["pareto"]["model"]
    fit = f"{answer['comparison_set']}: {answer['fitting']} of {answer['models']} models fit"
    blocks = [caption(fit, form)]
    if answer["best"] is None:
        blocks.append(caption("No model is within all budgets.", form))
    else:
        models = [answer["best"], *answer["runners_up"].to_dict("records")]
        blocks.append(caption(f"Best by {by}: {answer['best']['model']}", form))
        blocks.append(render(models, form, columns))
    if len(answer["budgets"]):
        headings = {"budget": "budget", "excluded": "excludes", "only": "alone"}
        headings |= {"best": "without it", "needed": "needs", "gain": f"gain in {by}"}
        blocks.append(render(answer["budgets"], form, headings))
    _, *costs = answer["objectives"]
    front = f"Pareto set of all models, P against {', '.join(costs)} ({len(pareto)}): "
    front += ", ".join(pareto) + (f"; knee: {answer['knee']}" if answer["knee"] else "")
    return "\n\n".join([*blocks, caption(front, form)])
