"""Batches ready before they are needed: a thread fetches this process's share of a step while the step before runs.

One batch is the work of one optimizer step, whoever computes it. Its rows are dealt out in order to the processes and
to each process's accumulation parts, so the number of either changes nothing about what is learned.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from embodied.data.mixture import ROW, SOURCES
from embodied.lvlm.chat.pieces import IGNORED


class Stream(Protocol):
    """Where batches come from: a pure function of the step, so that training can go on anywhere.

    Attributes:
        batch_size: B, rows of one optimizer step.
    """

    batch_size: int

    def indices(self, step: int) -> np.ndarray:
        """Which samples make up the batch of a step, (B,)."""

    def row_seeds(self, step: int) -> np.ndarray:
        """One seed per row of that batch, (B,), for augmentation and a head's noise."""

    def gather(self, indices: np.ndarray) -> dict[str, Any]:
        """These samples as one raw batch (`embodied.processing.base`)."""


@dataclass(frozen=True)
class Part:
    """What one forward and backward pass works on.

    Attributes:
        indices: the samples, (b,).
        seeds: one per sample, (b,).
        batch: the samples, raw, or mixed (`embodied.data.mixture`).
        kept: how many action steps count, the rest being padding.
    """

    indices: np.ndarray
    seeds: np.ndarray
    batch: dict[str, Any]
    kept: int

    def generators(self) -> list[torch.Generator]:
        """A fresh generator per row."""
        return [torch.Generator().manual_seed(int(seed)) for seed in self.seeds]

    def row(self, i: int) -> Part:
        """One row as a part."""
        batch = _row(self.batch, i)
        return Part(self.indices[i : i + 1], self.seeds[i : i + 1], batch, kept_steps(batch))


def kept_steps(batch: dict[str, Any]) -> int:
    """How many action steps of a raw or mixed batch are no padding; of conversations, how many tokens are learned."""
    if SOURCES in batch:
        return sum(kept_steps(part) for part in batch[SOURCES].values())
    if "labels" in batch:
        return int((batch["labels"] != IGNORED).sum())
    return int((~batch["action_is_pad"]).sum())


def shares(rows: int, processes: int, accumulate: int) -> list[np.ndarray]:
    """The rows of each process's parts: entry `process * accumulate + part`.

    Raises:
        ValueError: there are fewer rows than parts.
    """
    if rows < processes * accumulate:
        needed = f"{processes} processes x {accumulate} accumulation steps"
        raise ValueError(f"trainer.batch_size is {rows}, but {needed} need at least {processes * accumulate} rows")
    return np.array_split(np.arange(rows), processes * accumulate)


def fetch(stream: Stream, step: int, rows: Sequence[np.ndarray]) -> list[Part]:
    """The parts of one step, on the CPU."""
    indices, seeds = np.asarray(stream.indices(step)), np.asarray(stream.row_seeds(step))
    parts = []
    for some in rows:
        batch = stream.gather(indices[some])
        parts.append(Part(indices[some], seeds[some], batch, kept_steps(batch)))
    return parts


class Feed:
    """The steps `[first, last)` of a stream, one after the other.

    Args:
        rows: see `shares`; those of this process.
        device: tensors are copied there from pinned memory where it is a GPU, without waiting.
        depth: how many steps are kept ready.

    Attributes:
        waited: seconds that `next` has waited for data so far.
    """

    def __init__(
        self, stream: Stream, rows: Sequence[np.ndarray], first: int, last: int, device: torch.device, depth: int = 2
    ) -> None:
        self.waited = 0.0
        self._device = device
        self._ready: queue.Queue[list[Part] | BaseException] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(stream, rows, first, last), daemon=True, name="feed")
        self._thread.start()

    def next(self) -> list[Part]:
        """The parts of the next step.

        Raises:
            Exception: what the stream raised.
        """
        start = time.perf_counter()
        parts = self._ready.get()
        self.waited += time.perf_counter() - start
        if isinstance(parts, BaseException):
            raise parts
        return [Part(p.indices, p.seeds, to_device(p.batch, self._device), p.kept) for p in parts]

    def close(self) -> None:
        """Stop fetching."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue

    def _work(self, stream: Stream, rows: Sequence[np.ndarray], first: int, last: int) -> None:
        try:
            for step in range(first, last):
                if self._stop.is_set():
                    return
                parts = fetch(stream, step, rows)
                if self._device.type == "cuda":
                    parts = [Part(p.indices, p.seeds, _pinned(p.batch), p.kept) for p in parts]
                self._ready.put(parts)
        except BaseException as error:
            self._ready.put(error)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _pinned(batch: dict[str, Any]) -> dict[str, Any]:
    return _each(batch, Tensor.pin_memory)


def _each(batch: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The batch with its tensors changed, those of a mixed batch's parts too."""
    return {
        key: change(value) if isinstance(value, Tensor) else _each(value, change) if isinstance(value, dict) else value
        for key, value in batch.items()
    }


def _row(batch: dict[str, Any], i: int) -> dict[str, Any]:
    """Row i of a batch as a batch."""
    if SOURCES not in batch:
        return {key: value[i : i + 1] for key, value in batch.items()}
    name, part = next((name, part) for name, part in batch[SOURCES].items() if i in part[ROW])
    return {SOURCES: {name: _row(part, part[ROW].index(i)) | {ROW: [0]}}}
