"""`pepr score`: the models of an experiment by performance per resource unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli import options as asked
from pepr_mlops.cli.options import Command, option
from pepr_mlops.cli.output import say
from pepr_mlops.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison import Comparison, Question

_EXAMPLE = """
    \b
    Examples:
      pepr score --experiment derma
      pepr score --experiment derma --resource E,M,T --normalisation zero --top 10
      pepr score --experiment derma --resource E,M --resource-weights 0.7,0.3 --alpha 2
      pepr score --experiment derma --resource C --country DNK --format csv --out scores.csv
      pepr score --experiment their-runs --performance val_acc --resource train_s --model-param arch
"""


@click.command(
    cls=Command,
    help="Score the models of one or several experiments by PePR = P / (1 + R).\n\n"
    "Seeds are averaged per model. R is the cost normalised over the models of one comparison set: "
    "runs of an experiment with the same data, training and hardware.\n" + _EXAMPLE,
)
@asked.which
@asked.how
@asked.output
@option("Output", "--top", type=click.IntRange(min=1), metavar="N", help="the best only, in tables")
@option(
    "Tracking",
    "--write",
    is_flag=True,
    help="log the scores to the runs as metrics pepr/*, for MLflow's UI",
)
@option(
    "Score",
    "--save-reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="keep the bounds of R for later scores",
)
def command(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    form: str,
    out: Path | None,
    top: int | None,
    write: bool,
    save_reference: Path | None,
    **options: Any,
) -> None:
    from pepr_mlops.cli.output import give, tell
    from pepr_mlops.comparison import tally
    from pepr_mlops.tracking.score_tags import changed_scores, metric_name, superseded

    asked_for = asked.read(experiments, tracking_uri, **options)
    runs, question = asked_for.runs, asked_for.question
    try:
        found = asked.compared(asked_for)
    except WorkFailed:
        if write:  # what has a score is in no comparison set any more
            name = "+".join(question.resources) if question.weights else None
            names = [metric_name(n) for n in ([name] if name else question.resources)]
            say(log(superseded(runs, names), tracking_uri), err=True)
        raise
    if write and question.mixed == "allow":
        raise WrongUse("write: MLflow would show mixed scores as any others; drop --allow-mixed")
    if save_reference is not None:
        save(found, save_reference)
    tell([f"runs: {tally(found.runs)}", *found.notes, *_about_intervals(found, question)])
    give(written(found, form, top), out)
    if write:
        say(log(changed_scores(found, runs), tracking_uri), err=True)


def _about_intervals(found: Comparison, question: Question) -> list[str]:
    """What the intervals hold, where it is little."""
    from pepr_mlops.comparison.conditions import about_energy
    from pepr_mlops.comparison.runs import column

    if found.scores["n"].max() > 1:
        return []
    words = "one run per model: intervals hold no error of training"
    if about_energy([column(found.used, name) for name in question.resources]):
        return [f"{words}, and of energy {question.energy_error:.0%} (--energy-error)"]
    return [f"{words}, and none of these costs"]


def written(found: Comparison, form: str, top: int | None) -> str:
    """The scores in a form."""
    from pepr_mlops.cli.output import aside, text

    if form in ("csv", "json"):
        return text(found.scores, form)
    blocks = []
    for name, scores in found.scores.groupby("comparison_set", sort=False):
        rows, columns = _side_by_side(scores)
        title = _title(found, str(name))
        shown = text(rows.head(top) if top else rows, form, columns)
        blocks.append(f"{aside(title, form)}\n\n{shown}")
        told = _legend(rows)
        if told:
            blocks.append(aside(told, form))
    return "\n\n".join(blocks)


def _title(found: Comparison, name: str) -> str:
    s = found.sets.set_index("comparison_set").loc[name]
    return (
        f"{name}: {s['models']} models, {s['runs']} runs, energy {s['energy_source']}, "
        f"set {s['fingerprint']}"
    )


def _side_by_side(scores: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row per model by the rank of the first score, and the columns to show."""
    from pepr_mlops.comparison.intervals import interval_texts
    from pepr_mlops.comparison.table import column

    names = list(dict.fromkeys(scores["resource"]))
    scores = scores.rename(columns={"performance": "P", "performance_sd": "P_sd"})
    first = scores[scores["resource"] == names[0]].copy()
    shown = ["rank", "model", "variant", "n", "P", "P_sd"]
    if not (first["variant"] != "").any():
        shown.remove("variant")
    if not (first["n"] > 1).any():
        shown.remove("P_sd")
    keys = ["model", "variant"]
    at = list(zip(first["model"], first["variant"], strict=True))
    for name in names:
        of = scores[scores["resource"] == name].set_index(keys)
        for what in ("cost", "R", "score"):
            first[f"{what} {name}"] = of.loc[at, what].to_numpy()
        if first[f"cost {name}"].notna().any():
            shown.append(f"cost {name}")
        shown += [f"R {name}", f"score {name}"]
    if len(names) == 1:
        first["interval"], first["ranks"] = interval_texts(first)
        shown += ["interval", "ranks"]
    if first["codes"].str.len().any():
        shown.append("codes")
    return first, {key: column(key).heading for key in shown} | {"n": "n"}


def _legend(rows: pd.DataFrame) -> str:
    """What each flag means, by its first case and how many models have it."""
    from collections import Counter

    counts = Counter(code for codes in rows["codes"] for code in codes)
    return "\n".join(f"{code}: {n} of {len(rows)} models" for code, n in counts.most_common())


def save(found: Comparison, path: Path) -> None:
    """Write the bounds of the one comparison set to a file."""
    if len(found.sets) != 1:
        names = ", ".join(found.sets["comparison_set"])
        raise WrongUse(f"save-reference: bounds are of one comparison set; these are {names}")
    try:
        path.write_text(json.dumps(found.reference.as_dict(), indent=2) + "\n")
    except OSError as error:
        raise WrongUse(f"save-reference: {path} cannot be written ({error.strerror})") from error
    say(f"reference written to {path}", err=True)


def log(scores: pd.DataFrame, tracking_uri: str | None) -> str:
    """Log the scores to their runs; what was done, in words."""
    from pepr_mlops.tracking import write_scores

    changed, withdrawn = write_scores(scores, tracking_uri)
    return (
        f"scores written to {changed} runs"
        + (f", taken from {withdrawn} that left their set" if withdrawn else "")
        + ": metrics pepr/*, tags pepr.scored.*"
    )
