"""Writes weights as safetensors, one tensor after the other: the library would copy those that are
not contiguous, and those on a GPU, all at once, which would count as memory of the training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

# https://github.com/huggingface/safetensors: the format, and how it calls types of numbers.
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Written:
    """The digest (as `files.digest_of`) and the size of a file."""

    digest: str
    bytes: int


def write(state: Mapping[str, torch.Tensor], path: Path) -> Written:
    """Write a state dict, on the disk when this returns. Raises `OSError`."""
    # The widest numbers first: each tensor then begins at a multiple of its own width.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    header, end = {}, 0
    for name in names:
        tensor = state[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind, shape = _TYPES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.blake2b(digest_size=16)
    with path.open("wb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for name in names:
            flat = state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            content = flat.numpy().data
            file.write(content)
            digest.update(content)
        file.flush()
        os.fsync(file.fileno())
    return Written(digest.hexdigest(), 8 + len(text) + end)
