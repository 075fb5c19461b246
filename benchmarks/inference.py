"""What using six models costs on this machine, in PyTorch and as ONNX, and how far repeats differ.

    python benchmarks/inference.py --out benchmarks/results/inference.json

Each model is trained for an epoch on a tenth of the digits, which does not change what it costs to
use, and profiled; on a machine with a GPU there, too. Run it while the machine does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from common import machine, write

import pepr_mlops
from pepr_mlops import RunSpec
from pepr_mlops.tracking.read import weights
from pepr_mlops.train.use.profiled import Settings, profile_run

MODELS = (
    *("test_resnet", "resnet18d", "mobilenetv2_050", "lcnet_050", "efficientnet_b0", "resnet50"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    ways = [Settings("cpu", batch=given.batch), Settings("cpu", batch=given.batch, onnx=True)]
    if torch.cuda.is_available():
        ways.insert(0, Settings("cuda", batch=given.batch))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        for name in given.models.split(","):
            spec = RunSpec(
                **{"model": name, "dataset": "digits", "image_size": given.image_size},
                **{"epochs": 1, "fraction": 0.1, "pretrained": False},
            )
            run_id = pepr_mlops.run(spec, tracking_uri=uri).run.run_id
            for settings in ways:
                settings = Settings(**{**vars(settings), "replace": True})
                fetched = weights.fetch(run_id, tracking_uri=uri)
                found = profile_run(fetched, settings, tracking_uri=uri, shown=print).profile
                rows.append({"model": name, **found.metrics(), **found.conditions})
    write({**machine(), "image_size": given.image_size, "profiles": rows}, given.out)


if __name__ == "__main__":
    main()
