"""What a model card cites, in BibTeX. Pure."""

from __future__ import annotations

import re

import pandas as pd

_PEPR = """@inproceedings{selvan2025pepr,
  title = {{PePR}: Performance Per Resource Unit as a Metric to Promote Small-Scale Deep Learning
           in Medical Image Analysis},
  author = {Selvan, Raghavendra and Pepin, Bob and Igel, Christian and Samuel, Gabrielle and Dam,
            Erik B.},
  booktitle = {Northern Lights Deep Learning Conference (NLDL), PMLR 265},
  year = {2025}
}"""
_TIMM = """@misc{wightman2019timm,
  title = {{PyTorch} Image Models},
  author = {Wightman, Ross},
  year = {2019},
  doi = {10.5281/zenodo.4414861}
}"""
_MEDMNIST = """@article{yang2023medmnist,
  title = {{MedMNIST} v2: A large-scale lightweight benchmark for {2D} and {3D} biomedical image
           classification},
  author = {Yang, Jiancheng and Shi, Rui and Wei, Donglai and Liu, Zequan and Zhao, Lin and Ke,
            Bilian and Pfister, Hanspeter and Ni, Bingbing},
  journal = {Scientific Data},
  volume = {10},
  year = {2023}
}"""
_DERMA = """@article{tschandl2018ham10000,
  title = {The {HAM10000} dataset, a large collection of multi-source dermatoscopic images of
           common pigmented skin lesions},
  author = {Tschandl, Philipp and Rosendahl, Cliff and Kittler, Harald},
  journal = {Scientific Data},
  volume = {5},
  year = {2018}
}"""
_PNEUMONIA = """@article{kermany2018identifying,
  title = {Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning},
  author = {Kermany, Daniel S. and others},
  journal = {Cell},
  volume = {172},
  number = {5},
  year = {2018}
}"""
_LIDC = """@article{armato2011lidc,
  title = {The {Lung Image Database Consortium} ({LIDC}) and {Image Database Resource Initiative}
           ({IDRI}): A completed reference database of lung nodules on {CT} scans},
  author = {Armato, Samuel G. and others},
  journal = {Medical Physics},
  volume = {38},
  number = {2},
  year = {2011}
}"""
_DIGITS = """@misc{alpaydin1998digits,
  title = {Optical Recognition of Handwritten Digits},
  author = {Alpaydin, E. and Kaynak, C.},
  howpublished = {UCI Machine Learning Repository},
  year = {1998},
  doi = {10.24432/C50P49}
}"""
_ZEUS = """@inproceedings{you2023zeus,
  title = {Zeus: Understanding and Optimizing {GPU} Energy Consumption of {DNN} Training},
  author = {You, Jie and Chung, Jae-Won and Chowdhury, Mosharaf},
  booktitle = {USENIX Symposium on Networked Systems Design and Implementation (NSDI)},
  year = {2023}
}"""
_CODECARBON = """@misc{courty2024codecarbon,
  title = {{CodeCarbon}},
  author = {Courty, Benoit and others},
  howpublished = {\\url{https://github.com/mlco2/codecarbon}}
}"""
_CARBONTRACKER = """@misc{anthony2020carbontracker,
  title = {Carbontracker: Tracking and Predicting the Carbon Footprint of Training Deep Learning
           Models},
  author = {Anthony, Lasse F. Wolff and Kanding, Benjamin and Selvan, Raghavendra},
  howpublished = {ICML Workshop on Challenges in Deploying and Monitoring Machine Learning Systems},
  year = {2020},
  note = {arXiv:2007.03051}
}"""
_OF_DATA = {  # by the names that data sets have here
    "digits": (_DIGITS,),
    "lidc": (_LIDC,),
    "derma": (_DERMA, _MEDMNIST),
    "dermamnist": (_DERMA, _MEDMNIST),
    "pneumonia": (_PNEUMONIA, _MEDMNIST),
    "pneumoniamnist": (_PNEUMONIA, _MEDMNIST),
}
_OF_METHOD = {  # by a word of `pepr.energy_method`
    "zeus": _ZEUS,
    "nvml": _ZEUS,
    "rapl": _ZEUS,
    "codecarbon": _CODECARBON,
    "carbontracker": _CARBONTRACKER,
}


def used_method(run: pd.Series) -> str:
    """What read or estimated the energy, without why components were not measured; empty where
    that is not known."""
    method = run.get("tags.pepr.energy_method")
    return re.split(r"[;,]? not measured", method)[0] if isinstance(method, str) else ""


def citations(run: pd.Series) -> tuple[str, ...]:
    """What a text about this run should cite. A data set of one's own has no citation here."""
    data = str(run["dataset"])
    of_data = _OF_DATA.get(data, (_MEDMNIST,) if data.endswith("mnist") else ())
    method = used_method(run).lower()
    tools = [text for word, text in _OF_METHOD.items() if word in method]
    return tuple(dict.fromkeys([_PEPR, _TIMM, *of_data, *tools]))
