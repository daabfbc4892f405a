"""A small dataset of a made-up body, written as any other is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embodied.data import DatasetWriter
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

BODY = Embodiment(
    name="toy",
    action=ActionSpec(("x", "y"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
    state=StateSpec(("x", "y"), ("m", "m")),
    cameras=(Camera("front", 16, 16, "toy"), Camera("side", 16, 16, "toy")),
    rate=10.0,
)


def write_demonstrations(root: str | Path, episodes: int = 4, length: int = 12, seed: int = 0) -> Path:
    """Actions that are a function of the state; two instructions."""
    g = np.random.default_rng(seed)
    with DatasetWriter(root, BODY) as writer:
        for episode in range(episodes):
            state = g.uniform(-1, 1, size=(length, 2)).astype(np.float32)
            frames = {
                f"observation.images.{c}": g.integers(0, 255, (length, 16, 16, 3), np.uint8) for c in ("front", "side")
            }
            writer.add_episode(
                frames | {"observation.state": state, "action": -state}, f"go {['left', 'right'][episode % 2]}"
            )
    return Path(root)
