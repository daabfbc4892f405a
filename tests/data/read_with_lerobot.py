"""Runs under LeRobot's interpreter (no part of this project is imported): every item of a dataset into an .npz file.

python read_with_lerobot.py ROOT OUT.npz
"""

import sys

import av
import numpy as np
import torch

# see golden/make_golden.py
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets import lerobot_dataset  # noqa: E402


def decode(path, timestamps, tolerance_s, backend=None):
    """The frames at `timestamps`: what LeRobot's own decoder does, whose two backends may both be missing here."""
    with av.open(str(path)) as film:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]
    times = np.array([time for time, _ in frames])
    nearest = [int(np.abs(times - wanted).argmin()) for wanted in timestamps]
    assert all(abs(times[i] - wanted) < tolerance_s for i, wanted in zip(nearest, timestamps, strict=True))
    return torch.stack([torch.from_numpy(frames[i][1]).permute(2, 0, 1) / 255 for i in nearest])


def main(root: str, out: str) -> None:
    lerobot_dataset.decode_video_frames = decode
    meta = lerobot_dataset.LeRobotDatasetMetadata("local/test", root=root)
    step = 1 / meta.fps
    deltas = {key: [-step, 0.0] for key in meta.camera_keys} | {"action": [i * step for i in range(4)]}
    dataset = lerobot_dataset.LeRobotDataset("local/test", root=root, delta_timestamps=deltas)
    items = [dataset[i] for i in range(len(dataset))]
    arrays = {key: np.stack([np.asarray(item[key]) for item in items]) for key in items[0]}
    arrays |= {f"stats/{key}/{name}": value for key, entry in meta.stats.items() for name, value in entry.items()}
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
