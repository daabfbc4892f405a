"""Several datasets in one training: each has an exact share of the rows, and goes through its own epochs.

    mixture = Mixture({"metaworld": windows, "panda": other_windows})
    stream = MixtureStream(mixture, {"metaworld": 2.0, "panda": 1.0}, batch_size=96, seed=0)

Rows are dealt to the sources evenly instead of drawn: after any number of rows, each source has had its share of them
to within one row per source, and none is used up before another, because each starts its next epoch when it is through.
Which sample a row is remains a function of seed and row, as in `embodied.data.stream`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from embodied.building import nearest
from embodied.data.stream import BatchStream, Source

SOURCES, ROW = "sources", "row"
PRECISION = 10**6
"""Shares are ratios of whole numbers up to this, so that counting rows is exact however long a training is."""


class Mixture:
    """Named sources as one: samples are numbered through them, one source after the other.

    A batch is a mixed one. Bodies differ in cameras and in sizes, so rows of different sources can't be stacked:
    `{"sources": {name: raw batch}}`, where each raw batch (`embodied.processing.base`) has a further entry `row`: for
    each of its rows, the place in the whole batch. Sources without a row in it are left out.

    Args:
        sources: samples by the source's name.

    Attributes:
        ends: (number of sources,), the number one after each source's last sample.

    Raises:
        ValueError: there is no source, or one without samples.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        if not sources:
            raise ValueError("a mixture needs at least one source")
        for name, source in sources.items():
            if len(source) == 0:
                raise ValueError(f"source '{name}' of the mixture has no samples")
        self.sources = dict(sources)
        self.ends = np.cumsum([len(source) for source in self.sources.values()])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """The mixed batch of these samples."""
        at = np.asarray(indices, np.int64)
        which = np.searchsorted(self.ends, at, side="right")
        parts: dict[str, Any] = {}
        for number, (name, source) in enumerate(self.sources.items()):
            rows = np.flatnonzero(which == number)
            if len(rows):
                local = at[rows] - (self.ends[number] - len(source))
                parts[name] = source.batch(local) | {ROW: rows.tolist()}
        return {SOURCES: parts}

    def place(self, index: int) -> tuple[str, int]:
        """Which source a sample is of, and its number there."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        name = list(self.sources)[number]
        return name, int(index - (self.ends[number] - len(self.sources[name])))


class MixtureStream(BatchStream):
    """Batches of a mixture in which each source has its share.

    Args:
        source: the mixture.
        weights: how many rows each source gets in proportion to the others; 1 where a name is missing.
        batch_size, seed: see `BatchStream`.
        together: by name, how many samples that follow each other in a source also do so in its epochs, whose order is
            then one of such blocks; 1 where a name is missing.

    Raises:
        ValueError: a weight or a block that is not positive, or of no source.
    """

    def __init__(
        self,
        source: Mixture,
        weights: Mapping[str, float],
        batch_size: int,
        seed: int,
        together: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(source, batch_size, seed)
        for name, block in (together or {}).items():
            if name not in source.sources:
                raise ValueError(f"together is given for '{name}', which is no source{nearest(name, source.sources)}")
            if type(block) is not int or block < 1:
                raise ValueError(f"together of source '{name}' must be a whole number of samples, got {block!r}")
        for name, weight in weights.items():
            if name not in source.sources:
                raise ValueError(f"a weight is given for '{name}', which is no source{nearest(name, source.sources)}")
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of source '{name}' must be positive, got {weight}")
        exact = [Fraction(weights.get(name, 1.0)).limit_denominator(PRECISION) for name in source.sources]
        if not all(exact):
            raise ValueError(f"weights of sources may not be smaller than {1 / PRECISION}")
        left = [sum(exact[number:], Fraction(0)) for number in range(len(exact))]
        self.sizes = [len(part) for part in source.sources.values()]
        self.shares = [(w / rest).limit_denominator(PRECISION) for w, rest in zip(exact, left, strict=True)]
        self.blocks = [(together or {}).get(name, 1) for name in source.sources]
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def indices(self, step: int) -> np.ndarray:
        """Samples of the batch of a step, (B,)."""
        which, turn = self.dealt(step)
        picked = np.empty(self.batch_size, np.int64)
        start = 0
        for number, size in enumerate(self.sizes):
            rows = np.flatnonzero(which == number)
            epochs, places = np.divmod(turn[rows], size)
            for epoch in np.unique(epochs):
                here = epochs == epoch
                picked[rows[here]] = start + self._order_of(number, int(epoch))[places[here]]
            start += size
        return picked

    def dealt(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """For each row of a step's batch: the number of its source, (B,), and how many rows that had before, (B,).

        A chain: the first source takes its share of all rows, evenly (after k rows it has had floor(k x share), the
        pixels of a straight line), the second its share of those the first left, and so on. The last takes the rest.
        """
        which, turn = np.empty(self.batch_size, np.int64), np.empty(self.batch_size, np.int64)
        rest, before = np.arange(self.batch_size), step * self.batch_size
        for number, share in enumerate(self.shares):
            had, remainder = divmod(before * share.numerator, share.denominator)
            taken = (remainder + np.arange(len(rest) + 1) * share.numerator) // share.denominator
            mine = np.diff(taken) == 1
            which[rest[mine]], turn[rest[mine]] = number, had + taken[:-1][mine]
            rest, before = rest[~mine], before - had
        return which, turn

    def _order_of(self, number: int, epoch: int) -> np.ndarray:
        if (number, epoch) not in self._orders:
            kept = {key: order for key, order in self._orders.items() if key[0] != number or key[1] == epoch - 1}
            size, block = self.sizes[number], self.blocks[number]
            order = np.random.default_rng([self.seed, number, epoch]).permutation(-(-size // block))
            fresh = (order[:, None] * block + np.arange(block)).ravel()
            fresh = fresh[fresh < size]
            self._orders = kept | {(number, epoch): fresh}
        return self._orders[number, epoch]
