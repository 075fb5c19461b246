"""A model card: what a run trained, how well it does, what it cost and what limits it.

`card_of` computes a `Card`, whose numbers are those that the run logged or follow from its
predictions; `markdown` draws it, with the metadata of Hugging Face in front. What is missing says
why. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pepr_mlops.comparison import Question, clinical, subgroups
from pepr_mlops.comparison.prediction_checks import only_class
from pepr_mlops.comparison.predictions import Predictions
from pepr_mlops.comparison.sampling import Measured
from pepr_mlops.costs.carbon import gco2e
from pepr_mlops.names import COMPLEMENT, METRICS, PERFORMANCE
from pepr_mlops.report import label as labels
from pepr_mlops.report.card import facts, performance
from pepr_mlops.report.card.citations import citations
from pepr_mlops.report.card.facts import Facts, Standing
from pepr_mlops.report.card.performance import Measure, OfClass
from pepr_mlops.report.label import Label, References
from pepr_mlops.report.spending import cost_of, spent_words
from pepr_mlops.report.templates import MARKDOWN
from pepr_mlops.text import decimals, few, number
from pepr_mlops.tracking.read.inputs import Input

BLANK = "**[to be filled in by a person: "


@dataclass(frozen=True)
class Emissions:
    """CO2e of the training in grams, None where it is not known; in words with what it was computed
    from, or why it is missing; and the country of the grid where the run named it."""

    grams: float | None
    text: str
    country: str | None = None


@dataclass(frozen=True)
class Card:
    """A model card. `run` is the row of the frame of runs.

    `predicted` says why there are no predictions and is empty where there are. `test` and `val` are
    the metrics on these splits, `external` those of each external set, `groups` the frame of
    `subgroups.subgroups`, `bins` that of `clinical.curves`. `classes` are by name with the numbers
    of their images in `val` and `test`. `standing` is the place among the other runs.
    """

    run: pd.Series
    task: str
    predicted: str
    learnt_nothing: str | None
    p: Measure
    images: int | None
    test: tuple[Measure, ...]
    val: tuple[Measure, ...]
    external: Mapping[str, tuple[Measure, ...]]
    classes: tuple[tuple[str, int | None, int | None], ...]
    per_class: tuple[OfClass, ...]
    groups: pd.DataFrame
    bins: pd.DataFrame
    data: Facts
    splits: tuple[tuple[str, str, str, str], ...]
    training: Facts
    use: Facts
    search: tuple[str, ...]
    conditions: Facts
    emissions: Emissions
    standing: Standing
    limits: tuple[str, ...]
    citations: tuple[str, ...]
    label: Label

    @property
    def named(self) -> str:
        """The model and its data set."""
        return f"{self.run['model']} on {self.run['dataset']}"

    @property
    def summary(self) -> str:
        """What it classifies, how well, and at what cost."""
        names = [name for name, *_ in self.classes]
        into = f" into {len(names)} classes ({few(names, 10)})" if names else ""
        images = f" ({self.images:,} images)" if self.images else ""
        cost = facts.energy(self.run)
        hardware = self.run["hardware"]
        on = f" on {hardware}" if isinstance(hardware, str) else ""
        took = f"Training took {cost}{on}" if self.label.training.total else f"Energy: {cost}"
        nothing = f" It has learnt nothing: {self.learnt_nothing}." if self.learnt_nothing else ""
        return (
            f"{self.run['model']} classifies images of {self.run['dataset']}{into}. Its "
            f"{in_words(self.p.metric)}{images} is {interval(self.p)}.{nothing} {took}."
        )


def card_of(
    run: pd.Series,
    runs: pd.DataFrame,
    predictions: Predictions | str | None,
    inputs: Mapping[str, Input],
    standing: Standing,
    *,
    question: Question,
    references: References,
    made: str,
) -> Card:
    """The card of `run`, one of `runs`, all runs of its experiment, which are the search.

    `predictions` are as in `Evidence`, `inputs` those of the run by context.
    """
    known = predictions if isinstance(predictions, Predictions) else None
    test = performance.logged(run, "test") if known is None else performance.measures(known, "test")
    val = performance.logged(run, "val")
    if known is not None and known.val is not None:
        val = performance.measures(known, "val")
    train = inputs.get("train")
    p = _p(run, test, standing)
    groups = _groups(run, known, question)
    found = cost_of(runs.drop_duplicates("run_id"), question.intensity)
    return Card(
        run=run,
        task=facts.task(known),
        predicted="" if known is not None else _unpredicted(predictions),
        learnt_nothing=None if known is None else only_class(known),
        p=p,
        images=None if pd.isna(run["test_images"]) else int(run["test_images"]),
        test=_with_interval(test, p),
        val=val,
        external=facts.external(run),
        classes=_classes(known),
        per_class=() if known is None else performance.by_class(known),
        groups=groups,
        bins=pd.DataFrame() if known is None else clinical.curves({str(run["model"]): [known]}),
        data=facts.data(run),
        splits=facts.splits(run, known, inputs),
        training=facts.training(run, _emissions(run, question).text),
        use=facts.use(run),
        search=(facts.searched(runs), spent_words(found)),
        conditions=facts.conditions(run),
        emissions=_emissions(run, question),
        standing=standing,
        limits=facts.limits(run, known, p, standing),
        citations=citations(run),
        label=labels.label_of(run, train.images if train else None, references, made=made),
    )


def _unpredicted(why: str | Predictions | None) -> str:
    return why if isinstance(why, str) else "the run logged no predictions"


def _p(run: pd.Series, test: Sequence[Measure], standing: Standing) -> Measure:
    """P with its interval: by the predictions, or by its number of images in the comparison."""
    metric = run["performance_metric"]
    name = metric if isinstance(metric, str) else PERFORMANCE
    plain = name.removeprefix(COMPLEMENT).removeprefix("test/")
    value = float(run[PERFORMANCE]) if run[PERFORMANCE] == run[PERFORMANCE] else None
    if value is None:
        return Measure(name, None, missing="the run has none")
    for one in test:
        if one.metric == plain and one.low is not None and COMPLEMENT not in name:
            return Measure(name, value, one.low, one.high)
    if standing.interval is not None:
        return Measure(name, value, *standing.interval)
    return Measure(name, value, missing=performance.NOT_LOGGED)


def _with_interval(test: tuple[Measure, ...], p: Measure) -> tuple[Measure, ...]:
    """The metrics with the interval of P where the comparison alone knows one."""
    plain = p.metric.removeprefix("test/")
    same = {
        one.metric: one.low is None and one.metric == plain and p.low is not None for one in test
    }
    return tuple(replace(p, metric=plain) if same[one.metric] else one for one in test)


def _classes(known: Predictions | None) -> tuple[tuple[str, int | None, int | None], ...]:
    if known is None:
        return ()
    columns = [performance.counts(known, split) for split in ("val", "test")]
    none = [None] * len(known.classes)
    return tuple(zip(known.classes, columns[0] or none, columns[1] or none, strict=True))


def _groups(run: pd.Series, known: Predictions | None, question: Question) -> pd.DataFrame:
    metric = run["performance_metric"]
    if known is None or not isinstance(metric, str):
        return pd.DataFrame(columns=list(subgroups.COLUMNS))
    name = str(run["model"])
    drawn = {"draws": question.draws, "seed": question.seed}
    return subgroups.subgroups({name: [known]}, name, Measured.parse(metric), **drawn)


def _emissions(run: pd.Series, question: Question) -> Emissions:
    """At the requested grid intensity, else as the run logged them."""
    energy = run["energy_wh"]
    if energy != energy:
        return Emissions(None, labels.not_measured(run))
    if question.intensity is not None:
        pue = 1.0 if pd.isna(run["pue"]) else float(run["pue"])
        source = f"{question.intensity.g_per_kwh:g} g/kWh ({question.intensity.source})"
        grams = gco2e(float(energy), question.intensity, pue)
        country = question.intensity.country
    elif run["carbon_gco2e"] == run["carbon_gco2e"]:
        grams, pue, country = float(run["carbon_gco2e"]), run["pue"], run["country"]
        source = f"{number(run['carbon_intensity_g_per_kwh'])} g/kWh ({run['carbon_source']})"
    else:
        return Emissions(None, "not known: no grid intensity; give --country")
    pue_text = "" if pd.isna(pue) else f", PUE {pue:g}"
    text = f"{number(grams, 3)} g at {source}{pue_text}"
    return Emissions(grams, text, country if isinstance(country, str) else None)


def in_words(metric: str) -> str:
    """A metric in words."""
    split, _, name = metric.rpartition("/")
    return f"{name} on {split}".replace("_", " ") if split else metric


def interval(one: Measure) -> str:
    """A number with its interval, or why it is missing."""
    if one.value is None:
        return f"not known: {one.missing}"
    if one.low is None or one.high is None:
        return f"{decimals(one.value)} ({one.missing})"
    return f"{decimals(one.value)} (95% {decimals(one.low)} to {decimals(one.high)})"


def markdown(card: Card, metadata: str, svg: str, *, has_weights: bool) -> str:
    """The card as Markdown. `metadata` is YAML, `svg` the name of the file of the label."""
    return MARKDOWN.get_template("card.md").render(
        card=card,
        metadata=metadata,
        svg=svg,
        has_weights=has_weights,
        blank=BLANK,
        interval=interval,
        in_words=in_words,
        decimals=decimals,
        meaning={name.removeprefix("test/"): m.help for name, m in METRICS.items()},
        sentences=labels.sentences,
    )
