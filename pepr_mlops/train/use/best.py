"""The weights of the best epoch on validation, on this disk until the training ends."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from pepr_mlops.comparison.metrics import Predicted, thresholds_of
from pepr_mlops.errors import one_line
from pepr_mlops.names import Task
from pepr_mlops.train.trainer import Evaluation
from pepr_mlops.train.use.description import Weights
from pepr_mlops.train.use.weights_file import write


@dataclass
class Best:
    """`weights` are those of the best epoch so far, in `path`; None before the first epoch and
    where those of the best one could not be written, for the reason `missing`."""

    folder: Path
    task: Task
    note: Callable[[str], None]
    weights: Weights | None = None
    missing: str = "no epoch was evaluated"

    @classmethod
    @contextmanager
    def open(cls, folder: Path | None, task: Task, note: Callable[[str], None]) -> Iterator[Self]:
        """Those of a training that is saved in `folder`, so that it can resume with them, or in a
        temporary one that is deleted."""
        if folder is not None:
            yield cls(folder, task, note)
            return
        with tempfile.TemporaryDirectory() as temporary:
            yield cls(Path(temporary), task, note)

    @property
    def path(self) -> Path:
        assert self.weights is not None
        return self._path(self.weights.epoch)

    def save(self, epoch: int, network: torch.nn.Module, val: Evaluation) -> None:
        """Write the weights after an epoch that is the best so far; a note says where the disk is
        full. Those before remain until `delete_others`."""
        path = self._path(epoch)
        chosen = thresholds_of(Predicted(val.labels, val.probabilities, self.task))
        thresholds = None if chosen is None else tuple(chosen.tolist())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            written = write(network.state_dict(), path)
        except OSError as error:
            path.unlink(missing_ok=True)
            self.weights, self.missing = None, one_line(error)
            self.note(
                f"weights: those of epoch {epoch}, the best so far, are not kept ({self.missing}); "
                "free space there"
            )
        else:
            self.weights = Weights(
                "best.safetensors", epoch, written.digest, written.bytes, thresholds
            )

    def delete_others(self) -> None:
        """Delete the weights of earlier epochs, once no checkpoint refers to them."""
        current = None if self.weights is None else self.path
        for path in self.folder.glob("best-*.safetensors"):
            if path != current:
                with suppress(OSError):
                    path.unlink()

    def state(self) -> dict[str, Any] | None:
        """What `restore` takes."""
        return None if self.weights is None else asdict(self.weights)

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Continue with the weights of an earlier attempt, if it wrote them."""
        if state is not None:
            self.weights = Weights(**state)
            if self.path.exists():
                return
            self.weights = None
        self.missing = "the attempt that trained the best epoch did not write them"

    def _path(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.safetensors"
