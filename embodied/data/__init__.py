"""Trajectory datasets: LeRobot files in, windows of raw batches out.

    cache = Cache(LeRobotDataset("data/button"), cameras=["corner2"])
    windows = Windows(cache, history=2, horizon=8)
    stream = BatchStream(windows, batch_size=64, seed=0)
    batch = stream.gather(stream.indices(step))

Another format is another reader with the attributes and methods of `LeRobotDataset` that `Cache` uses.
"""

from embodied.data.cache import Cache
from embodied.data.lerobot import DatasetWriter, LeRobotDataset
from embodied.data.stream import BatchStream
from embodied.data.windows import Windows

__all__ = ["BatchStream", "Cache", "DatasetWriter", "LeRobotDataset", "Windows"]
