"""Trajectory datasets: LeRobot files in, windows of raw batches out.

    cache = Cache(LeRobotDataset("data/button"), cameras=["corner2"])
    windows = Windows(cache, history=2, horizon=8)
    stream = BatchStream(windows, batch_size=64, seed=0)
    batch = stream.gather(stream.indices(step))

Another format is another reader with the attributes and methods of `LeRobotDataset` that `Cache` uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embodied.data.cache import Cache
    from embodied.data.lerobot import DatasetWriter, LeRobotDataset
    from embodied.data.mixture import Mixture, MixtureStream
    from embodied.data.stream import BatchStream
    from embodied.data.windows import Windows

__all__ = ["BatchStream", "Cache", "DatasetWriter", "LeRobotDataset", "Mixture", "MixtureStream", "Windows"]

_HOME = {
    "BatchStream": "stream",
    "Cache": "cache",
    "DatasetWriter": "lerobot",
    "LeRobotDataset": "lerobot",
    "Mixture": "mixture",
    "MixtureStream": "mixture",
    "Windows": "windows",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: the processes that only write episodes then start without torch."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
