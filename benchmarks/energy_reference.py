"""Which energies does the label of a training compare with?

    python benchmarks/energy_reference.py --results FOLDER

Writes `pepr_mlops/report/energy_reference.json` from the measurements released with the PePR paper:
Wh per 1,000 training images and epoch of each model that was fine-tuned on Derma. The other full
data sets are the check: per image and epoch the same model takes nearly the same there.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import click

from pepr_mlops.imports import pepr_paper

PLACE = Path(__file__).parents[1] / "pepr_mlops" / "report" / "energy_reference.json"
IMAGES = {"derma_pt": 7007, "pneumonia": 4708}  # that a model is trained on in an epoch
EPOCHS = 10
Totals = dict[str, dict[str, dict[str, float]]]  # by experiment, model and metric


@click.command()
@click.option("--results", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=PLACE)
def main(results: Path, out: Path) -> None:
    out.write_text(json.dumps(reference(results), indent=1) + "\n")


def reference(results: Path) -> dict[str, Any]:
    """The content of the file, from the folder of the released results."""
    totals: Totals = {}
    for run in pepr_paper.read(results):
        named = {name: value for name, value, _ in run.points}
        totals.setdefault(run.experiment, {})[run.params["model"]] = named
    copies = {m for m, own in totals["derma_pt"].items() if own == totals["lidc"][m]}
    models = sorted(set(totals["derma_pt"]) - copies)
    wh = {model: _normalised(totals, "derma_pt", model) for model in models}
    every = [own["energy/train_wh"] for rows in totals.values() for own in rows.values()]
    ratios = [
        _normalised(totals, "pneumonia", model) / wh[model]
        for model in models
        if every.count(totals["pneumonia"][model]["energy/train_wh"]) == 1
    ]
    return {
        "version": 1,
        "train": {
            "name": f"{len(models)} models of the PePR paper",
            "source": "PePR paper (NLDL 2025), all_results.csv, experiment derma_pt",
            "hardware": "NVIDIA GeForce RTX 3090",
            "image_size": "256",
            "precision": "fp32",
            "caveats": [
                "one run of each model on one machine, measured by carbontracker; the energy "
                "includes the overhead of the building, which other runs may not include",
                f"fine-tuning of all weights for {EPOCHS} epochs on {IMAGES['derma_pt']:,} images; "
                "evaluation after each epoch may be included",
                f"{len(copies)} of {len(totals['derma_pt'])} models are left out: all their "
                "measurements are to the last digit those on another data set",
                f"on {IMAGES['pneumonia']:,} images of another data set {len(ratios)} of the "
                f"models took {statistics.median(ratios):.2f} times as much per image and epoch, "
                "at the median",
            ],
            "wh": {model: float(f"{value:.6g}") for model, value in wh.items()},
        },
    }


def _normalised(totals: Totals, experiment: str, model: str) -> float:
    """Wh per 1,000 training images and epoch."""
    wh = totals[experiment][model]["energy/train_wh"]
    return 1000 * wh / (IMAGES[experiment] * EPOCHS)


if __name__ == "__main__":
    main()
