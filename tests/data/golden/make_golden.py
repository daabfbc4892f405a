"""Writes the golden dataset with LeRobot's own library, 0.4.4, in its own environment (benchmarks/peers/README.md).

    HF_HUB_OFFLINE=1 python tests/data/golden/make_golden.py tests/data/golden/lerobot-0.4.4

Run it again only for another version of LeRobot, into another folder.
"""

import sys

import numpy as np
import torch

# the torchvision of PyPI declares these for GPUs only, and cannot be imported beside a CPU build of torch without them
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

LENGTHS, TASKS, FPS = (5, 7, 6), ("push", "pull", "push"), 10


def frame(episode: int, t: int) -> dict:
    """What the tests expect to read back: an image per formula, and numbers that name their place."""
    rows, columns, channels = np.meshgrid(np.arange(16), np.arange(24), np.arange(3), indexing="ij")
    return {
        "observation.images.top": ((rows * 7 + columns * 3 + channels * 50 + t * 11 + episode * 29) % 256).astype(
            np.uint8
        ),
        "observation.images.wrist": np.full((64, 64, 3), 20 * t + 5 * episode + 10, np.uint8),
        "observation.state": np.array([episode, t, t / 8], np.float32),
        "action": np.array([t + 0.5, -episode], np.float32),
    }


def main(root: str) -> None:
    axes = ["height", "width", "channels"]
    features = {
        "observation.images.top": {"dtype": "image", "shape": (16, 24, 3), "names": axes},
        "observation.images.wrist": {"dtype": "video", "shape": (64, 64, 3), "names": axes},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["e", "t", "s"]},
        "action": {"dtype": "float32", "shape": (2,), "names": {"motors": ["x", "y"]}},
    }
    dataset = LeRobotDataset.create("golden/small", fps=FPS, features=features, root=root, robot_type="toy")
    for episode, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        for t in range(length):
            dataset.add_frame({**frame(episode, t), "task": task})
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    main(sys.argv[1])
