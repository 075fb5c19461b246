"""`pepr select`: the best model under budgets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli import options as asked
from pepr_mlops.cli.options import Command, option
from pepr_mlops.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison import Comparison
    from pepr_mlops.comparison.selection import Budget

_EXAMPLE = """
    \b
    Examples:
      pepr select --experiment derma --max memory_gb=4 --max energy_wh=20
      pepr select --experiment derma --max energy_wh=20 --min test/accuracy=0.8 --by score
      pepr select --experiment derma --resource E,M --max parameters=1e7 --format json
"""


@click.command(
    cls=Command,
    help="The best model within budgets, the runners-up, and what each budget excludes.\n\n"
    "A budget names P, a cost (E, energy_wh, memory_gb, train_time_s, parameters, …) or any "
    "metric, averaged over seeds. Also the Pareto set of P against the resources, and its knee.\n"
    + _EXAMPLE,
)
@asked.which
@asked.how
@option(
    "Essentials", "--max", "at_most", multiple=True, metavar="NAME=LIMIT", help="at most so much"
)
@option(
    "Essentials", "--min", "at_least", multiple=True, metavar="NAME=LIMIT", help="at least so much"
)
@option(
    "Essentials",
    "--by",
    type=click.Choice(["performance", "score"]),
    default="performance",
    show_default=True,
    help="what the best has most of; score is PePR by the first resource",
)
@option("Output", "--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="N")
@asked.output
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    at_most: tuple[str, ...],
    at_least: tuple[str, ...],
    by: str,
    top: int,
    form: str,
    out: Path | None,
    **options: Any,
) -> None:
    from pepr_mlops.cli.output import as_json, give, tell
    from pepr_mlops.comparison import tally

    limits = [
        _limit(word, kind) for kind, ws in (("max", at_most), ("min", at_least)) for word in ws
    ]
    asked_for = asked.read(experiments, tracking_uri, **options)
    found = asked.compared(asked_for)
    resources = asked_for.question.resources
    answers = [
        _answer(found, str(name), limits, resources, by, top)
        for name in found.sets["comparison_set"]
    ]
    tell([f"runs: {tally(found.runs)}", *found.notes])
    if form == "json":
        give(as_json([_for_programs(a) for a in answers]), out)
    else:
        give("\n\n".join(_for_people(a, form) for a in answers), out)
    if not any(a["fitting"] for a in answers):
        raise WorkFailed(
            "select: no model is within all budgets; the table says what each excludes"
        )


def _limit(word: str, kind: str) -> Budget:
    from pepr_mlops.comparison.selection import Budget

    name, equals, number = word.rpartition("=")
    try:
        limit = float(number)
    except ValueError:
        limit = float("nan")
    if not equals or not name or limit != limit:
        raise WrongUse(f"{kind}: {word!r} is not NAME=NUMBER, as energy_wh=20")
    return Budget("performance" if name == "P" else name, kind, limit)  # type: ignore[arg-type]


def _answer(
    found: Comparison,
    name: str,
    limits: list[Budget],
    resources: tuple[str, ...],
    by: str,
    top: int,
) -> dict[str, Any]:
    """All that is said about one comparison set."""
    from pepr_mlops.comparison import means, selection
    from pepr_mlops.comparison.runs import column
    from pepr_mlops.comparison.table import with_unit

    scores = found.scores[found.scores["comparison_set"] == name]
    scored_by = scores["resource"].iloc[0]
    keys = ["comparison_set", "model", "variant"]
    own = ["performance", "score", "n", "energy_source", "flags", "codes"]
    models = scores.loc[scores["resource"] == scored_by, [*keys, *own]]
    given = {b.column: b.column for b in limits if b.column not in ("performance", "score")}
    for taken in {*keys, *own} & given.keys():
        raise WrongUse(f"{taken}: no budget can be named so; it is a column of the answer")
    wanted = {k: column(found.used, k) for k in [*given, *resources]}
    models = models.merge(means(found, wanted), on=keys)
    models["model"] += models["variant"].map(lambda v: f" ({v})" if v else "")
    chosen = selection.select(models, limits, by)
    objectives = {"performance": "higher", **dict.fromkeys(resources, "lower")}
    front = models[selection.pareto(models, objectives)].sort_values(  # type: ignore[arg-type]
        "performance", ascending=False
    )
    at = selection.knee(models, "performance", resources[0])
    shown = [k for k, v in wanted.items() if k in given or v not in map(wanted.get, given)]
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
        "knee": None if at is None else models.loc[at, "model"],
        "columns": {"model": "model", "performance": "P", "score": f"PePR-{scored_by}"}
        | {k: with_unit(k) for k in shown}
        | {"energy_source": "energy", "codes": "flags"},
    }


def _for_programs(answer: dict[str, Any]) -> dict[str, Any]:
    frames = {k: answer[k] for k in ("runners_up", "budgets", "pareto")}
    return {
        **{k: v for k, v in answer.items() if k not in (*frames, "columns")},
        **{k: f.to_dict("records") for k, f in frames.items()},
    }


def _for_people(answer: dict[str, Any], form: str) -> str:
    import pandas as pd

    from pepr_mlops.cli.output import aside, text

    columns = answer["columns"]
    fit = f"{answer['comparison_set']}: {answer['fitting']} of {answer['models']} models fit"
    blocks = [aside(fit, form)]
    if answer["best"] is None:
        blocks.append(aside("No model is within all budgets.", form))
    else:
        best: pd.DataFrame = pd.DataFrame([answer["best"]])
        listed = pd.concat([best, answer["runners_up"]])
        blocks.append(aside(f"Best by {answer['by']}: {answer['best']['model']}", form))
        blocks.append(text(listed[list(columns)], form, columns))
    if len(answer["budgets"]):
        headings = {
            "budget": "budget",
            "excluded": "excludes",
            "only": "alone",
            "best": "without it",
            "needed": "needs",
            "gain": f"gain in {answer['by']}",
        }
        blocks.append(text(answer["budgets"], form, headings))
    _, *costs = answer["objectives"]
    front = (
        f"Pareto set of all models, P against {', '.join(costs)} ({len(answer['pareto'])}): "
        + ", ".join(answer["pareto"]["model"])
    )
    blocks.append(aside(front + (f"; knee: {answer['knee']}" if answer["knee"] else ""), form))
    return "\n\n".join(blocks)
