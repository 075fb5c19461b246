"""Results and logs of others as finished runs."""

from pepr_mlops.imports import pepr_paper, timm_results

SOURCES = {"pepr-paper": pepr_paper.read, "timm": timm_results.read}
