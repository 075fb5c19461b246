"""Images in a file on disk that are read when they are needed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pepr_mlops.errors import WorkFailed
from pepr_mlops.files import BINARY, read_at

if TYPE_CHECKING:
    from pepr_mlops.data.splits import Pixels

_PART = 1 << 26  # bytes that `parts` reads at once


class Stored:
    """The images `rows` [n] of a file of uint8 [N, *image], as an array [n, *image] of which any
    rows are read into memory on demand.

    The file is read and not mapped: mapped pages would count in the memory of the process.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, image: tuple[int, ...], rows: npt.NDArray[np.int64]) -> None:
        self.path = path
        self.rows = rows
        self.shape = (len(rows), *image)
        self.ndim = len(self.shape)
        self._size = math.prod(image)
        self.nbytes = len(rows) * self._size

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: npt.NDArray[np.int64]) -> Stored:
        """The same file with some of the images; nothing is read."""
        return Stored(self.path, self.shape[1:], self.rows[indices])

    def read(self, indices: npt.NDArray[np.int64], into: Pixels) -> None:
        """Read images into `into` [n, *image], which must be contiguous.

        Raises `WorkFailed` where the file was deleted or cut off.
        """
        rows = self.rows[indices]
        view = memoryview(into.reshape(-1))  # type: ignore[arg-type]  # of the array's own memory
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # rows that follow are one read
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            part = view[start * self._size : end * self._size]
            offset = int(rows[start]) * self._size
            while part:
                count = read_at(self._file, part, offset)
                if count == 0:
                    raise WorkFailed(
                        "dataset: the prepared images on disk are incomplete; start the job again",
                        reason="missing_data",
                    )
                part, offset = part[count:], offset + count

    def parts(self) -> Iterator[Pixels]:
        """All images in order, some at a time, in arrays of their own."""
        each = max(1, _PART // self._size)
        for start in range(0, len(self), each):
            indices = np.arange(start, min(start + each, len(self)))
            part = np.empty((len(indices), *self.shape[1:]), np.uint8)
            self.read(indices, part)
            yield part

    @cached_property
    def _file(self) -> int:
        try:
            file = os.open(self.path, os.O_RDONLY | BINARY)
        except OSError as error:
            raise WorkFailed(
                f"dataset: the prepared images {self.path} cannot be read ({error.strerror}); "
                "start the job again",
                reason="missing_data",
            ) from error
        return file

    def __del__(self) -> None:
        if "_file" in self.__dict__:
            os.close(self._file)
