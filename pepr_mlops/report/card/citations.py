"""What a model card cites, in BibTeX. Pure."""

from __future__ import annotations

import re

import pandas as pd

from pepr_mlops.report import works

_OF_DATA = {  # by the names that data sets have here
    "digits": (works.DIGITS,),
    "lidc": (works.LIDC,),
    "derma": (works.DERMA, works.MEDMNIST),
    "dermamnist": (works.DERMA, works.MEDMNIST),
    "pneumonia": (works.PNEUMONIA, works.MEDMNIST),
    "pneumoniamnist": (works.PNEUMONIA, works.MEDMNIST),
}
_OF_METHOD = {  # by a word of `pepr.energy_method`
    "zeus": works.ZEUS,
    "nvml": works.ZEUS,
    "rapl": works.ZEUS,
    "codecarbon": works.CODECARBON,
    "carbontracker": works.CARBONTRACKER,
}


def used_method(run: pd.Series) -> str:
    """What read or estimated the energy, without why components were not measured; empty where
    that is not known."""
    method = run.get("tags.pepr.energy_method")
    return re.split(r"[;,]? not measured", method)[0] if isinstance(method, str) else ""


def citations(run: pd.Series) -> tuple[str, ...]:
    """What a text about this run should cite, in BibTeX. Own data sets have no citation here."""
    data = str(run["dataset"])
    of_data = _OF_DATA.get(data, (works.MEDMNIST,) if data.endswith("mnist") else ())
    method = used_method(run).lower()
    tools = [work for word, work in _OF_METHOD.items() if word in method]
    cited = [works.PEPR, works.TIMM, *of_data, *tools]
    return tuple(dict.fromkeys(work.bibtex for work in cited))
