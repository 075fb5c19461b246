"""A report in words: which model is good enough, on what basis, and what to cite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pepr_mlops.comparison import Question, answer_text, lifetime_text
from pepr_mlops.comparison.conditions import NOT_KNOWN, about_energy, energy_is
from pepr_mlops.comparison.runs import column
from pepr_mlops.names import PATIENT, RESOURCES
from pepr_mlops.report.cautions import warnings
from pepr_mlops.report.material import Material
from pepr_mlops.report.spending import Spent, cost, spent_words

_REFERENCES = (
    "R. Selvan, B. Pepin, C. Igel, G. Samuel, E. B. Dam: PePR: Performance Per Resource Unit as a "
    "Metric to Promote Small-Scale Deep Learning in Medical Image Analysis. NLDL 2025, PMLR 265.",
    "L. F. W. Anthony, B. Kanding, R. Selvan: Carbontracker: Tracking and Predicting the Carbon "
    "Footprint of Training Deep Learning Models. ICML Workshop 2020, arXiv:2007.03051.",
    "European Environment Agency: CO2 performance of new passenger cars in Europe (107.5 g/km in "
    "2020).",
)
# Of statistical methods, by how `methods` cites them.
_STATISTICS = {
    "DeLong et al., 1988": "E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson: Comparing the Areas "
    "under Two or More Correlated Receiver Operating Characteristic Curves. Biometrics 44, 1988.",
    "Smyth, 2004": "G. K. Smyth: Linear Models and Empirical Bayes Methods for Assessing "
    "Differential Expression in Microarray Experiments. Statistical Applications in Genetics and "
    "Molecular Biology 3, 2004.",
    "Hsu, 1981": "J. C. Hsu: Simultaneous Confidence Intervals for All Distances from the 'Best'. "
    "Annals of Statistics 9, 1981.",
    "Edwards and Hsu, 1983": "D. G. Edwards, J. C. Hsu: Multiple Comparisons with the Best "
    "Treatment. Journal of the American Statistical Association 78, 1983.",
}
_CODECARBON = "B. Courty et al.: CodeCarbon, https://github.com/mlco2/codecarbon."
_ZEUS = "J. You, J.-W. Chung, M. Chowdhury: Zeus: Understanding and Optimizing GPU Energy Consumption of DNN Training. USENIX NSDI 2023."  # noqa: E501
_GRID = "Our World in Data: Carbon intensity of electricity, as CodeCarbon ships it."


@dataclass(frozen=True)
class Answer:
    """The answer for one comparison set in sentences without full stops: the `verdict`, the
    `reasons` for it, what the chosen model costs and saves, and `details`, what is undecided, what
    decided and what PePR chooses."""

    comparison_set: str
    verdict: str
    reasons: tuple[str, ...]
    details: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """The words of a report. `facts` are name and text, `warnings` must not be overlooked.

    `left_out` has `reason`, `runs` and `example`; `doubts` the same of flagged runs. `references`
    are what to cite in a text that uses `methods`.
    """

    answers: tuple[Answer, ...]
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    left_out: pd.DataFrame
    doubts: pd.DataFrame
    spent: Spent
    methods: str
    references: tuple[str, ...]
    notes: tuple[str, ...]


def summarise(material: Material, notes: Sequence[str] = ()) -> Summary:
    """Everything a page says about the requested comparison sets."""
    judged = pd.concat([p.comparison.runs for p in material.parts if p.main])
    spent = cost(material)
    stated = [note for p in material.parts if p.main for note in p.comparison.notes]
    described = methods(material, spent)
    return Summary(
        answers=tuple(answer(material, name) for name in material.main_sets),
        warnings=(*_subgroup_warnings(material), *warnings(material)),
        facts=tuple(facts(material)),
        left_out=_tally(judged[~judged["used"]], "reasons"),
        doubts=_tally(judged[judged["used"]], "flags"),
        spent=spent,
        methods=described,
        references=references(material, spent, described),
        notes=tuple(dict.fromkeys([*stated, *notes])),
    )


def _subgroup_warnings(material: Material) -> list[str]:
    """Where a model that is good enough is worse for some of the images."""
    texts = {name: answer_text.subgroups(found) for name, found in material.answers.items()}
    return [f"SUBGROUPS of {name}: {text}" for name, text in texts.items() if text is not None]


def answer(material: Material, comparison_set: str) -> Answer:
    """Which model is good enough, what it costs and saves, and what that rests on."""
    found = material.answers[comparison_set]
    name = found.choice or found.best
    reasons = [answer_text.performance(found, name)]
    reasons += [external] if (external := answer_text.external(found)) else []
    reasons += [saving] if (saving := answer_text.saving(found)) else []
    reasons += lifetime_text.sentences(found.lifetime)
    details = *answer_text.undecided(found), *answer_text.basis(found), answer_text.pepr(found)
    return Answer(comparison_set, answer_text.verdict(found), tuple(reasons), details)


_FACTS = {
    "dataset": "data set",
    "data_digest": "digest of the data",
    "fraction": "share of the training set",
    "image_size": "pixels per side",
    "epochs": "epochs",
    "batch_size": "batch size",
    "lr": "learning rate",
    "precision": "precision",
    "layout": "layout",
    "launch": "launch",
    "pretrained": "pretrained",
    "hardware": "hardware",
    "cpus": "CPUs",
    "threads": "threads",
    "gpu_mig": "MIG",
    "gpu_power_limit_w": "power limit of the GPU in W",
    "gpu_clocks_mhz": "clocks of the GPU in MHz",
    "performance_metric": "performance P",
}


def facts(material: Material) -> list[tuple[str, str]]:
    """What was compared, on what, and how the energy came about."""
    found = []
    for row in material.sets[material.sets["main"]].to_dict("records"):
        name, shared = row["comparison_set"], row["shared"]
        runs = material.runs_of(name)
        words = [
            f"{word} {shared[key]}"
            for key, word in _FACTS.items()
            if shared.get(key, NOT_KNOWN) != NOT_KNOWN
        ]
        components = sorted(runs["energy_components"].dropna().unique())
        energy = row["energy_source"] + (f" ({'; '.join(components)})" if components else "")
        methods = _energy_methods(runs)[:3]
        question = material.question(name)
        score = (
            f"{_formula(question.alpha)}, R of {_weighted(question)}, "
            f"{_NORMALISED[question.normalisation]} ({question.normalisation}); set "
            f"{row['fingerprint']}"
        )
        found += [
            (f"Compared in {name}", _counted(material, name, row["runs"])),
            ("Conditions", "; ".join(words)),
            ("Energy", f"{energy}, by {'; '.join(methods)}" if methods else energy),
            ("Score", score),
        ]
    return found


def _counted(material: Material, comparison_set: str, runs: int) -> str:
    """`4 models, some of them in several settings (6 runs)`."""
    rows = material.models_of(comparison_set)
    models = rows["model"].nunique()
    words = f"{models} model{'s' * (models != 1)}"
    words += ", some of them in several settings" if len(rows) > models else ""
    return f"{words} ({runs} run{'s' * (runs != 1)})"


def _formula(alpha: float) -> str:
    return "P / (1 + R)" if alpha == 1 else f"{alpha:g} P / ({alpha:g} + R)"


def _weighted(question: Question) -> str:
    if question.weights is None:
        return question.resources[0]
    pairs = zip(question.weights, question.resources, strict=True)
    return " + ".join(f"{weight:g} {name}" for weight, name in pairs)


def methods(material: Material, spent: Spent) -> str:
    """A paragraph for a methods section, of what is known."""
    sentences = []
    for row in material.sets[material.sets["main"]].to_dict("records"):
        name, shared = row["comparison_set"], row["shared"]
        question = material.question(name)
        data = shared.get("dataset", name)
        data = name if data in ("several", NOT_KNOWN, "none") else data
        models = _counted(material, name, row["runs"])
        sentences.append(f"We compared {models} on {data}{_clauses(shared)}.")
        if row["mixed"]:
            differ = ", ".join(_FACTS.get(k, k) for k, v in shared.items() if v == "several")
            why = f"the runs differ in {differ}" if differ else "the reference is of other ones"
            sentences.append(f"Conditions were MIXED: {why}.")
        sentences.append(_energy_sentence(material.runs_of(name), row["energy_source"]))
        sentences.append(
            f"Performance per resource unit is PePR-{row['scored_by']} = "
            f"{_formula(question.alpha)} (Selvan et al., 2025) with P the "
            f"{material.performance_name(name)} and R the {_resource_words(question)}, "
            f"{_NORMALISED[question.normalisation]}."
        )
        sentences += _uncertainty(material, name)
    took = "" if spent.energy_kwh is None else "The full experiment used "
    sentences.append(f"{took}{spent_words(spent)}")
    return " ".join(sentences)


def _uncertainty(material: Material, comparison_set: str) -> list[str]:
    """What the intervals account for, and how models were chosen."""
    question, found = material.question(comparison_set), material.answers[comparison_set]
    runs, drawn = material.runs_of(comparison_set), material.draws(comparison_set)
    sentences = [f"The 95 % intervals are those of {question.draws:,} draws."]
    sentences += [_image_sentence(material, comparison_set)] if not all(drawn.missing) else []
    if drawn.spread is None:
        sentences.append(
            "The variance between the runs of a model was moderated towards that of all models "
            "(Smyth, 2004)."
        )
    else:
        sentences.append(
            "P was taken to vary between runs with a standard deviation of "
            f"{drawn.spread.sd:.2g} ({drawn.spread.source})."
        )
    names = question.resources if question.weights else question.resources[:1]
    if about_energy([column(runs, name) for name in names]):
        estimated = energy_is(runs, "estimated")
        common, own = question.estimate_error
        if not estimated.all():
            sentences.append(
                f"Measured energies were taken to err by {question.energy_error:.0%}, each model "
                "by itself."
            )
        if estimated.any():
            sentences.append(
                f"Estimated energies were taken to err by {common:.0%} in all models of a machine "
                f"together and by {own:.0%} in each."
            )
    split = "on validation, and P is reported on the test set"
    if found.split == "test":
        split = "on the test set, on which P is also reported"
    terms = found.terms
    return [
        *sentences,
        f"A model counts as good enough if its {found.decided_by} is no more than {terms.margin:g} "
        f"below that of the best model, with {terms.level:.0%} confidence by multiple comparisons "
        f"with the best (Hsu, 1981; Edwards and Hsu, 1983). Models were chosen {split}.",
    ]


def _image_sentence(material: Material, comparison_set: str) -> str:
    """How the intervals account for the test images."""
    drawn = material.draws(comparison_set)
    if not drawn.sampled.any():
        return "P was given the binomial error of as many independent images."
    predictions = material.part(comparison_set).comparison.known.predictions
    ids = material.runs_of(comparison_set)["run_id"]
    patients = any(PATIENT in predictions[i].test.groups for i in ids if i in predictions)
    what = "Patients with all their images" if patients else "Images"
    text = f"{what} were drawn with replacement, the same for all models that share a test set"
    if not drawn.sampled.all():
        text += "; models without predictions got the binomial error of as many independent images"
    if material.performance_name(comparison_set).endswith("auc"):
        text += "; AUC was drawn to first order (DeLong et al., 1988)"
    return f"{text}."


_NORMALISED = {
    "minmax": "normalised from the least to the greatest cost of the models compared",
    "zero": "normalised by the greatest cost of the models compared",
    "robust": "normalised between quantiles of the costs of the models compared",
    "reference": "normalised by fixed reference bounds",
}


def _clauses(shared: Mapping[str, str]) -> str:
    """How the runs of a set were trained, where that is one known value."""
    known = {k: v for k, v in shared.items() if v not in ("several", NOT_KNOWN, "none")}
    starts = {"true": "fine-tuned from pretrained weights", "false": "trained from scratch"}
    found = [starts[known["pretrained"]]] if known.get("pretrained") in starts else []
    for key, clause, usual in (
        ("fraction", "on {} of the training data", "1"),
        ("epochs", "for {} epochs", ""),
        ("batch_size", "with a batch size of {}", ""),
        ("lr", "a learning rate of {}", ""),
        ("image_size", "images of {0}×{0} pixels", ""),
        ("precision", "{} arithmetic", ""),
        ("layout", "the memory layout {}", "contiguous"),
        ("launch", "each step launched as a CUDA {}", "kernels"),
        ("hardware", "on {}", ""),
    ):
        if known.get(key, usual) != usual:
            found.append(clause.format(known[key]))
    return "".join(f", {clause}" for clause in found)


def references(material: Material, spent: Spent, described: str) -> tuple[str, ...]:
    """What to cite in a text that uses the methods as `described`."""
    runs = pd.concat([p.found for p in material.parts if p.main])
    tools = " ".join(_energy_methods(runs)).lower()
    found = [_REFERENCES[0], *(text for cited, text in _STATISTICS.items() if cited in described)]
    found += [_CODECARBON] if "codecarbon" in tools else []
    found += [_ZEUS] if "zeus" in tools or "nvml" in tools or "rapl" in tools else []
    found += [_GRID] if "Our World in Data" in spent.intensity else []
    if spent.car_km is not None or "carbontracker" in tools:
        found += _REFERENCES[1:]
    return tuple(found)


def _energy_methods(runs: pd.DataFrame) -> list[str]:
    """What read or estimated the energy, without why components were not measured."""
    known = runs.get("tags.pepr.energy_method", pd.Series(dtype=str)).dropna()
    return sorted({re.split(r"[;,]? not measured", text)[0] for text in known})


def _energy_sentence(runs: pd.DataFrame, source: str) -> str:
    methods = _energy_methods(runs)
    by = f" by {'; '.join(methods[:3])}" if methods else ""
    sentences = {
        "measured": f"Training energy was measured{by}.",
        "estimated": f"Training energy was ESTIMATED{by}, not measured.",
        "imported": f"Energy and time are those published with the imported results{by}.",
        NOT_KNOWN: "It is not known how the energy was obtained.",
        "none": "Energy was not measured.",
    }
    return sentences.get(source, f"Energy is of several kinds: {source}{by}.")


def _resource_words(question: Question) -> str:
    """The costs behind the main score, with their weights."""
    names = [RESOURCES[r].help if r in RESOURCES else r for r in question.resources]
    if question.weights is None:
        return names[0]
    return " and ".join(f"{n} (weight {w:g})" for n, w in zip(names, question.weights, strict=True))


def _tally(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """How many runs each reason has, with one as an example."""
    rows: dict[str, list[str]] = {}
    for run in runs.to_dict("records"):
        # the first code of a run that was left out is why; its doubts come after
        for code in run["codes"][:1] if column == "reasons" else run["codes"]:
            rows.setdefault(code, []).append(f"{run['model']}: {'; '.join(run[column])}")
    table = [(code.replace("_", " "), len(texts), texts[0]) for code, texts in rows.items()]
    return pd.DataFrame(table, columns=["reason", "runs", "example"])
