"""Batches of conversations: which samples a step learns from, and an assistant's preparation of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied.assistant import Assistant, Ready
from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.mixture import SampleMixture
from embodied.data.multimodal.readers.base import Reader
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.lvlm.chat.packing import Packing


class ConversationStream:
    """A stream (`embodied.training.feed.Stream`) of what an assistant learns from.

    Args:
        assistant: prepares the samples.
        sources: readers by name.
        weights: share of rows by name; see `SampleMixture`.
        batch_size: B, samples of one optimizer step.
        seed: of the order.
        on_error: what becomes of a sample that cannot be used: `raise` stops, `skip` counts it and takes the next one
            of its source.
        packing: lays the samples of a step into fewer rows; None: one row each, padded. Which samples a step has does
            not depend on it: step s has numbers s x B to (s + 1) x B of the epochs' order, packed or not.
        together: by name, how many samples that follow each other in a source are met together; see `SampleMixture`.

    Raises:
        ValueError: the assistant's conversations cannot share a row.
    """

    def __init__(
        self,
        assistant: Assistant,
        sources: Mapping[str, Reader],
        weights: Mapping[str, float],
        batch_size: int,
        seed: int,
        on_error: OnError = "raise",
        packing: Packing | None = None,
        together: Mapping[str, int] | None = None,
    ) -> None:
        self.assistant, self.on_error, self.packing = assistant, on_error, packing
        if packing is not None:
            packing.prepare(assistant.model)
        self.samples = SampleMixture(sources, weights, batch_size, seed, on_error, together)
        self.batch_size = batch_size

    def indices(self, step: int) -> np.ndarray:
        """Which samples make up the batch of a step, (B,), numbered through the sources."""
        return self.samples.stream.indices(step)

    def row_seeds(self, step: int) -> np.ndarray:
        """One seed per row of that batch, (B,)."""
        return self.samples.stream.row_seeds(step)

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """These samples as one raw batch (`Assistant.collate`), with their `layout` where they share rows.

        Raises:
            BrokenSample: one cannot be used, and `on_error` is `raise`.
        """
        rows = [self._ready(*self.samples.mixture.place(int(index))) for index in indices]
        batch = self.assistant.collate(rows)
        if self.packing is None:
            return batch
        return batch | {"layout": self.packing.layout([row.encoded for row in rows])}

    def name(self, index: int) -> str:
        """What a sample is called."""
        source, number = self.samples.mixture.place(index)
        return f"{source} {number}"

    def _ready(self, source: str, number: int) -> Ready:
        reader = self.samples.sources[source]
        for further in range(len(reader)):
            sample = self.samples.read(source, (number + further) % len(reader))
            try:
                return self._fitting(self.assistant.lesson(sample), sample)
            except BrokenSample as fault:
                if self.on_error == "raise":
                    raise
                self.samples.faults.note(fault, source)
        raise ValueError(f"no sample of '{source}' can be used: {self.samples.faults}")

    def _fitting(self, ready: Ready, sample: Sample) -> Ready:
        if self.packing is not None and len(ready.encoded) > self.packing.tokens:
            detail = f"it has {len(ready.encoded)} tokens, and a row at most packing.tokens={self.packing.tokens}"
            raise BrokenSample("longer than a row", detail, sample=sample.id)
        return ready


class ConversationSource:
    """Conversations as one source of a mixture (`embodied.data.mixture`), beside demonstrations.

    Args:
        assistant: prepares the samples.
        reader: has them.
    """

    def __init__(self, assistant: Assistant, reader: Reader) -> None:
        self.assistant, self.reader = assistant, reader

    def __len__(self) -> int:
        return len(self.reader)

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """These samples as one raw batch (`Assistant.collate`).

        Raises:
            BrokenSample: one cannot be used.
        """
        return self.assistant.collate([self.assistant.lesson(self.reader[int(index)]) for index in indices])
