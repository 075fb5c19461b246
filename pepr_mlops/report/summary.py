"""A report in words: which model is good enough, on what basis, and what to cite."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pepr_mlops.comparison import Question, answer_text, lifetime_text
from pepr_mlops.comparison.conditions import NOT_KNOWN, about_energy, energy_is
from pepr_mlops.comparison.notes import Explained
from pepr_mlops.comparison.runs import column
from pepr_mlops.comparison.words import (
    all_of,
    condition_name,
    condition_words,
    cost_words,
    count,
    left_out_words,
    margin_text,
    metric_words,
)
from pepr_mlops.names import FORMS, PATIENT
from pepr_mlops.report import works
from pepr_mlops.report.material import Material, scored_by
from pepr_mlops.report.spending import Spent, cost, spent_words
from pepr_mlops.report.works import Work
from pepr_mlops.text import few

# Of statistical methods, by how `methods` cites them.
_STATISTICS = {
    "DeLong et al., 1988": works.DELONG,
    "Smyth, 2004": works.SMYTH,
    "Hsu, 1981": works.HSU,
    "Edwards and Hsu, 1983": works.EDWARDS,
}


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
    """The words of a report. `facts` are the name and the text of what was compared, by comparison
    set.

    `left_out` are runs that are not compared and `doubts` runs that are, as `_tally`. `references`
    are what to cite in a text that uses `methods`, and `bibtex` the same as a file.
    """

    answers: tuple[Answer, ...]
    facts: Mapping[str, tuple[tuple[str, str], ...]]
    left_out: pd.DataFrame
    doubts: pd.DataFrame
    spent: Spent
    methods: str
    references: tuple[str, ...]
    bibtex: str
    notes: tuple[str, ...]


def summarise(material: Material, notes: Sequence[str] = ()) -> Summary:
    """Everything a page says about the requested comparison sets."""
    judged = pd.concat([p.comparison.runs for p in material.parts if p.main])
    spent = cost(material)
    described = methods(material, spent)
    cited = references(material, spent, described)
    return Summary(
        answers=answers(material),
        facts={name: tuple(facts(material, name)) for name in material.main_sets},
        left_out=_tally(judged[~judged["used"]], "reasons"),
        doubts=_tally(judged[judged["used"]], "flags"),
        spent=spent,
        methods=described,
        references=tuple(work.text for work in cited),
        bibtex="\n\n".join(work.bibtex for work in cited),
        notes=all_notes(material, notes),
    )


def all_notes(material: Material, notes: Sequence[str]) -> tuple[str, ...]:
    """The notes of the comparisons that no badge explains, and then others, each once."""
    stated = [
        note
        for p in material.parts
        if p.main
        for note in p.comparison.notes
        if not isinstance(note, Explained)
    ]
    return tuple(dict.fromkeys([*stated, *notes]))


def answers(material: Material) -> tuple[Answer, ...]:
    """The answers for the requested comparison sets."""
    return tuple(answer(material, name) for name in material.main_sets)


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


# Conditions by what they are about; those without a value are left out.
_FACTS = {
    "Data": ("dataset", "image_size", "fraction", "data_digest"),
    "Training": ("pretrained", "epochs", "batch_size", "lr", "precision", "layout", "launch"),
    "Machine": ("hardware", "cpus", "threads", "gpu_mig", "gpu_power_limit_w", "gpu_clocks_mhz"),
}
_USUAL = {"fraction": "1", "gpu_mig": "off"}


def facts(material: Material, comparison_set: str) -> Iterator[tuple[str, str]]:
    """What was compared, on what, and how energy and score came about."""
    row, runs = _row(material, comparison_set), material.runs_of(comparison_set)
    yield "Compared", f"{_counted(material, comparison_set)}."
    for title, names in _FACTS.items():
        words = [
            f"{condition_name(name)} differs" if text == "several"
            else condition_words(name, text)
            for name in names
            if (text := row["shared"].get(name, NOT_KNOWN)) not in (NOT_KNOWN, _USUAL.get(name))
        ]  # fmt: skip
        if words:
            yield title, f"{', '.join(words)}."
    yield "Energy", _energy_sentence(runs, row["energy_source"])
    yield (
        "Score",
        f"{_score_sentence(material, comparison_set)} Fingerprint: {row['fingerprint']}.",
    )


def _row(material: Material, comparison_set: str) -> pd.Series:
    """The row of `Material.sets`."""
    return material.sets.set_index("comparison_set").loc[comparison_set]


def _counted(material: Material, comparison_set: str) -> str:
    """`4 models, some of them in several settings (6 runs)`."""
    rows = material.models_of(comparison_set)
    models = rows["model"].nunique()
    words = count(models, "model")
    words += ", some of them in several settings" if len(rows) > models else ""
    return f"{words} ({count(int(_row(material, comparison_set)['runs']), 'run')})"


def _formula(alpha: float) -> str:
    return "P / (1 + R)" if alpha == 1 else f"{alpha:g} P / ({alpha:g} + R)"


def methods(material: Material, spent: Spent) -> str:
    """Text for a methods section, of what is known: a paragraph for each comparison set, and what
    all of them share in the last one."""
    every = [_sentences(material, name) for name in material.main_sets]
    rest = [set(sentences[1:]) for sentences in every]  # the first one names what was compared
    shared = set.intersection(*rest) if len(every) > 1 else set()
    paragraphs = [[s for s in sentences if s not in shared] for sentences in every]
    paragraphs.append([s for s in every[0] if s in shared] if shared else [])
    took = "" if spent.energy_kwh is None else "The full experiment used "
    paragraphs[-1].append(f"{took}{spent_words(spent)}")
    return "\n".join(" ".join(sentences) for sentences in paragraphs)


def _sentences(material: Material, name: str) -> list[str]:
    """What was compared in a comparison set, and how."""
    row = _row(material, name)
    shared = row["shared"]
    data = shared.get("dataset", name)
    data = name if data in ("several", NOT_KNOWN, "none") else data
    sentences = [f"We compared {_counted(material, name)} on {data}{_clauses(shared)}."]
    if row["mixed"]:
        differ = [condition_name(k) for k, v in shared.items() if v == "several"]
        why = f"the runs differ in {all_of(differ)}"
        why = why if differ else "costs are normalised by those of other conditions"
        sentences.append(f"Conditions were mixed: {why}.")
    sentences.append(_energy_sentence(material.runs_of(name), row["energy_source"]))
    sentences.append(_score_sentence(material, name))
    return [*sentences, *_uncertainty(material, name)]


def _score_sentence(material: Material, comparison_set: str) -> str:
    """The formula of the score, and what is in it."""
    question = material.question(comparison_set)
    metric = metric_words(material.performance_name(comparison_set))
    on = f" on {metric['on']}" if metric["on"] else ""
    return (
        f"Performance per resource unit is PePR-{scored_by(question)} = "
        f"{_formula(question.alpha)} (Selvan et al., 2025), where P is the {metric['name']}{on} "
        f"and R the {_resource_words(question)}, {_NORMALISED[question.normalisation]}."
    )


def _uncertainty(material: Material, comparison_set: str) -> list[str]:
    """What the intervals account for, and how models were chosen."""
    question, found = material.question(comparison_set), material.answers[comparison_set]
    runs, drawn = material.runs_of(comparison_set), material.draws(comparison_set)
    sentences = [f"The 95% intervals come from {question.draws:,} draws."]
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
        estimated, imported = energy_is(runs, "estimated"), energy_is(runs, "imported")
        common, own = question.estimate_error
        if not estimated.all():
            sentences.append(
                f"{'Published' if imported.all() else 'Measured'} energies were taken to err by "
                f"{100 * question.energy_error:g}%, each model by itself."
            )
        if estimated.any():
            sentences.append(
                f"Estimated energies were taken to err by {100 * common:g}% in all models of a "
                f"machine together and by {100 * own:g}% in each."
            )
    split = "on validation, and P is reported on the test set"
    if found.split == "test":
        split = "on the test set, on which P is also reported"
    terms, decided = found.terms, metric_words(found.decided_by)
    on = f" on {decided['on']}" if decided["on"] else ""
    return [
        *sentences,
        f"A model counts as good enough if its {decided['name']}{on} is at most "
        f"{margin_text(found.decided_by, terms.margin)} below that of the best model, with "
        f"{100 * terms.level:g}% confidence by multiple comparisons with the best (Hsu, 1981; "
        f"Edwards and Hsu, 1983). Models were chosen {split}.",
    ]


def _image_sentence(material: Material, comparison_set: str) -> str:
    """How the intervals account for the test images."""
    drawn = material.draws(comparison_set)
    if not drawn.sampled.any():
        return "P was taken to have the binomial error of as many independent images."
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


def references(material: Material, spent: Spent, described: str) -> list[Work]:
    """What to cite in a text that uses the methods as `described`."""
    runs = pd.concat([p.found for p in material.parts if p.main])
    tools = " ".join(_energy_methods(runs)).lower()
    found = [works.PEPR, *(work for cited, work in _STATISTICS.items() if cited in described)]
    found += [works.CODECARBON] if "codecarbon" in tools else []
    found += [works.ZEUS] if any(word in tools for word in ("zeus", "nvml", "rapl")) else []
    found += [works.GRID] if "Our World in Data" in spent.intensity else []
    if spent.car_km is not None or "carbontracker" in tools:
        found += [works.CARBONTRACKER, works.CARS]
    return found


def _energy_methods(runs: pd.DataFrame) -> list[str]:
    """What read or estimated the energy, without why components were not measured."""
    known = runs.get("tags.pepr.energy_method", pd.Series(dtype=str)).dropna()
    return sorted({re.split(r"[;,]? not measured", text)[0] for text in known})


def _energy_sentence(runs: pd.DataFrame, source: str) -> str:
    methods = _energy_methods(runs)
    by = f" by {'; '.join(methods[:3])}" if methods else ""
    sentences = {
        "measured": f"Training energy was measured{by}.",
        "estimated": f"Training energy was estimated{by}, not measured.",
        "imported": f"Energy and time are those published with the imported results{by}.",
        NOT_KNOWN: "It is not known how the energy was obtained.",
        "none": "Energy was not measured.",
    }
    return sentences.get(source, f"Energy is of several kinds: {source}{by}.")


def _resource_words(question: Question) -> str:
    """The costs behind the main score, with their weights."""
    names = [cost_words(r)["name"] for r in question.resources]
    if question.weights is None:
        return names[0]
    pairs = zip(names, question.weights, strict=True)
    return all_of([f"{name} (weight {weight:g})" for name, weight in pairs])


# Flags of every run of an estimate, which a badge explains.
_ESTIMATES = {"estimated", "estimated_time", *(f"{form}_estimated" for form in FORMS)}


def _tally(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """For each `reason` how many `runs` it has, the `models` they are of, and of one the `example`
    in numbers."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for run in runs.to_dict("records"):
        # the first code of a run that was left out is why; its doubts come after
        codes = run["codes"][:1] if column == "reasons" else run["codes"]
        # the texts of a code are in its place where each code has one
        alike = column == "reasons" or len(codes) == len(run[column])
        texts = run[column] if alike else ["; ".join(run[column])] * len(codes)
        for code, text in zip(codes, texts, strict=False):
            if code not in _ESTIMATES:
                why = left_out_words(code, text)
                rows.setdefault(why, []).append((str(run["model"]), text))
    table = [(why, len(found), few(list(dict(found))), found[0][1]) for why, found in rows.items()]
    return pd.DataFrame(table, columns=["reason", "runs", "models", "example"])
