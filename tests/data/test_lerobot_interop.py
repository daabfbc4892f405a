"""LeRobot's own library reads what we write, goes on with it, and we read what it writes.

Needs an interpreter that has lerobot 0.4.4 (benchmarks/peers/README.md): EMBODIED_LEROBOT_PYTHON=/path/to/bin/python.
"""

import os
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

from embodied.data import Cache, LeRobotDataset, Windows

PYTHON = os.environ.get("EMBODIED_LEROBOT_PYTHON")
HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not PYTHON, reason="EMBODIED_LEROBOT_PYTHON names no interpreter that has lerobot")


def lerobot(*arguments):
    """Run a script under their interpreter, offline."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "SVT_LOG": "1"}
    done = subprocess.run([PYTHON, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def their_items(root, tmp_path):
    lerobot(HERE / "read_with_lerobot.py", root, tmp_path / "items.npz")
    with np.load(tmp_path / "items.npz") as items:
        return dict(items)


@pytest.mark.parametrize("storage", ["image", "video"])
def test_they_read_what_we_write(tmp_path, toy, storage):
    root = toy.write(tmp_path / "d", seeds=range(3), storage=storage, height=64, width=64).root
    dataset = toy.write(root, seeds=range(3, 5), storage=storage, height=64, width=64)  # grown: two files
    theirs = their_items(root, tmp_path)
    windows = Windows(Cache(dataset, stream=None), history=2, horizon=4)
    ours = windows.batch(range(len(windows)))
    assert len(theirs["index"]) == len(windows)
    for camera in ("top", "wrist"):
        images = ours[f"observation.images.{camera}"].permute(0, 1, 4, 2, 3).float() / 255
        # the two environments may hold different builds of FFmpeg, which round colours differently
        np.testing.assert_allclose(
            theirs[f"observation.images.{camera}"], images, atol=0 if storage == "image" else 0.02
        )
        np.testing.assert_array_equal(theirs[f"observation.images.{camera}_is_pad"], ours["observation_is_pad"])
    np.testing.assert_array_equal(theirs["action"], ours["action"])
    np.testing.assert_array_equal(theirs["action_is_pad"], ours["action_is_pad"])
    np.testing.assert_array_equal(theirs["observation.state"], ours["observation.state"][:, -1])
    assert theirs["task"].tolist() == ours["task"]
    for key, entry in dataset.stats.items():
        for name, value in entry.items():
            np.testing.assert_array_equal(theirs[f"stats/{key}/{name}"], value)


def test_we_read_what_they_write_today(tmp_path):
    """The golden files again, but made now: what the tests of reading compare with has not gone stale."""
    lerobot(HERE / "golden/make_golden.py", tmp_path / "fresh")
    fresh, golden = LeRobotDataset(tmp_path / "fresh"), LeRobotDataset(HERE / "golden/lerobot-0.4.4")
    for number in range(3):
        one, other = fresh.episode(number), golden.episode(number)
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_they_go_on_recording_in_what_we_wrote(tmp_path, toy):
    dataset = toy.write(tmp_path / "d", seeds=range(2))
    script = textwrap.dedent("""
        import sys
        import numpy as np, torch
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
        dataset = LeRobotDataset("local/test", root=sys.argv[1])
        image = np.full((16, 24, 3), 77, np.uint8)
        for t in range(4):
            dataset.add_frame({
                "observation.images.top": image, "observation.images.wrist": image,
                "observation.state": np.full(3, t, np.float32), "action": np.full(2, t, np.float32),
                "next.reward": np.array([t], np.float32), "next.success": np.array([False]), "task": "by lerobot",
            })
        dataset.save_episode()
        dataset.finalize()
        again = LeRobotDataset("local/test", root=sys.argv[1])
        assert len(again) == 18 and again[17]["task"] == "by lerobot" and again[0]["task"] == "task 0"
    """)
    (tmp_path / "script.py").write_text(script)
    lerobot(tmp_path / "script.py", dataset.root)
    grown = LeRobotDataset(dataset.root)
    assert grown.tasks == ["task 0", "task 1", "by lerobot"] and len(grown) == 3
    np.testing.assert_array_equal(grown.episode(1)["action"], toy.demonstration(1)["action"])
    last = grown.episode(2)
    assert last["task"] == "by lerobot" and (last["observation.images.top"] == 77).all()
    assert last["action"][:, 0].tolist() == [0, 1, 2, 3] and grown.records == [
        {"number": 0, "seed": 0, "success": True},
        {"number": 1, "seed": 1, "success": True},
        {},
    ]
