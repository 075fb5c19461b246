"""The model that a word names: a folder, a run, or a model of the registry."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pepr_mlops.costs.device import Device
from pepr_mlops.errors import WrongUse
from pepr_mlops.tracking.read import registered
from pepr_mlops.tracking.registry import EXTRA
from pepr_mlops.train.use import description as described
from pepr_mlops.train.use import load
from pepr_mlops.train.use.description import Weights, Which
from pepr_mlops.train.use.model import open_folder
from pepr_mlops.train.use.onnx_session import ONNX, OnnxModel
from pepr_mlops.train.use.predict import Predictor

_RUN = re.compile("[0-9a-f]{32}")


def find(
    name: str,
    *,
    tracking_uri: str | None = None,
    which: Which | None = None,
    device: str = "auto",
) -> Predictor:
    """The model in a folder that `pepr export` wrote, of a run by its id, or of the registry by its
    name. For a folder no tracking server is needed. Raises `WrongUse` where there is none."""
    if os.path.isdir(name):
        return of_folder(Path(name), which, device)
    if _RUN.fullmatch(name):
        return load.of_run(name, tracking_uri=tracking_uri, which=which, device=device)
    if not registered.is_name(name):
        raise WrongUse(
            f"model: there is no folder {name}; name a folder that `pepr export` wrote, a run, a "
            "registered model or best"
        )
    return load.of_registered(name, tracking_uri=tracking_uri, which=which, device=device)


def of_folder(folder: Path, which: Which | None = None, device: str = "auto") -> Predictor:
    """The model in a folder, of any form that is exported. Raises as `open_folder`."""
    inner = folder / EXTRA
    place = inner if (inner / described.FILE).is_file() else folder
    graph = folder / ONNX
    if graph.is_file():
        found = described.read(place)
        own = found.chosen(which) if found.weights else None
        weights = Weights(
            file=ONNX,
            epoch=found.epochs if own is None else own.epoch,
            digest=described.digest_of(graph),
            bytes=graph.stat().st_size,
            thresholds=None if own is None else own.thresholds,
        )
        return OnnxModel(graph, found, weights)
    return open_folder(place, which, Device.resolve(device).torch_device)
