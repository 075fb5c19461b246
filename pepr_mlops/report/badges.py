"""What the answer of each comparison set rests on, a badge each: doubts impossible to overlook, and
an explanation behind each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from pepr_mlops.comparison import answer_text, left_out_counts
from pepr_mlops.comparison.answer import Answer
from pepr_mlops.comparison.conditions import NOT_KNOWN, energy_is
from pepr_mlops.comparison.draws import NOT_KNOWN as NO_NUMBER
from pepr_mlops.comparison.inference import doubtful
from pepr_mlops.comparison.notes import constant_text
from pepr_mlops.comparison.words import (
    CODES,
    OFF_BY,
    all_of,
    condition_name,
    count,
    difference_text,
    metric_words,
    sentence,
)
from pepr_mlops.names import DOUBTS, FORMS
from pepr_mlops.report.material import Material
from pepr_mlops.text import few

_DISTURBED = frozenset({"busy_cpu", "busy_machine", "other_processes"})
# Doubts about single models that have a badge of their own.
_EXPLAINED = (
    _DISTURBED
    | {"paused", "estimated", "estimated_time", "fewer_seeds"}
    | {f"{form}_estimated" for form in FORMS}
    | {doubt.code for doubt in DOUBTS}
)


@dataclass(frozen=True)
class Badge:
    """A few words about a comparison set, whether they are a `doubt`, and the `explanation`, which
    the page shows under the anchor `explained`."""

    comparison_set: str
    text: str
    explained: str
    explanation: str
    doubt: bool = False


@dataclass(frozen=True)
class _Set:
    """A comparison set: its row of `Material.sets`, its rows of `models` and `runs`, its answer."""

    material: Material
    name: str
    row: pd.Series
    models: pd.DataFrame
    runs: pd.DataFrame
    answer: Answer

    def trained_here(self, remedy: str) -> str:
        """A remedy for those who train the models, nothing for readers of published results."""
        return "" if self.material.imported(self.name) else f" {remedy}"


# A badge without its place: its text, explanation, and whether it is a doubt.
_Words = tuple[str, str, bool]


def badges(material: Material) -> list[Badge]:
    """The badges of the requested comparison sets, doubts first. Raises as `Material.answers`."""
    found = []
    for i, (name, answer) in enumerate(material.answers.items(), 1):
        row = material.sets.set_index("comparison_set").loc[name]
        of_set = _Set(
            *(material, name, row),
            *(material.models_of(name), material.runs_of(name), answer),
        )
        rows = [
            Badge(name, text, f"{topic}-{i}-{j}", explanation, doubt)
            for topic, rule in _RULES.items()
            for j, (text, explanation, doubt) in enumerate(rule(of_set), 1)
        ]
        found += sorted(rows, key=lambda badge: not badge.doubt)
    return found


def doubts(material: Material) -> list[str]:
    """The explanations of all doubts, each once, with its comparison sets where others lack it."""
    found: dict[str, list[str]] = {}
    for badge in badges(material):
        if badge.doubt:
            found.setdefault(badge.explanation, []).append(badge.comparison_set)
    every = len(material.main_sets)
    return [
        text if len(sets) == every else f"{all_of(sets)}: {text}" for text, sets in found.items()
    ]


def _of(n: int, rows: pd.DataFrame, word: str) -> str:
    """`2 of 6 models`, `all 6 models`, `both models`, `the only model`."""
    if n < len(rows):
        return f"{n:,} of {len(rows):,} {word}s"
    every = {1: f"the only {word}", 2: f"both {word}s"}
    return every.get(n, f"all {n:,} {word}s")


def _energy(one: _Set) -> Iterator[_Words]:
    if not one.material.energy_matters(one.name):
        return
    runs, source = one.runs, str(one.row["energy_source"])
    estimated, measured = energy_is(runs, "estimated"), energy_is(runs, "measured")
    imported = runs["imported_from"].dropna().unique()
    if estimated.any():
        n = int(estimated.sum())
        some = "" if n == len(runs) else f" for {_of(n, runs, 'run')}"
        yield (
            f"energy estimated{some}",
            f"The training energy of {_of(n, runs, 'run')} is estimated, off by "
            f"{OFF_BY}{constant_text(runs)}. Nothing bounds its error on the machine used."
            + one.trained_here(
                "Train on a machine with power sensors to measure it; `pepr doctor` says what a "
                "machine can measure."
            ),
            True,
        )
    elif measured.all():
        elsewhere = f" elsewhere ({', '.join(imported)})" if len(imported) else ""
        yield "energy measured", f"Training energy{_parts(runs)} was measured{elsewhere}.", False
    published = runs["energy_source"] == "imported"
    if published.any():
        where = f" ({', '.join(imported)})" if len(imported) else ""
        yield (
            "energy: published values",
            f"Energy and time of {_of(int(published.sum()), runs, 'run')} are published values"
            f"{where}; they were not measured here.",
            True,
        )
    elif NOT_KNOWN in source:
        yield (
            "energy of unknown origin",
            "The runs do not say whether their energy was measured or estimated."
            + one.trained_here("Runs of `pepr train` do."),
            True,
        )


def _parts(runs: pd.DataFrame) -> str:
    """What the energy counts."""
    found = sorted(set(runs["energy_components"].dropna()))
    if len(found) != 1:
        return ""
    parts = [part.partition("=")[0] for part in found[0].split(",")]
    return f" of {all_of([p if p == 'dram' else p.upper() for p in parts])}"


def _models(one: _Set) -> Iterator[_Words]:
    n, runs = len(one.models), int(one.row["runs"])
    trained = "was trained once" if runs == 1 else f"come from {runs:,} runs"
    if n == 1:
        alone = "Its cost cannot be normalised (R = 0), so its score equals its performance."
        yield "1 model", f"The only model {trained}. {alone}", True
    else:
        yield count(n, "model"), f"The {n:,} models {trained}.", False


def _seeds(one: _Set) -> Iterator[_Words]:
    low, high = int(one.models["n"].min()), int(one.models["n"].max())
    if high == 1:
        spread, metric = one.material.draws(one.name).spread, one.answer.metric
        assumed = ""
        if spread is not None:
            sd = difference_text(metric, spread.sd)
            assumed = f" The intervals use a standard deviation of {sd} ({spread.source})."
        yield (
            "1 run per model",
            "Each model was trained once, so its variation from run to run is not measured."
            f"{assumed}{one.trained_here('Train more seeds.')}",
            True,
        )
    elif low == high:
        yield f"{low} seeds each", f"Each number is the mean of {low} runs of a model.", False
    else:
        yield (
            f"{low} to {high} runs per model",
            f"Models have {low} to {high} runs; those with fewer are less certain."
            + one.trained_here("Train the missing seeds."),
            True,
        )


def _images(one: _Set) -> Iterator[_Words]:
    on_val = metric_words(one.answer.metric)["on"] == "validation"
    counts = [] if on_val else list(one.runs["test_images"].dropna().unique())
    if one.answer.split == "test" and one.answer.images:
        counts = [one.answer.images]
    unknown = one.models["no_interval"].ne("")
    if len(counts) == 1:
        n, no_number = int(counts[0]), one.models["no_interval"].str.contains(NO_NUMBER)
        who = "Every model was"
        if no_number.any():
            who = f"{_of(int((~no_number).sum()), one.models, 'model')} are known to be"
        yield (
            f"{n:,} test images",
            f"{who} tested on {n:,} images. {_approximate(one)}More images make the "
            "intervals narrower.",
            False,
        )
    if unknown.any():
        why = few(sorted(set(one.models.loc[unknown, "no_interval"])))
        yield (
            f"no interval: {count(int(unknown.sum()), 'model')}",
            f"The error of {_of(int(unknown.sum()), one.models, 'model')} is not known ({why}).",
            True,
        )


def _approximate(one: _Set) -> str:
    """That intervals of models without predictions are approximate, where there are such."""
    drawn = one.material.draws(one.name)
    n = sum(
        not sampled and not why for sampled, why in zip(drawn.sampled, drawn.missing, strict=True)
    )
    if not n:
        return ""
    who = (
        "No model logged" if n == len(one.models) else f"{_of(n, one.models, 'model')} did not log"
    )
    return f"{who} predictions of them, so differences between models are less exact. "


def _decided(one: _Set) -> Iterator[_Words]:
    answer = one.answer
    metric = metric_words(answer.metric)["name"]
    if answer.split == "val" and answer.metric == answer.decided_by:
        yield (
            "no result on a test set",
            f"The model is chosen by validation images, and its {metric} is that of the same "
            "images, so it is too good there. Choose a metric of the test set with --performance.",
            True,
        )
    elif answer.split == "val":
        yield (
            "chosen on validation",
            f"The model is chosen by validation images, so the test set had no part in the choice "
            f"and its {metric} is not flattered.",
            False,
        )
    else:
        remedy = one.trained_here("Log predictions of validation images to choose by them.")
        remedy *= answer.terms.decide_on is None
        without = f" {count(answer.without_val, 'run')} logged none." * (answer.without_val > 0)
        yield "chosen on the test set", f"{answer_text.optimism(answer)}.{remedy}{without}", True
    if answer.shift is not None:
        yield "validation and test disagree", f"{answer_text.shift(answer)}.", True


def _machine(one: _Set) -> Iterator[_Words]:
    machines = sorted(one.runs["hardware"].dropna().unique())
    if len(machines) == 1 and one.runs["hardware"].notna().all():
        yield machines[0], f"All costs are those of the same hardware, {machines[0]}.", False
    elif len(machines) > 1:
        yield (
            f"{len(machines)} kinds of hardware",
            f"The costs are those of {all_of(machines)}, so that they depend on the hardware, too.",
            True,
        )


def _disturbed(one: _Set) -> Iterator[_Words]:
    n = sum(not _DISTURBED.isdisjoint(codes) for codes in one.models["codes"])
    if n:
        yield (
            "measured while other programs ran",
            f"Other programs were running while {_of(n, one.models, 'model')} trained, so that "
            "time and energy may be overstated."
            + one.trained_here("Train again on an idle machine."),
            True,
        )
    n = sum("paused" in codes for codes in one.models["codes"])
    if n:
        yield (
            "training was suspended",
            f"Training of {_of(n, one.models, 'model')} was suspended for a while (Ctrl-Z, docker "
            "pause, sleep). The time excludes the pause, the measured energy includes it."
            + one.trained_here("Train again."),
            True,
        )


def _doubtful_images(one: _Set) -> Iterator[_Words]:
    for doubt in DOUBTS:
        counts = one.runs[doubt.code].dropna()
        if doubt.flagged and len(counts):
            yield (
                _IMAGES.get(doubt.code, "doubtful images"),
                f"{_of(len(counts), one.runs, 'run').capitalize()}: "
                f"{doubt.text(counts.iloc[0])}."
                + one.trained_here("Correct the images and train again."),
                True,
            )


_IMAGES = {
    "data_leak": "test images were trained on",
    "data_patients": "patients in two splits",
    "data_conflict": "contradictory labels",
    "data_few": "classes with few test images",
}


def _mixed(one: _Set) -> Iterator[_Words]:
    if not one.row["mixed"]:
        return
    differ = [condition_name(k) for k, v in one.row["shared"].items() if v == "several"]
    how = f": they differ in {all_of(differ)}" if differ else ""
    yield (
        "mixed conditions",
        f"The models were trained under different conditions{how}. Compare their costs with care.",
        True,
    )


def _subgroups(one: _Set) -> Iterator[_Words]:
    text = answer_text.subgroups(one.answer)
    if text is not None:
        yield "worse in a subgroup", f"{text}. Check these images before you use it.", True


def _estimated_otherwise(one: _Set) -> Iterator[_Words]:
    times = int((one.runs["time_source"] == "estimated").sum())
    if "T" in one.material.resources(one.name) and times:
        yield (
            "time estimated",
            f"The training time of {_of(times, one.runs, 'run')} is estimated.",
            True,
        )
    for form in FORMS:
        n = int(doubtful(one.runs, form, "energy_source").sum())
        if n:
            as_onnx = "" if form == FORMS[0] else " as ONNX"
            yield (
                f"energy of use{as_onnx} estimated",
                f"The energy of use{as_onnx} of {_of(n, one.runs, 'run')} is estimated, off by "
                f"{OFF_BY}. Nothing bounds its error on the machine used.",
                True,
            )


def _left_out(one: _Set) -> Iterator[_Words]:
    comparison = one.material.part(one.name).comparison
    out = comparison.runs[comparison.runs["experiment"] == one.row["experiment"]]
    out = out[~out["model"].isin(comparison.used["model"]) & out["model"].notna()]
    lost = list(dict.fromkeys(out["model"]))
    if lost:
        yield (
            f"{count(len(lost), 'model')} left out",
            f"{count(len(lost), 'more model')} could not be compared ({few(lost)}). "
            f"{'Its' if len(lost) == 1 else 'Their'} runs: {left_out_counts(out)}. "
            f"{'It' if len(lost) == 1 else 'One of them'} may be better.",
            True,
        )


_OTHERS = {
    "interrupted": "interrupted training",
    "coarse_counter": "coarse energy counter",
    "doubtful_import": "doubtful imported energy",
    "same_numbers": "copied numbers",
    "impossible_accuracy": "other test images",
    "predictions": "contradictory predictions",
    "one_class": "nothing learnt",
    "power": "impossible power",
    "same_energy": "repeated energy",
    "still_counter": "energy counter stood still",
    "inference_unstable": "unstable profile",
    "inference_disturbed": "disturbed profile",
    "inference_onnx_unstable": "unstable profile as ONNX",
    "inference_onnx_disturbed": "disturbed profile as ONNX",
}


def _other_doubts(one: _Set) -> Iterator[_Words]:
    """Doubts about models that no other badge is about."""
    codes = {code for row in one.models["codes"] for code in row}
    for code in sorted(codes - _EXPLAINED):
        rows = one.models[[code in row for row in one.models["codes"]]]
        yield (
            f"{_OTHERS.get(code, code)}: {count(len(rows), 'model')}",
            f"{sentence(CODES.get(code, code))}: {few(list(rows['label']))}. `pepr runs` says "
            "which runs and why.",
            True,
        )


_RULES: dict[str, Callable[[_Set], Iterator[_Words]]] = {
    "energy": _energy,
    "estimated": _estimated_otherwise,
    "seeds": _seeds,
    "decided": _decided,
    "disturbed": _disturbed,
    "images": _doubtful_images,
    "mixed": _mixed,
    "subgroups": _subgroups,
    "left-out": _left_out,
    "doubtful": _other_doubts,
    "machine": _machine,
    "models": _models,
    "test-images": _images,
}
