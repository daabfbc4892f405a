"""Which samples make up each training step: a pure function of seed and step, so that training can go on anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Source(Protocol):
    """Samples by index, such as `Windows`."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]: ...


class BatchStream:
    """Seeded epochs of a source, cut into full batches.

    Sample k of the whole run is entry k of all epochs' permutations put in a row: a batch may span two epochs, none is
    short, and each sample is seen once per epoch. Processes and accumulation take their rows of the same batch (see
    `embodied.training.feed`), so their number does not change what is learned. Other orders (weighted mixtures)
    override `order`.

    Args:
        source: the samples.
        batch_size: B, rows of one optimizer step, over all processes.
        seed: of the order and of the rows' seeds.

    Raises:
        ValueError: the source is empty, or the batch size is not positive.
    """

    def __init__(self, source: Source, batch_size: int, seed: int) -> None:
        if len(source) == 0:
            raise ValueError("there is nothing to train on: the source has no samples")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self._epochs: dict[int, np.ndarray] = {}

    def indices(self, step: int) -> np.ndarray:
        """Samples of the batch of a step, (B,)."""
        rows = step * self.batch_size + np.arange(self.batch_size)
        epochs, places = np.divmod(rows, len(self.source))
        picked = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            picked[epochs == epoch] = self._order(int(epoch))[places[epochs == epoch]]
        return picked

    def row_seeds(self, step: int) -> np.ndarray:
        """One seed per row of that batch, (B,) int64 >= 0: a function of seed and the row's place in the whole run."""
        rows = np.uint64(step) * np.uint64(self.batch_size) + np.arange(self.batch_size, dtype=np.uint64)
        mixed = _mix(rows + _mix(np.array([self.seed % 2**64], np.uint64)))
        return (mixed >> np.uint64(1)).astype(np.int64)

    def gather(self, indices: np.ndarray) -> dict[str, Any]:
        """These samples as one raw batch."""
        return self.source.batch(indices)

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch, (len(source),), in the order they are seen."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.source))

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {e: o for e, o in self._epochs.items() if e == epoch - 1} | {epoch: self.order(epoch)}
        return self._epochs[epoch]


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's step (Steele et al. 2014): neighbouring integers to unrelated ones, (N,) uint64."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
