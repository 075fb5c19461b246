"""A trained model as an ONNX graph that onnxruntime executes on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from pepr_mlops.comparison.metrics import Floats
from pepr_mlops.data.splits import Pixels
from pepr_mlops.errors import WrongUse, one_line
from pepr_mlops.train.use.description import Description, Weights

ONNX = "model.onnx"
EXECUTES, EXPORTS = ("onnxruntime",), ("onnx", "onnxscript", "onnxruntime")


def check_packages(packages: tuple[str, ...] = EXPORTS) -> None:
    """Raise `WrongUse` where one of the packages is not installed."""
    missing = [name for name in packages if util.find_spec(name) is None]
    if missing:
        raise WrongUse(
            f"onnx: {', '.join(missing)} is not installed; run `uv pip install "
            "'pepr_mlops[export]'`"
        )


@dataclass(frozen=True)
class OnnxModel:
    """An exported model, with `threads` threads or as many as onnxruntime chooses."""

    path: Path
    description: Description
    weights: Weights
    threads: int = 0

    def of_batch(self, images: Pixels) -> Floats:
        """As `Model.of_batch`."""
        (chances,) = self._session.run(None, {"images": images})
        return np.asarray(chances, np.float64)

    @cached_property
    def _session(self) -> Any:
        return self.opened()

    def opened(self) -> Any:
        """A new session of onnxruntime. Raises `WrongUse`."""
        check_packages(EXECUTES)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        try:
            return onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of onnxruntime, whose classes have no common name
            raise WrongUse(
                f"model: {self.path} cannot be loaded ({one_line(error)}); export it again"
            ) from error
