"""Several multi-modal datasets in one training: which samples each step sees is a function of seed and step.

    mixture = SampleMixture({"llava": llava, "coco": coco}, {"llava": 2.0, "coco": 1.0}, batch_size=64, seed=0)
    for step in range(resumed_at, steps):
        batch = mixture.samples(step)

Rows are dealt by `embodied.data.mixture.MixtureStream`: each dataset has its exact share of the rows and goes through
its own seeded epochs, and nothing has to be saved to go on at any step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embodied.data.mixture import Mixture, MixtureStream
from embodied.data.multimodal.faults import Faults, OnError, check_on_error
from embodied.data.multimodal.readers.base import Reader
from embodied.data.multimodal.sample import BrokenSample, Sample

TRIES = 1000
"""How many broken samples in a row make a dataset useless."""


class SampleMixture:
    """Batches of samples of several datasets.

    Args:
        sources: readers by name.
        weights: by name, the share of rows in proportion; 1 where a name is missing. Unless given, by how many samples
            each dataset has, so that every sample is seen equally often.
        batch_size: B, samples of a step.
        seed: of the order.
        on_error: what becomes of a broken sample: `raise` stops, `skip` counts it and takes the next good one of its
            dataset instead, the same one whenever that step is repeated.
        together: by name, how many samples that follow each other in a dataset are also met one after the other, so
            that a step has several about the same picture; 1 where a name is missing.

    Attributes:
        faults: what was skipped.

    Raises:
        ValueError: there are no sources, or one is empty, a weight is not positive or names no source.
    """

    def __init__(
        self,
        sources: Mapping[str, Reader],
        weights: Mapping[str, float] | None = None,
        batch_size: int = 1,
        seed: int = 0,
        on_error: OnError = "raise",
        together: Mapping[str, int] | None = None,
    ) -> None:
        check_on_error(on_error)
        self.mixture = Mixture({name: _Numbers(reader) for name, reader in sources.items()})
        if weights is None:
            weights = {name: float(len(reader)) for name, reader in sources.items()}
        self.stream = MixtureStream(self.mixture, weights, batch_size, seed, together)
        self.sources, self.batch_size, self.seed, self.on_error = dict(sources), batch_size, seed, on_error
        self.faults = Faults()

    def __len__(self) -> int:
        """Samples of all datasets together."""
        return len(self.mixture)

    def places(self, step: int) -> list[tuple[str, int]]:
        """Which sample each row of a step is: (dataset, number in it), B of them."""
        return [self.mixture.place(int(index)) for index in self.stream.indices(step)]

    def samples(self, step: int, rows: Sequence[int] | None = None) -> list[Sample]:
        """The samples of a step; of some of its rows only, where a process has its part.

        Raises:
            BrokenSample: one cannot be used, and `on_error` is `raise`.
            ValueError: a thousand in a row cannot be used.
        """
        places = self.places(step)
        return [self.read(*places[row]) for row in (range(self.batch_size) if rows is None else rows)]

    def read(self, name: str, index: int) -> Sample:
        """Sample `index` of a dataset, or the next good one, as `on_error` says."""
        reader = self.sources[name]
        for further in range(min(TRIES, len(reader))):
            try:
                return reader[(index + further) % len(reader)]
            except BrokenSample as fault:
                if self.on_error == "raise":
                    raise
                self.faults.note(fault, name)
        raise ValueError(f"no usable sample in '{name}' from number {index} on: {self.faults}")


class _Numbers:
    """A reader as `Mixture` wants it, which only counts."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def batch(self, indices: Any) -> dict[str, Any]:
        return {"samples": [self.reader[int(index)] for index in indices]}
