"""CUDA graphs: work on a GPU that is recorded once and then launched as one.

A step of a small network is hundreds of kernels. Launched one by one they keep the GPU waiting; a
graph is launched at once. It runs the same kernels on the same data: the numbers are the same to
the last bit, while time, energy and memory differ.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch

from pepr_mlops.errors import WorkFailed, one_line

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

    Pool: TypeAlias = _POOL_HANDLE  # of `torch.cuda.graph_pool_handle`: memory graphs may share

UNRECORDED = 3  # calls: libraries choose their algorithms, an optimiser makes its state

_Shape = tuple[tuple[int, ...], ...]
_Recorded = tuple[torch.cuda.CUDAGraph, tuple[torch.Tensor, ...], torch.Tensor]


class Graphs:
    """A function of tensors, recorded for each combination of their shapes.

    `function` returns one tensor and changes others (weights, their optimiser's state) in place.
    The first calls with the same shapes run kernel by kernel; the next is recorded, and from then
    on the graph runs. Graphs of one `pool` share memory and must not run at the same time. Raises
    `WorkFailed` where the function cannot be recorded, as when it waits for the GPU or decides by
    the values of a tensor.
    """

    def __init__(
        self, function: Callable[..., torch.Tensor], device: torch.device, pool: Pool
    ) -> None:
        self._function, self._device, self._pool = function, device, pool
        self._stream = torch.cuda.Stream(device)
        self._seen: Counter[_Shape] = Counter()
        self._recorded: dict[_Shape, _Recorded] = {}

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        shape = tuple(tuple(tensor.shape) for tensor in given)
        if shape not in self._recorded:
            self._seen[shape] += 1
            if self._seen[shape] <= UNRECORDED:
                return self._unrecorded(*given)
            self._recorded[shape] = self._record(given)
        graph, inputs, output = self._recorded[shape]
        for recorded, tensor in zip(inputs, given, strict=True):
            recorded.copy_(tensor)
        graph.replay()
        return output.clone()

    def _unrecorded(self, *given: torch.Tensor) -> torch.Tensor:
        """On another stream: what autograd sets up on the usual one cannot be recorded."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            output = self._function(*given)
        usual.wait_stream(self._stream)
        return output

    def _record(self, given: tuple[torch.Tensor, ...]) -> _Recorded:
        """Record without running. Other threads may query the GPU meanwhile."""
        inputs = tuple(tensor.clone() for tensor in given)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = self._function(*inputs)
        except RuntimeError as error:
            self._end_recording_of_random_numbers()
            # A recording that fails ends with an error of its own.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if "captur" not in str(cause):
                raise cause from None
            raise WorkFailed(
                f"launch: a step cannot be recorded as a CUDA graph ({one_line(cause)[:160]}); "
                "train with launch=kernels",
                reason="graph_failed",
            ) from cause
        return graph, inputs, output

    def _end_recording_of_random_numbers(self) -> None:
        """A failed recording leaves the generator in recording mode."""
        generator = torch.cuda.default_generators[self._device.index or 0]
        fresh = torch.Generator(self._device)
        fresh.set_state(generator.get_state())
        generator.graphsafe_set_state(fresh.graphsafe_get_state())
