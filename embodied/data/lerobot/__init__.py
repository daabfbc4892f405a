"""LeRobot datasets on disk: v3.0 written and read, v2.1 read. LeRobot's own library is not needed.

Writing: `DatasetWriter` for one process; `begin`, `stage_episode` in any number of processes, then `finalize`.
Reading: `LeRobotDataset`.
"""

from embodied.data.lerobot.finalize import finalize
from embodied.data.lerobot.reader import LeRobotDataset
from embodied.data.lerobot.staging import begin, done, stage_episode, staged
from embodied.data.lerobot.writer import DatasetWriter

__all__ = ["DatasetWriter", "LeRobotDataset", "begin", "done", "finalize", "stage_episode", "staged"]
