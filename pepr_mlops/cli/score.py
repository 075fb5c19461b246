"""`pepr score`: the models of an experiment by performance per resource unit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.options import (
    FILE,
    Command,
    load_request,
    option,
    output_options,
    run_options,
    score_options,
)
from pepr_mlops.cli.output import as_json, caption, note, render, say, say_or_write
from pepr_mlops.cli.output import write as write_file
from pepr_mlops.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    import pandas as pd

    from pepr_mlops.comparison import Comparison


@click.command(cls=Command)
@run_options
@score_options
@output_options
@option("Output", "--top", "only the best N, in tables", type=click.IntRange(min=1), metavar="N")
@option(
    "Tracking",
    "--write",
    "log the scores to the runs as metrics pepr/*, for MLflow's UI",
    is_flag=True,
)
@option(
    "Score", "--save-reference", "save the bounds of R for later scores", type=FILE, metavar="FILE"
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
    """Score the models of one or several experiments by PePR = P / (1 + R).

    Seeds are averaged per model. R is the cost normalised over the models of one comparison set:
    runs of an experiment with the same data, training and hardware.

    \b
    Examples:
      pepr score --experiment derma
      pepr score --experiment derma --resource E,M,T --normalisation zero --top 10
      pepr score --experiment derma --resource E,M --resource-weights 0.7,0.3 --alpha 2
      pepr score --experiment derma --resource C --country DNK --format csv --out scores.csv
      pepr score --experiment their-runs --performance val_acc --resource train_s --model-param arch
    """
    from pepr_mlops.comparison import tally
    from pepr_mlops.tracking.score_tags import changed_scores, metric_name, superseded

    request = load_request(experiments, tracking_uri, **options)
    question = request.question
    try:
        comparison = request.compare()
    except WorkFailed:
        if write:  # runs that were scored before are no longer in a comparison set
            names = ["+".join(question.resources)] if question.weights else question.resources
            outdated = superseded(request.runs, [metric_name(name) for name in names])
            say(log(outdated, tracking_uri), err=True)
        raise
    if write and question.mixed == "allow":
        raise WrongUse(
            "write: in MLflow mixed scores would look like any other; drop --allow-mixed"
        )
    if save_reference is not None:
        save(comparison, save_reference)
    note(f"runs: {tally(comparison.runs)}", *comparison.notes)
    say_or_write(rendered(comparison, form, top), out)
    if write:
        say(log(changed_scores(comparison, request.runs), tracking_uri), err=True)


def rendered(comparison: Comparison, form: str, top: int | None) -> str:
    """The scores in a form."""
    from pepr_mlops.comparison.table import column, readable

    if form in ("csv", "json"):
        return render(comparison.scores, form)
    blocks = []
    sets = comparison.sets.set_index("comparison_set")
    for name, scores in comparison.scores.groupby("comparison_set", sort=False):
        about = sets.loc[name]
        counts = [f"{about[n]} {n[:-1] if about[n] == 1 else n}" for n in ("models", "runs")]
        title = f"{name}: {', '.join(counts)}, "
        title += f"energy {about['energy_source']}, set {about['fingerprint']}"
        rows, keys = _one_row_per_model(scores)
        cells = readable(rows.assign(codes=rows["codes"].str.join(", ")), keys)
        headings = {key: column(key).heading for key in keys} | {"n": "n"}
        blocks += [caption(title, form), render(cells.head(top) if top else cells, form, headings)]
        flags = Counter(code for codes in rows["codes"] for code in codes).most_common()
        if flags:
            lines = "\n".join(f"{code}: {n} of {len(rows)} models" for code, n in flags)
            blocks.append(caption(lines, form))
    return "\n\n".join(blocks)


def _one_row_per_model(scores: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Models by the rank of the first score, and the columns to show (`comparison.table`)."""
    names = list(dict.fromkeys(scores["resource"]))
    scores = scores.rename(columns={"performance": "P", "performance_sd": "P_sd"})
    rows = scores[scores["resource"] == names[0]].copy()
    keys = ["rank", "model", "variant", "n", "P", "P_sd", "p_interval"]
    if not (rows["variant"] != "").any():
        keys.remove("variant")
    if not (rows["n"] > 1).any():
        keys.remove("P_sd")
    models = list(zip(rows["model"], rows["variant"], strict=True))
    for name in names:
        own = scores[scores["resource"] == name].set_index(["model", "variant"]).loc[models]
        for what in ("cost", "R", "score"):
            rows[f"{what} {name}"] = own[what].to_numpy()
        keys += [
            f"{w} {name}" for w in ("cost", "R", "score") if w != "cost" or own[w].notna().any()
        ]
    if len(names) == 1:
        keys += ["interval", "ranks"]
    if rows["codes"].str.len().any():
        keys.append("codes")
    return rows, keys


def save(comparison: Comparison, path: Path) -> None:
    """Write the bounds of the one comparison set to a file."""
    if len(comparison.sets) != 1:
        names = ", ".join(comparison.sets["comparison_set"])
        raise WrongUse(f"save-reference: bounds belong to one comparison set; these are {names}")
    write_file(path, as_json(comparison.reference.as_dict()) + "\n", "save-reference")
    say(f"reference written to {path}", err=True)


def log(scores: pd.DataFrame, tracking_uri: str | None) -> str:
    """Log the scores to their runs, and report what was done."""
    from pepr_mlops.tracking.score_tags import write_scores

    changed, withdrawn = write_scores(scores, tracking_uri)
    removed = f", removed from {withdrawn} that left their set" if withdrawn else ""
    return f"scores written to {changed} runs{removed}: metrics pepr/*, tags pepr.scored.*"
