"""Errors of a training, translated to what happened and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pepr_mlops.errors import WorkFailed
from pepr_mlops.spec import RunSpec

# Errors of torch on a CPU, of the CUDA driver if others use the memory, of cuBLAS and cuDNN.
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


@contextmanager
def explained(spec: RunSpec, epoch: int) -> Iterator[None]:
    """Raise `WorkFailed` for the errors of an epoch (0: before the first) that have a remedy."""
    try:
        yield
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
            isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
        ):
            when = f"in epoch {epoch}" if epoch else "before the first epoch"
            raise WorkFailed(
                f"memory: out of memory {when} with batch_size={spec.batch_size} and "
                f"image_size={spec.image_size}; {max(0, epoch - 1)} epochs were completed; reduce "
                f"either, use bf16{' or launch=kernels' if spec.launch == 'graph' else ''}, or "
                "choose a device with more free memory",
                reason="out_of_memory",
            ) from error
        if isinstance(error, RuntimeError) and "deterministic" in str(error):
            raise WorkFailed(
                f"deterministic: {spec.model} uses an operation that has no deterministic "
                f"implementation here ({str(error).splitlines()[0][:120]}); train without it",
                reason="not_deterministic",
            ) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise WorkFailed(
                f"compile: torch.compile failed on {spec.model} "
                f"({str(error).strip().splitlines()[0][:160]}); train without it",
                reason="compile_failed",
            ) from error
        raise
