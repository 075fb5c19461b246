"""MLflow models: written to a folder, opened as a server opens them, and registered."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepr_mlops.comparison import Comparison
from pepr_mlops.comparison.table import cost_unit
from pepr_mlops.errors import WrongUse
from pepr_mlops.tracking.server import connect, enduring, resolved, translated_errors

if TYPE_CHECKING:
    import torch

DIGEST = "pepr.registered.digest"  # tag of a version: the digest of its model.json
EXTRA = "extra_files"  # the folder of an MLflow model that MLflow copies further files to
# What a server needs to run the graph; MLflow would run the model to find it out.
_REQUIRED = ("mlflow", "numpy", "torch")


def save(
    module: torch.nn.Module,
    folder: Path,
    example: np.ndarray,
    classes: int,
    metadata: Mapping[str, Any],
    files: Sequence[Path],
) -> None:
    """Write `module` as an MLflow model without pickle to `folder`, which must not exist.

    It takes images uint8 like `example`, [n, h, w] or [n, h, w, 3], and returns probabilities
    float32 [n, classes]. The graph is traced by MLflow: each length of `example` must be 2 or more
    to stay free. The `files` are copied into the folder `EXTRA` of the model.
    """
    import mlflow.pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, *example.shape[3:]))
    chances = TensorSpec(np.dtype(np.float32), (-1, classes))
    with _silent(), enduring():
        mlflow.pytorch.save_model(
            module,
            str(folder),
            serialization_format="pt2",
            signature=ModelSignature(Schema([images]), Schema([chances])),
            input_example=example,
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _REQUIRED],
            metadata=dict(metadata),
            extra_files=[str(file) for file in files],
        )
        # The graph is traced on the CPU and cannot move: a server with a GPU must not try.
        described = Model.load(str(folder))
        described.flavors["python_function"]["config"]["device"] = "cpu"
        described.save(str(folder / "MLmodel"))


def opened(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What an MLflow model predicts, as its server answers. Executes nothing that a file says:
    MLflow refuses an archive with pickled objects."""
    import mlflow.pyfunc

    with _silent(), enduring():
        model = mlflow.pyfunc.load_model(str(folder))
    return model.predict  # type: ignore[no-any-return]


def check_names(name: str, alias: str | None) -> None:
    """Raise `WrongUse` for a name that MLflow refuses, or that commands take for something else."""
    if not name.strip() or re.search("[/:@]", name) or re.fullmatch("best|[0-9a-f]{32}", name):
        raise WrongUse(
            f"register: {name!r} cannot name a model: not `best`, nor the id of a run, and "
            "without / : @; such as derma"
        )
    if alias is not None and not re.fullmatch(r"(?!latest$|v\d+$)[\w-]+", alias):
        raise WrongUse(
            f"alias: {alias!r} is not letters, digits, _ and -, nor `latest` or a version as v1; "
            "such as champion"
        )


def register(
    folder: Path,
    name: str,
    *,
    alias: str | None,
    run_id: str,
    tags: Mapping[str, str],
    tracking_uri: str | None,
) -> str:
    """Log an MLflow model with its run and register it as a new version, which is returned.

    Raises `WorkFailed` where the server does not answer or has no registry.
    """
    from mlflow.exceptions import MlflowException

    uri = resolved(tracking_uri)
    client = connect(uri, create=False)
    with _silent(), enduring(), translated_errors(uri):
        place = f"registered/{uuid.uuid4().hex[:8]}"
        source = f"{client.get_run(run_id).info.artifact_uri}/{place}"
        client.log_artifacts(run_id, str(folder), place)
        try:
            client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            client.create_registered_model(name)
        found = client.create_model_version(name, source, run_id, tags=dict(tags))
        if alias is not None:
            client.set_registered_model_alias(name, alias, found.version)
    return str(found.version)


def standing(comparison: Comparison, run_id: str) -> dict[str, str]:
    """Tags of a version: P, the PePR score and the cost of the model of a run, with what they are
    of. Empty where the run was not scored."""
    used = comparison.used
    runs = used["fold_runs"].fillna(used["run_id"]).str.split()
    own = used[runs.map(lambda ids: run_id in ids)]
    if own.empty:
        return {}
    keys = ["comparison_set", "model", "variant"]
    scores = comparison.scores.merge(own[keys].head(1), on=keys)
    row = scores.merge(comparison.sets[["comparison_set", "fingerprint"]]).iloc[0]
    by, cost = str(row["resource"]), row["cost"]
    tags = {
        "comparison_set": f"{row['comparison_set']} {row['fingerprint']}",
        "runs": str(row["n"]),
        "performance": f"{row['performance']:.6g} {own['performance_metric'].iloc[0]}",
        "score": f"{row['score']:.6g} PePR-{by}",
    }
    if cost == cost:
        tags["cost"] = f"{cost:.6g} {cost_unit(by) or by}"
    if by in ("E", "C"):
        tags["cost_source"] = str(row["energy_source"])
    return {f"pepr.registered.{key}": value for key, value in tags.items()}


@contextmanager
def _silent() -> Iterator[None]:
    """Without MLflow's warnings, such as that this environment has no pip."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
