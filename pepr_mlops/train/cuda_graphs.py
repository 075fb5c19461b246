"""Work on a GPU that is recorded once, as a CUDA graph, and then given to it as a whole.

A step of a small network is hundreds of kernels, each of which the processor launches by itself;
the GPU waits for it most of the time. A graph is launched at once. It runs the same kernels on the
same data, so that the numbers are the same to the last bit, but takes other time, energy and
memory. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
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

    `function` returns one tensor; what else it changes (weights, their optimiser's state) it must
    change in place. The first calls with some shapes run kernel by kernel, as real ones; the next
    is recorded, and from then on the graph is run. Graphs of one `pool` share memory and must not
    run at the same time. Raises `WorkFailed` where the function cannot be recorded: it may wait
    for the GPU, or decide by what is in a tensor.
    """

    def __init__(
        self, function: Callable[..., torch.Tensor], device: torch.device, pool: Pool
    ) -> None:
        self._function, self._device, self._pool = function, device, pool
        self._beside = torch.cuda.Stream(device)
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
        for kept, tensor in zip(inputs, given, strict=True):
            kept.copy_(tensor)
        graph.replay()
        return output.clone()

    def _unrecorded(self, *given: torch.Tensor) -> torch.Tensor:
        """On a stream of its own: what autograd sets up on the usual one cannot be recorded."""
        usual = torch.cuda.current_stream(self._device)
        self._beside.wait_stream(usual)
        with torch.cuda.stream(self._beside):
            output = self._function(*given)
        usual.wait_stream(self._beside)
        return output

    def _record(self, given: tuple[torch.Tensor, ...]) -> _Recorded:
        """Nothing of it runs yet. Other threads may go on asking the GPU for its state."""
        inputs = tuple(tensor.clone() for tensor in given)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = self._function(*inputs)
        except RuntimeError as error:
            self._end_recording_of_random_numbers()
            # A recording that broke off ends with an error of its own.
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
        """A recording that breaks off leaves the generator believing that it goes on."""
        generator = torch.cuda.default_generators[self._device.index or 0]
        fresh = torch.Generator(self._device)
        fresh.set_state(generator.get_state())
        generator.graphsafe_set_state(fresh.graphsafe_get_state())
