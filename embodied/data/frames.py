"""A file of frames as an array that does not fill the memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

FAULT_AROUND = 64 * 1024
"""Bytes that Linux maps around a page that is touched, whole or not."""


class MappedFrames:
    """Fixed-size frames in a file, gathered by index.

    Pages of a mapped file count as this process's memory once touched, and a training run touches all of them. After
    every `budget` bytes the mapping is told to forget its pages: they stay in the system's page cache, which it empties
    when others need the memory.

    Args:
        file: frames one after the other, uint8.
        shape: (N, H, W, 3).
        budget: bytes that may be resident.

    Raises:
        ValueError: the file's size is not that of `shape`.
    """

    def __init__(self, file: Path, shape: tuple[int, int, int, int], budget: int = 128 * 2**20) -> None:
        size, needed = file.stat().st_size, int(np.prod(shape))
        if size != needed:
            raise ValueError(f"{file} has {size} bytes, not {needed}: delete {file.parent} and it is made anew")
        with file.open("rb") as handle:
            # private and writable, though nothing writes: torch warns of arrays it may not write to
            self._map = mmap.mmap(handle.fileno(), needed, access=mmap.ACCESS_COPY)
        self.array = np.frombuffer(self._map, np.uint8).reshape(shape)
        self.budget, self._touched = budget, 0

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Frames `indices` (...,) as (..., H, W, 3): the one copy that a batch costs."""
        frame = self.array.shape[1:]
        out = np.empty((*indices.shape, *frame), np.uint8)
        np.take(self.array, indices.reshape(-1), axis=0, out=out.reshape(-1, *frame), mode="clip")
        self._touch(indices.size * (self.array[0].nbytes + FAULT_AROUND))
        return out

    def view(self, start: int, stop: int) -> np.ndarray:
        """Frames start to stop - 1, (n, H, W, 3), without a copy."""
        self._touch((stop - start) * (self.array[0].nbytes + FAULT_AROUND))
        return self.array[start:stop]

    def _touch(self, count: int) -> None:
        self._touched += count
        if self._touched > self.budget:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0
