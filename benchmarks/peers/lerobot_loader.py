"""Items per second of our cached windows and of LeRobot's dataset: same files, same windows, equal tensors.

    PYTHONPATH=. HF_HUB_OFFLINE=1 .venv-lerobot/bin/python benchmarks/peers/lerobot_loader.py

One item is two past frames of every camera (float32, CHW, [0, 1]), the latest state and eight actions with their
padding masks. Both sides give collated batches of 32 random items, in one process, with one thread. Ours has decoded
the images before (once; the time is printed) and pays for the conversion to float, which training does on the device.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

torch.set_num_threads(1)
# the torchvision of PyPI declares these for GPUs only, and cannot be imported beside a CPU build of torch without them
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import lerobot  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset as TheirDataset  # noqa: E402

from embodied.data import Cache, DatasetWriter, LeRobotDataset, Windows  # noqa: E402
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec  # noqa: E402

HISTORY, HORIZON, BATCH = 2, 8, 32
Batch = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", type=Path, help="a dataset that stores images; one of smooth noise, 96 x 96, unless given"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--batches", type=int, default=8, help="batches of theirs in a round; ours does 20 times as many"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or synthetic(Path(folder) / "noise")
        compare(root, Path(folder) / "cache", arguments.rounds, arguments.batches)


def compare(root: Path, cache_folder: Path, rounds: int, batches: int) -> None:
    dataset = LeRobotDataset(root)
    start = time.perf_counter()
    cache = Cache(dataset, location=cache_folder, stream=None)
    decoding = time.perf_counter() - start
    windows = Windows(cache, history=HISTORY, horizon=HORIZON)
    step = 1 / dataset.fps
    cameras = [dataset.camera_key(camera) for camera in dataset.cameras]
    deltas = {key: [(i - HISTORY + 1) * step for i in range(HISTORY)] for key in cameras}
    their = TheirDataset(
        "local/bench", root=root, delta_timestamps=deltas | {"action": [i * step for i in range(HORIZON)]}
    )

    def ours(indices: np.ndarray) -> Batch:
        batch = windows.batch(indices)
        for key in cameras:
            batch[key] = (
                batch[key].permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            )
        return batch

    def theirs(indices: np.ndarray) -> Batch:
        return torch.utils.data.default_collate([their[int(index)] for index in indices])

    rng = np.random.default_rng(0)
    checked = equal(windows, ours, theirs, cameras, rng)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, 1 thread; lerobot {lerobot.__version__}")
    shapes = ", ".join("x".join(map(str, dataset.camera_feature(camera).shape)) for camera in dataset.cameras)
    print(f"{dataset.frames} frames, images {shapes}; {checked} items compared, all tensors equal")
    print(f"decoded once in {decoding:.2f} s ({dataset.frames / decoding:.0f} frames/s)")
    sides: dict[str, tuple[Callable[[np.ndarray], Batch], int]] = {
        "LeRobot": (theirs, batches),
        "ours": (ours, 20 * batches),
        "ours, left as uint8": (windows.batch, 20 * batches),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):  # the first is to warm up
        for name, (load, count) in sides.items():
            picked = rng.integers(0, len(windows), (count, BATCH))
            start = time.perf_counter()
            for indices in picked:
                load(indices)
            rates[name].append(count * BATCH / (time.perf_counter() - start))
    base = statistics.median(rates["LeRobot"][1:])
    for name, values in rates.items():
        low, middle, high = np.percentile(values[1:], [25, 50, 75])
        print(f"{name:<20} {middle:9.0f} items/s  (quartiles {low:.0f} to {high:.0f})  {middle / base:6.1f} x")


def equal(
    windows: Windows,
    ours: Callable[[np.ndarray], Batch],
    theirs: Callable[[np.ndarray], Batch],
    cameras: list[str],
    rng: Any,
) -> int:
    """Compare items at the ends of episodes and at random; returns how many."""
    ends = windows.episode_ends
    edges = np.concatenate([ends - 1, ends - HORIZON, ends[:-1], ends[:-1] + 1, [0, 1]])
    indices = np.unique(np.concatenate([edges, rng.integers(0, len(windows), 200)]))
    a, b = ours(indices), theirs(indices)
    for key in [*cameras, "action", "action_is_pad"]:
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key
    for key in cameras:
        assert torch.equal(a["observation_is_pad"], b[f"{key}_is_pad"]), key
    if "observation.state" in a:
        assert torch.equal(a["observation.state"][:, -1], b["observation.state"])
    assert a["task"] == b["task"]
    return len(indices)


def synthetic(root: Path, episodes: int = 20, length: int = 100) -> Path:
    """A dataset of moving smooth noise, 96 x 96."""
    body = Embodiment(
        name="noise",
        action=ActionSpec(names=("x", "y", "z", "g"), units=("1",) * 4, low=(-1.0,) * 4, high=(1.0,) * 4),
        state=StateSpec(names=("a", "b", "c", "d"), units=("1",) * 4),
        cameras=(Camera("top", 96, 96, "noise:"),),
        rate=10,
    )
    with DatasetWriter(root, body) as writer:
        for episode in range(episodes):
            rng = np.random.default_rng(episode)
            coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, 16, 28), dtype=np.uint8)).float()
            scene = (
                torch.nn.functional.interpolate(coarse, (96, 96 + length), mode="bilinear")[0].byte().permute(1, 2, 0)
            )
            frames = {
                "observation.images.top": np.stack([scene[:, t : t + 96].numpy() for t in range(length)]),
                "observation.state": rng.normal(size=(length, 4)),
                "action": rng.uniform(-1, 1, (length, 4)),
            }
            writer.add_episode(frames, f"task {episode % 3}")
    return root


if __name__ == "__main__":
    main()
