"""The data behind all figures: comparisons of one or several experiments. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from pepr_mlops.comparison import Comparison, Question, means, pepr
from pepr_mlops.comparison.answer import USUAL, Answer, Terms, answer, choices
from pepr_mlops.comparison.conditions import about_energy
from pepr_mlops.comparison.draws import Draws
from pepr_mlops.comparison.runs import column
from pepr_mlops.comparison.scores import other_costs
from pepr_mlops.comparison.significance import sizes
from pepr_mlops.comparison.words import condition_name, condition_words
from pepr_mlops.names import COMPONENTS, PERFORMANCE, RESOURCES
from pepr_mlops.paper_models import paper_models

KEYS = ["comparison_set", "model", "variant"]

# Metrics of `query.load_epochs` that figures draw, where runs have them.
HISTORY = (
    PERFORMANCE,
    "energy/train_wh",
    "carbon/train_gco2e",
    "time/train_s",
    "energy/eval_wh",
    *(f"energy/{phase}_{part}_wh" for phase in ("train", "eval") for part in COMPONENTS),
)


class NothingToDraw(Exception):
    """A figure that these runs have no data for; the text says what is missing."""


@dataclass(frozen=True)
class Part:
    """The comparison of one experiment and the frame of all its runs.

    `main` is False for a companion of the requested experiments.
    """

    comparison: Comparison
    question: Question
    found: pd.DataFrame
    main: bool = True


@dataclass(frozen=True)
class Material:
    """Everything that is drawn.

    | frame | a row is | columns |
    | --- | --- | --- |
    | `models` | a model in a comparison set, best first | `comparison_set`, `experiment`, `model`, `variant`, `label`, `main`, `n`, `performance`, `performance_sd`, `p_low`, `p_high`, `parameters`, `kind`, `efficient`, `size` (missing where not known), `energy_source`, `codes`, `run_id` (the newest of its runs), `scored_by`, `R`, `score`, `ci_low`, `ci_high`, `no_interval`, `rank`, `rank_low`, `rank_high`, and for each resource NAME `cost NAME`, `R NAME`, `PePR-NAME` |
    | `runs` | a run that was scored | those of the frame of runs, `comparison_set`, `variant`, `label` |
    | `epochs` | a run and epoch | `run_id`, `step`, metrics of HISTORY and what is P |
    | `sets` | a comparison set | `comparison_set`, `experiment`, `main`, `models`, `runs`, `scored_by`, `fingerprint`, `energy_source`, `shared`, `bounds`, `mixed` |
    | `publications` | a country in a year, or None | `year`, `name`, `region`, `papers`, `population` |

    `parts` are the comparisons behind it, `terms` by which models are chosen, and `run_page` what
    precedes a run's id in the address of its page, or None where the tracking server has no pages.
    """  # noqa: E501

    models: pd.DataFrame
    runs: pd.DataFrame
    epochs: pd.DataFrame
    sets: pd.DataFrame
    parts: Sequence[Part]
    terms: Terms = USUAL
    run_page: str | None = None
    publications: pd.DataFrame | None = None

    @property
    def main_sets(self) -> list[str]:
        """Names of the requested comparison sets, those of the most models first."""
        main = self.sets[self.sets["main"]]
        ordered = main.sort_values(["models", "runs"], ascending=False, kind="stable")
        return list(ordered["comparison_set"])

    def sets_of(self, experiments: Sequence[str]) -> list[str]:
        """Names of the comparison sets of experiments, in their order; of the main ones if none."""
        if not experiments:
            return self.main_sets
        by = self.sets.groupby("experiment", sort=False)["comparison_set"].agg(list)
        return [name for e in experiments for name in by.get(e, [])]

    def differs(self, comparison_set: str) -> dict[str, str]:
        """The conditions by which a set is not scored with the others of its experiment: their
        names in words, and a few words about the models of the set."""
        rows = self.sets.set_index("comparison_set")
        own = rows.loc[comparison_set]
        alike = rows.loc[rows["experiment"] == own["experiment"], "shared"]
        return {
            condition_name(name): condition_words(name, value)
            for name, value in own["shared"].items()
            if any(shared.get(name, value) != value for shared in alike)
        }

    def title(self, comparison_set: str) -> str:
        """What readers call a set: its own conditions, and its experiment where there are several
        or no conditions."""
        words = list(self.differs(comparison_set).values())
        experiments = self.sets.set_index("comparison_set")["experiment"]
        if experiments.nunique() > 1 or not words:
            words.insert(0, experiments[comparison_set])
        return ", ".join(words)

    def models_of(self, comparison_set: str) -> pd.DataFrame:
        """The rows of `models` of one set."""
        return self.models[self.models["comparison_set"] == comparison_set]

    def runs_of(self, comparison_set: str) -> pd.DataFrame:
        """The rows of `runs` of one set."""
        return self.runs[self.runs["comparison_set"] == comparison_set]

    def imported(self, comparison_set: str) -> bool:
        """Whether all runs of a set are imported, so that its readers cannot train or profile its
        models."""
        return bool(self.runs_of(comparison_set)["imported_from"].notna().all())

    def performance_name(self, *sets: str) -> str:
        """What P is in these sets, such as `test/accuracy`."""
        of_sets = self.runs["comparison_set"].isin(sets)
        names = self.runs.loc[of_sets, "performance_metric"].dropna().unique()
        return str(names[0]) if len(names) == 1 else PERFORMANCE

    def resources(self, comparison_set: str) -> list[str]:
        """Names of the resources every model of the set has a cost of, the main one first."""
        rows = self.models_of(comparison_set)
        names = [c.removeprefix("R ") for c in rows if c.startswith("R ")]
        return [n for n in names if rows[f"R {n}"].notna().all()]

    def bounds(self, comparison_set: str, resource: str) -> pepr.Bounds | None:
        """The costs of the set at which R is 0 and 1; None for a name that is not in `resources`,
        such as that of a weighted score."""
        if resource not in self.resources(comparison_set):
            return None
        costs = self.models_of(comparison_set)[f"cost {resource}"]
        name = column(self.runs, resource)
        by_name = self.sets.set_index("comparison_set").at[comparison_set, "bounds"]
        return by_name.get(name) or _bounds(costs, name, self.question(comparison_set))

    def energy_matters(self, comparison_set: str) -> bool:
        """Whether a cost of the set is made of energy."""
        return about_energy([column(self.runs, n) for n in self.resources(comparison_set)])

    def part(self, comparison_set: str) -> Part:
        """The comparison that a set belongs to."""
        for part in self.parts:
            if comparison_set in set(part.comparison.sets["comparison_set"]):
                return part
        raise KeyError(comparison_set)

    def question(self, comparison_set: str) -> Question:
        """How the experiment of a set is compared."""
        return self.part(comparison_set).question

    def draws(self, comparison_set: str) -> Draws:
        """The draws behind the intervals of a set."""
        return self.part(comparison_set).comparison.drawn(comparison_set)

    @cached_property
    def answers(self) -> Mapping[str, Answer]:
        """Which model of each requested set is good enough. Raises as `comparison.answer.choices`,
        and needs intervals."""
        return {
            name: answer(choices(part.comparison, part.question, name, self.terms))
            for name, part in ((name, self.part(name)) for name in self.main_sets)
        }


def gather(
    parts: Sequence[Part],
    epochs: pd.DataFrame | None = None,
    *,
    terms: Terms = USUAL,
    run_page: str | None = None,
    publications: pd.DataFrame | None = None,
) -> Material:
    """The material of one or several answers of `comparison.compare`."""
    if epochs is None:
        epochs = pd.DataFrame({"run_id": pd.Series(dtype="str"), "step": pd.Series(dtype="int64")})
    runs = pd.concat([part.comparison.used for part in parts], ignore_index=True)
    runs["label"] = _labels(runs)
    return Material(
        models=pd.concat([_models(part) for part in parts], ignore_index=True),
        runs=runs,
        epochs=epochs,
        sets=pd.concat([_sets(part) for part in parts], ignore_index=True),
        parts=tuple(parts),
        terms=terms,
        run_page=run_page,
        publications=publications,
    )


def scored_by(question: Question) -> str:
    """Name of the main score: of all resources where they are weighted, else of the first."""
    return "+".join(question.resources) if question.weights else question.resources[0]


def _labels(rows: pd.DataFrame) -> pd.Series[str]:
    return rows["model"] + rows["variant"].map(lambda v: f" ({v})" if v else "")


def _models(part: Part) -> pd.DataFrame:
    found, question = part.comparison, part.question
    by = scored_by(question)
    table = found.scores[found.scores["resource"] == by].drop(
        columns=["resource", "cost", "cost_sd"]
    )
    for name in question.resources:
        costs = found.costs[found.costs["resource"] == name].set_index(KEYS)
        at = costs.reindex(pd.MultiIndex.from_frame(table[KEYS]))
        table[f"cost {name}"], table[f"R {name}"] = at["cost"].to_numpy(), at["R"].to_numpy()
    names = other_costs(found, question)
    extra = means(found, {f"cost {n}": RESOURCES[n].column for n in names})
    table = table.merge(extra, on=KEYS, how="left", validate="one_to_one")
    for name in names:
        table[f"R {name}"] = table.groupby("comparison_set")[f"cost {name}"].transform(
            lambda cost, n=RESOURCES[name].column: pepr.normalise(cost, _bounds(cost, n, question))
        )
    for name in [*question.resources, *names]:
        table[f"PePR-{name}"] = pepr.pepr(
            table[PERFORMANCE], table[f"R {name}"], alpha=question.alpha
        )
    by_row = found.used.sort_values("start_time", kind="stable").groupby(KEYS, as_index=False)
    newest = by_row[["run_id", "experiment", "parameters"]].last()
    table = table.merge(newest, on=KEYS, validate="one_to_one")
    known = {m.model: m for m in paper_models()}
    paper = [known.get(m) or known.get(m.split(".")[0]) for m in table["model"]]
    return table.assign(
        label=_labels(table),
        main=part.main,
        scored_by=by,
        kind=pd.array([m and m.kind for m in paper], dtype="str"),
        efficient=pd.array([m and ("yes" if m.efficient else "no") for m in paper], dtype="str"),
        size=table.groupby("comparison_set")["parameters"].transform(sizes),
    )


def _bounds(cost: pd.Series[float], name: str, question: Question) -> pepr.Bounds:
    if question.reference is not None:
        return question.reference.bounds[name]
    return pepr.bounds(cost, question.normalisation, question.quantiles)


def _sets(part: Part) -> pd.DataFrame:
    allowed = part.question.mixed == "allow"
    return part.comparison.sets.assign(
        main=part.main,
        scored_by=scored_by(part.question),
        mixed=[allowed and "MIXED" in name for name in part.comparison.sets["comparison_set"]],
    )
