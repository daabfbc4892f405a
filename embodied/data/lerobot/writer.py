"""Write a dataset from one process, episode by episode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from embodied.data.lerobot.finalize import finalize
from embodied.data.lerobot.staging import begin, stage_episode
from embodied.spec import Embodiment


class DatasetWriter:
    """`begin`, `stage_episode` and `finalize` (see `staging`) as one object.

        with DatasetWriter("data/button", embodiment) as writer:
            for seed in range(50):
                if seed not in writer.done:
                    frames, task = demonstrate(seed)
                    writer.add_episode(frames, task, {"seed": seed}, number=seed)

    An episode is safe once `add_episode` returned. The dataset is made when the block ends, also by an error, so that
    what was collected can be read; after a kill, opening it again with the same arguments goes on.

    Args:
        root, embodiment, image_storage, settings: as `begin`'s `root`, `embodiment`, `images` and `settings`.
        fps: frames per second; the embodiment's rate, the default, is the only one allowed.

    Attributes:
        done: numbers of the episodes that are there.

    Raises:
        ValueError: as `begin`; or `fps` is not the embodiment's rate.
    """

    def __init__(
        self,
        root: str | Path,
        embodiment: Embodiment,
        fps: float | None = None,
        image_storage: str = "image",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if fps is not None and fps != embodiment.rate:
            raise ValueError(
                f"the dataset's {fps} frames per second are not the embodiment's rate of {embodiment.rate} Hz"
            )
        self.root = Path(root)
        self.done = begin(root, embodiment, image_storage, settings)

    def add_episode(
        self,
        frames: Mapping[str, np.ndarray],
        task: str,
        metadata: Mapping[str, Any] | None = None,
        number: int | None = None,
    ) -> int:
        """Keep an episode (see `stage_episode`); its number is the next free one unless given. Returns the number."""
        number = max(self.done, default=-1) + 1 if number is None else number
        stage_episode(self.root, number, frames, task, metadata)
        self.done.add(number)
        return number

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.done:
            finalize(self.root)
