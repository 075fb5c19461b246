"""`pepr card`: a trained model described for people and for Hugging Face, with an energy label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pepr_mlops.cli.chosen import BEST, Chosen, choice_from, chosen_run, model_options
from pepr_mlops.cli.options import FILE, Command, Request, option, pairs, question
from pepr_mlops.cli.output import note, say, write
from pepr_mlops.errors import PeprError, WrongUse

if TYPE_CHECKING:
    from pepr_mlops.comparison.selected import Choice, Selected
    from pepr_mlops.report.card import Card
    from pepr_mlops.report.label import References


@click.command(cls=Command)
@click.argument("model", metavar="RUN|best")
@model_options
@option(
    "Output",
    "--label-reference",
    "JSON with the energies that the label compares with [default: the paper's, for training]",
    type=FILE,
    metavar="FILE",
)
@option(
    "Output",
    "--out",
    "the card; the label is written next to it",
    type=FILE,
    default="card.md",
    metavar="FILE",
)
def command(
    model: str,
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    label_reference: Path | None,
    out: Path,
    **options: Any,
) -> None:
    """Describe a trained model: its data, performance, cost and limits.

    RUN is the id of a run, and best the one that `pepr select` names first. The card is Markdown
    with the metadata of Hugging Face; the energy label is an SVG next to it. What only a person
    knows, such as the intended use, is a marked blank. What was not measured says so.

    \b
    Examples:
      pepr card best --experiment derma
      pepr card best --experiment derma --by performance --country DNK --out derma/README.md
      pepr card 0123456789abcdef0123456789abcdef --out card.md
    """
    from pepr_mlops.report import label
    from pepr_mlops.report.card import BLANK, markdown
    from pepr_mlops.report.card.metadata import metadata
    from pepr_mlops.tracking import read

    drawn = out.with_name(f"{out.name.removesuffix('.md')}.svg")
    if out.suffix == ".svg":
        raise WrongUse(
            f"out: {out} is to be Markdown, and the label is drawn next to it; name a .md"
        )
    references = label.references(label_reference)
    chosen = chosen_run(model, experiments, tracking_uri, **options)
    if not experiments:
        experiments = (read.experiment_of(chosen.run_id, tracking_uri=tracking_uri),)
    card = _card(chosen, experiments, tracking_uri, references, **options)
    has_weights = isinstance(card.run.get("tags.pepr.model"), str)
    text = markdown(card, metadata(card), drawn.name, has_weights=has_weights)
    write(out, text)
    write(drawn, label.svg(card.label))
    if model == BEST:
        note(chosen.text)
    say(out)
    say(card.summary)
    note(f"{text.count(BLANK)} blanks are left for a person, each marked {BLANK.strip('* ')} …]")


def _card(
    chosen: Chosen,
    experiments: Sequence[str],
    tracking_uri: str | None,
    references: References,
    **options: Any,
) -> Card:
    """Read what the card needs, and compute it."""
    from pepr_mlops.comparison import conditions
    from pepr_mlops.report.card import card_of
    from pepr_mlops.report.card.standing import believable, judged, standing
    from pepr_mlops.report.templates import made_now
    from pepr_mlops.tracking import read

    run_id = chosen.run_id
    runs = read.load_runs(list(experiments), tracking_uri=tracking_uri)
    own = runs[runs["run_id"] == run_id]
    if own.empty:
        raise WrongUse(
            f"run: {run_id!r} is no run of {', '.join(experiments)}; leave out --experiment, or "
            "name that of the run"
        )
    evidence = read.load_evidence(runs, tracking_uri=tracking_uri)
    choice = choice_from(options)
    matching = conditions.where(runs, pairs(options.pop("where")))
    request = Request(matching, question(**options), evidence)
    found, row = (
        chosen.selected or _selected(run_id, request, choice),
        judged(run_id, runs, evidence),
    )
    return card_of(
        own.iloc[0],
        runs,
        believable(row, evidence),
        read.load_inputs([run_id], tracking_uri=tracking_uri)[run_id],
        standing(row, found),
        question=request.question,
        references=references,
        made=made_now(),
    )


def _selected(run_id: str, request: Request, choice: Choice) -> Selected | str:
    """The choice in the comparison set of a run, or why it has none."""
    from pepr_mlops.comparison.selected import Selected

    if len(request.runs) == 1:
        return "it is the only run of its experiment"
    try:
        comparison = request.compare()
        names = comparison.runs.set_index("run_id")["comparison_set"]
        if not isinstance(names.get(run_id), str):
            return "this run was left out of the comparison"
        return Selected.of(comparison, request.question, str(names[run_id]), choice)
    except PeprError as error:
        return error.logged
