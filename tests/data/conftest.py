"""A toy body, its episodes, and small datasets of them."""

import numpy as np
import pytest

from embodied.data import DatasetWriter, LeRobotDataset
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

LENGTHS = (5, 9, 7)


def body(height=16, width=24, rate=10.0):
    return Embodiment(
        name="toy",
        action=ActionSpec(names=("x", "y"), units=("m", "m"), low=(-9.0, -9.0), high=(9.0, 9.0)),
        state=StateSpec(names=("a", "b", "c"), units=("m",) * 3),
        cameras=(Camera("top", height, width, "toy:"), Camera("wrist", height, width, "toy:")),
        rate=rate,
    )


def demonstration(seed, length=None, height=16, width=24):
    """Smooth images (a codec must be able to follow) and random numbers."""
    length = LENGTHS[seed % 3] if length is None else length
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, height * width).reshape(1, height, width, 1)
    shade = np.arange(length).reshape(-1, 1, 1, 1) * 6 + seed * 5
    return {
        "observation.images.top": np.broadcast_to(ramp + shade, (length, height, width, 3)).astype(np.uint8),
        "observation.images.wrist": rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "next.reward": rng.normal(size=length).astype(np.float32),
        "next.success": np.arange(length) == length - 1,
    }


def write(root, seeds=(0, 1, 2), storage="image", **more):
    with DatasetWriter(root, body(**more), image_storage=storage) as writer:
        for seed in seeds:
            frames = demonstration(seed, height=more.get("height", 16), width=more.get("width", 24))
            writer.add_episode(frames, f"task {seed % 2}", {"seed": seed, "success": True})
    return LeRobotDataset(root)


class Toy:
    """The functions above, as a fixture."""

    body = staticmethod(body)
    demonstration = staticmethod(demonstration)
    write = staticmethod(write)
    lengths = LENGTHS


@pytest.fixture(scope="session")
def toy():
    return Toy


@pytest.fixture
def dataset(tmp_path):
    return write(tmp_path / "toy")
