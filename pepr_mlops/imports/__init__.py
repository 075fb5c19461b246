"""Published results of others as finished runs."""

from pepr_mlops.imports import pepr_paper, timm_results

SOURCES = {"pepr-paper": pepr_paper.read, "timm": timm_results.read}
NOTES = {"timm": timm_results.notes}  # what was chosen of a folder, and what was not
