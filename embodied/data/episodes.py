"""Whole episodes as samples: what a memory (a map, an RNN) learns from, for it must have seen all that came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied.data.cache import Cache
from embodied.data.windows import Windows


class Episodes(Windows):
    """One sample per episode: all its frames, each with its own chunk of actions.

    A batch is as long as its longest episode; shorter ones are padded in front, by their first frame, as windows are.

    Args:
        cache: see `Windows`.
        options: cameras, horizon, episodes, observations, resident of `Windows`.

    Raises:
        ValueError: see `Windows`.
    """

    def __init__(self, cache: Cache, **options: Any) -> None:
        super().__init__(cache, **{**options, "history": 1, "every_step": True})

    def __len__(self) -> int:
        return len(self.episode_ends)

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Episodes `indices` (B,), T frames each, T of the longest: actions (B, T, H, A)."""
        at = self._checked(indices)
        last = self.episode_ends[at] - 1
        longest = int((last - self._first[last]).max()) + 1 if len(at) else 1
        return self._gathered(last, longest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One episode, without the batch axis."""
        return {key: value[0] for key, value in self.batch([index]).items()}

    def where(self, index: int) -> str:
        return f"{index} (episode {self.episodes[index]})"
