"""From runs to PePR scores: what may be compared, scored with intervals. Pure.

A run is *left out* for a *reason*, or compared and *flagged* for a doubt about its numbers
(`checks`). A *note* is about all runs of a comparison (`notes`).
"""

from pepr_mlops.comparison.question import Mixed, Question, choose
from pepr_mlops.comparison.scores import Comparison, compare, means, score_sets
from pepr_mlops.comparison.sets import Prepared, inspect, judge, left_out_counts, prepare, tally

__all__ = [
    "Comparison",
    "Mixed",
    "Prepared",
    "Question",
    "choose",
    "compare",
    "inspect",
    "judge",
    "left_out_counts",
    "means",
    "prepare",
    "score_sets",
    "tally",
]
