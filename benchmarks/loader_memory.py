"""Resident memory while training on more frames than one wants in memory: it has to stay flat.

    python benchmarks/loader_memory.py                       # 2.5 GB of frames, one and a half epochs
    python benchmarks/loader_memory.py --resident-mb 100000  # for contrast: never give pages back

Makes a dataset of plain-coloured 480 x 640 images (so that encoding is quick), decodes it into the cache, and trains a
tiny convolution on batches of two frames, through the trainer's own feed. Needs about 3 GB in `--folder`. Exits with
status 1 where the peak of the second half is more than 64 MB above that of the first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from embodied.data import BatchStream, Cache, DatasetWriter, LeRobotDataset, Windows
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec
from embodied.training.feed import Feed, shares

ALLOWED_GROWTH = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.5, help="of decoded frames")
    parser.add_argument("--epochs", type=float, default=1.5)
    parser.add_argument("--resident-mb", type=int, default=128, help="what Windows may keep mapped")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--folder", type=Path, help="where to make the data; a temporary folder unless given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        shape = (arguments.height, arguments.width)
        return train(make(Path(folder) / "plain", arguments.gigabytes, *shape), arguments.epochs, arguments.resident_mb)


def train(dataset: LeRobotDataset, epochs: float, resident: int, batch_size: int = 8, shown: int = 20) -> int:
    """Train a little and print memory; 0 where it stayed flat."""
    torch.set_num_threads(1)
    windows = Windows(Cache(dataset, stream=sys.stderr), history=2, horizon=4, resident=resident * 2**20)
    stream = BatchStream(windows, batch_size, seed=0)
    steps = max(int(epochs * len(windows) / batch_size), shown)
    net = torch.nn.Sequential(torch.nn.Conv2d(6, 8, 16, 16), torch.nn.Flatten(), torch.nn.LazyLinear(8))
    net(torch.zeros(1, 6, *dataset.camera_feature("top").shape[:2]))
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    feed = Feed(stream, shares(batch_size, 1, 1), 0, steps, torch.device("cpu"))
    size = dataset.frames * int(np.prod(dataset.camera_feature("top").shape))
    print(f"{dataset.frames} frames, {size / 1e9:.2f} GB; {steps} steps of {batch_size} x 2 frames")
    print(f"{'step':>6} {'seen GB':>8} {'resident MB':>12} {'of files MB':>12}")
    totals = []
    start = time.perf_counter()
    for step in range(steps):
        batch = feed.next()[0].batch
        images = batch["observation.images.top"].permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 255
        loss = (net(images).view(-1, 4, 2) - batch["action"]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(steps // shown, 1) == 0 or step == steps - 1:
            total, files = resident_memory()
            totals.append(total)
            seen = (step + 1) * batch_size * 2 * size / dataset.frames / 1e9
            print(f"{step:>6} {seen:>8.2f} {total:>12.0f} {files:>12.0f}")
    feed.close()
    rate = steps * batch_size / (time.perf_counter() - start)
    half = len(totals) // 2
    growth = max(totals[half:]) - max(totals[:half])
    print(f"peak of the second half over that of the first: {growth:+.0f} MB")
    print(f"{rate:.0f} samples/s, {feed.waited:.1f} s waited for data")
    return int(growth > ALLOWED_GROWTH)


def resident_memory() -> tuple[float, float]:
    """This process's resident memory and how much of it is mapped files, MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "RssFile"))  # type: ignore[return-value]


def make(root: Path, gigabytes: float, height: int, width: int, length: int = 25) -> LeRobotDataset:
    """A dataset whose decoded images take this much."""
    body = Embodiment(
        name="plain",
        action=ActionSpec(names=("x", "y"), units=("1", "1"), low=(-1.0, -1.0), high=(1.0, 1.0)),
        state=StateSpec(names=("a",), units=("1",)),
        cameras=(Camera("top", height, width, "plain:"),),
        rate=10,
    )
    rng = np.random.default_rng(0)
    with DatasetWriter(root, body) as writer:
        for _ in range(max(round(gigabytes * 1e9 / (height * width * 3 * length)), 1)):
            colours = rng.integers(0, 256, (length, 1, 1, 3), dtype=np.uint8)
            frames = {
                "observation.images.top": np.broadcast_to(colours, (length, height, width, 3)),
                "observation.state": rng.normal(size=(length, 1)),
                "action": rng.uniform(-1, 1, (length, 2)),
            }
            writer.add_episode(frames, "nothing")
    return LeRobotDataset(root)


if __name__ == "__main__":
    sys.exit(main())
