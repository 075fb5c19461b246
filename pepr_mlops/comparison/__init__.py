"""From runs to PePR scores one can defend: what may be compared, scored with intervals. Pure."""

from pepr_mlops.comparison.question import ENERGY_ERROR, Mixed, Question, choose
from pepr_mlops.comparison.scores import Comparison, compare, means, score_sets
from pepr_mlops.comparison.sets import Prepared, inspect, judge, prepare, tally

__all__ = [
    "ENERGY_ERROR",
    "Comparison",
    "Mixed",
    "Prepared",
    "Question",
    "choose",
    "compare",
    "inspect",
    "judge",
    "means",
    "prepare",
    "score_sets",
    "tally",
]
