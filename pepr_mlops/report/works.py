"""The works that reports and cards cite, each as a line of text and in BibTeX. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

_OTHERS = "others"


@dataclass(frozen=True)
class Work:
    """A cited work: its BibTeX `key` and `kind`, `authors` and `title` in BibTeX, its `year`, None
    where it has none, and where it appeared, `place`, by fields of BibTeX in the order of `text`.
    """

    key: str
    kind: str
    authors: str
    title: str
    year: int | None = None
    place: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """`R. Selvan, B. Pepin: Title. Journal 3(2), 2025.`"""
        where = [_plain(v) for name, v in self.place.items() if name not in ("volume", "number")]
        if "volume" in self.place:
            issue = f"({self.place['number']})" if "number" in self.place else ""
            where[0] += f" {self.place['volume']}{issue}"
        where += [str(self.year)] if self.year is not None else []
        return f"{_people(self.authors)}: {_plain(self.title)}. {', '.join(where)}."

    @property
    def bibtex(self) -> str:
        """The entry, without a line break at its end."""
        fields = {"title": self.title, "author": self.authors, **self.place}
        fields |= {"year": str(self.year)} if self.year is not None else {}
        lines = [_field(name, value) for name, value in fields.items()]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"


def _field(name: str, value: str) -> str:
    start = f"  {name} = {{"
    return textwrap.fill(
        value + "}", 100, initial_indent=start, subsequent_indent=" " * len(start),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _plain(latex: str) -> str:
    return re.sub(r"\\url|[{}]", "", latex)


def _people(authors: str) -> str:
    """`Dam, Erik B. and others` as `E. B. Dam et al.`; a body in braces is its name."""
    names = authors.split(" and ")
    known = [_person(name) for name in names if name != _OTHERS]
    return ", ".join(known) + (" et al." if _OTHERS in names else "")


def _person(name: str) -> str:
    family, comma, given = name.partition(", ")
    if not comma:
        return _plain(name)
    initials = ["-".join(f"{p[0]}." for p in part.split("-")) for part in given.split()]
    return " ".join([*initials, family])


PEPR = Work(
    "selvan2025pepr",
    "inproceedings",
    "Selvan, Raghavendra and Pepin, Bob and Igel, Christian and Samuel, Gabrielle and Dam, Erik B.",
    "{PePR}: Performance Per Resource Unit as a Metric to Promote Small-Scale Deep Learning in "
    "Medical Image Analysis",
    2025,
    {"booktitle": "Northern Lights Deep Learning Conference (NLDL), PMLR 265"},
)
TIMM = Work(
    "wightman2019timm",
    "misc",
    "Wightman, Ross",
    "{PyTorch} Image Models",
    2019,
    {"doi": "10.5281/zenodo.4414861"},
)
MEDMNIST = Work(
    "yang2023medmnist",
    "article",
    "Yang, Jiancheng and Shi, Rui and Wei, Donglai and Liu, Zequan and Zhao, Lin and Ke, Bilian "
    "and Pfister, Hanspeter and Ni, Bingbing",
    "{MedMNIST} v2: A large-scale lightweight benchmark for {2D} and {3D} biomedical image "
    "classification",
    2023,
    {"journal": "Scientific Data", "volume": "10"},
)
DERMA = Work(
    "tschandl2018ham10000",
    "article",
    "Tschandl, Philipp and Rosendahl, Cliff and Kittler, Harald",
    "The {HAM10000} dataset, a large collection of multi-source dermatoscopic images of common "
    "pigmented skin lesions",
    2018,
    {"journal": "Scientific Data", "volume": "5"},
)
PNEUMONIA = Work(
    "kermany2018identifying",
    "article",
    "Kermany, Daniel S. and others",
    "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning",
    2018,
    {"journal": "Cell", "volume": "172", "number": "5"},
)
LIDC = Work(
    "armato2011lidc",
    "article",
    "Armato, Samuel G. and others",
    "The {Lung Image Database Consortium} ({LIDC}) and {Image Database Resource Initiative} "
    "({IDRI}): A completed reference database of lung nodules on {CT} scans",
    2011,
    {"journal": "Medical Physics", "volume": "38", "number": "2"},
)
DIGITS = Work(
    "alpaydin1998digits",
    "misc",
    "Alpaydin, E. and Kaynak, C.",
    "Optical Recognition of Handwritten Digits",
    1998,
    {"howpublished": "UCI Machine Learning Repository", "doi": "10.24432/C50P49"},
)
ZEUS = Work(
    "you2023zeus",
    "inproceedings",
    "You, Jie and Chung, Jae-Won and Chowdhury, Mosharaf",
    "Zeus: Understanding and Optimizing {GPU} Energy Consumption of {DNN} Training",
    2023,
    {"booktitle": "USENIX Symposium on Networked Systems Design and Implementation (NSDI)"},
)
CODECARBON = Work(
    "courty2024codecarbon",
    "misc",
    "Courty, Benoit and others",
    "{CodeCarbon}",
    place={"howpublished": "\\url{https://github.com/mlco2/codecarbon}"},
)
CARBONTRACKER = Work(
    "anthony2020carbontracker",
    "misc",
    "Anthony, Lasse F. Wolff and Kanding, Benjamin and Selvan, Raghavendra",
    "Carbontracker: Tracking and Predicting the Carbon Footprint of Training Deep Learning Models",
    2020,
    {
        "howpublished": "ICML Workshop on Challenges in Deploying and Monitoring Machine Learning "
        "Systems",
        "note": "arXiv:2007.03051",
    },
)
CARS = Work(
    "eea_cars",
    "misc",
    "{European Environment Agency}",
    "Average {CO2} emissions from new cars and new vans",
    place={
        "note": "106.8 g/km for new cars in the {EU} in 2024",
        "howpublished": "\\url{https://www.eea.europa.eu/en/newsroom/news/"
        "average-co2-emissions-from-new-cars-and-new-vans}",
    },
)
GRID = Work(
    "owid_intensity",
    "misc",
    "{Our World in Data}",
    "Carbon intensity of electricity",
    place={"note": "as CodeCarbon ships it"},
)
DELONG = Work(
    "delong1988comparing",
    "article",
    "DeLong, E. R. and DeLong, D. M. and Clarke-Pearson, D. L.",
    "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves",
    1988,
    {"journal": "Biometrics", "volume": "44"},
)
SMYTH = Work(
    "smyth2004linear",
    "article",
    "Smyth, G. K.",
    "Linear Models and Empirical {Bayes} Methods for Assessing Differential Expression in "
    "Microarray Experiments",
    2004,
    {
        "journal": "Statistical Applications in Genetics and Molecular Biology",
        "volume": "3",
    },
)
HSU = Work(
    "hsu1981simultaneous",
    "article",
    "Hsu, J. C.",
    "Simultaneous Confidence Intervals for All Distances from the 'Best'",
    1981,
    {"journal": "Annals of Statistics", "volume": "9"},
)
EDWARDS = Work(
    "edwards1983multiple",
    "article",
    "Edwards, D. G. and Hsu, J. C.",
    "Multiple Comparisons with the Best Treatment",
    1983,
    {"journal": "Journal of the American Statistical Association", "volume": "78"},
)
