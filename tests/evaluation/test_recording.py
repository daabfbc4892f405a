"""A recording for Rerun, read back with Rerun's own reader, holds poses, ways and points where geometry puts them."""

import math
import sys

import numpy as np
import pytest

from embodied.evaluation.recording import VOXEL, Recording
from embodied.evaluation.results import EpisodeRecord
from embodied.interaction import Cloud
from embodied.spec import ActionSpec, Camera, Embodiment

SIDE, EPISODE = 16, ("find it", 7)


def a_body(renderer="house:version=1,fov=90,height=1.25", *more):
    action = ActionSpec(("stop", "go"), ("1", "1"), (0.0, 0.0), (1.0, 1.0), "categorical", "none", "base")
    return Embodiment("body", action, None, (Camera("front", SIDE, SIDE, renderer, True), *more), 4.0)


def an_observation(x: float, depth: float = 2.0, level: int = 100):
    """Looks along +x from (x, 1, 1.25) at a wall `depth` metres ahead."""
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:3, 3] = x, 1.0, 1.25
    return {
        "observation.images.front": np.full((SIDE, SIDE, 3), level, np.uint8),
        "observation.depth.front": np.full((SIDE, SIDE), depth, np.float32),
        "observation.pose": pose,
        "task": "find it",
    }


def logged(path) -> dict[str, list[dict]]:
    """Rows by entity, as Rerun reads them."""
    chunk = pytest.importorskip("rerun.chunk", reason="this rerun-sdk has no reader")
    found: dict[str, list[dict]] = {}
    for piece in chunk.RrdReader(str(path)).stream():
        found.setdefault(str(piece.entity_path), []).extend(piece.to_record_batch().to_pylist())
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    path = tmp_path_factory.mktemp("look") / "look.rrd"
    cloud = Cloud(np.array([[1, 2, 3]], np.float32), np.array([[9, 8, 7]], np.uint8))
    with Recording(path, a_body()) as recording:
        for step in range(3):
            drawings = {"map": np.full((8, 12, 3), 50, np.uint8)}
            recording.step(EPISODE, an_observation(0.5 * step, level=40 * step), drawings, cloud)
        recording.end(EpisodeRecord("find it", 7, True, 1.0, 1.0, 2, measures={"spl": 0.5}))
    return logged(path)


def only(row, name):
    (key,) = (key for key in row if key.endswith(f":{name}"))
    return np.array(row[key])


def test_the_camera_stands_where_its_pose_says_with_its_lens(recorded):
    rows = recorded["/find_it/7/world/camera/front"]
    moves = [row for row in rows if any(key.endswith(":translation") for key in row)]
    assert [row["step"] for row in moves] == [0, 1, 2]
    np.testing.assert_allclose([only(row, "translation")[0] for row in moves], [(0.5 * k, 1, 1.25) for k in range(3)])
    matrix = only(moves[0], "mat3x3")[0].reshape(3, 3).T  # column by column
    np.testing.assert_allclose(matrix @ [0, 0, 1], [1, 0, 0], atol=1e-6)
    lens = next(row for row in rows if any(key.endswith(":image_from_camera") for key in row))
    focal = only(lens, "image_from_camera")[0].reshape(3, 3).T[0, 0]
    assert focal == pytest.approx(SIDE / 2 / math.tan(math.radians(45)))
    assert len(recorded["/find_it/7/world/camera/front/depth"]) == len(recorded["/find_it/7/drawings/map"]) == 3


def test_the_way_grows_and_the_memory_is_the_policys(recorded):
    strips = [only(row, "strips")[0] for row in recorded["/find_it/7/world/path"]]
    assert [len(strip) for strip in strips] == [1, 2, 3]
    np.testing.assert_allclose(strips[-1], [(0, 1, 1.25), (0.5, 1, 1.25), (1, 1, 1.25)])
    np.testing.assert_allclose(only(recorded["/find_it/7/world/memory"][0], "positions"), [(1, 2, 3)])


def test_what_was_seen_lies_on_the_walls_it_was_seen_of(recorded):
    first, *_, last = recorded["/find_it/7/world/seen"]
    for row, ends in ((first, {2.0}), (last, {2.0, 2.5, 3.0})):
        places = only(row, "positions")
        away = np.abs(places[:, :1] - np.array(sorted(ends)))
        assert away.min(1).max() <= VOXEL and set(away.argmin(1)) == set(range(len(ends)))
        assert np.abs(places[:, 1] - 1).max() < 2 + VOXEL and np.abs(places[:, 2] - 1.25).max() < 2 + VOXEL
        assert len(np.unique(places.round(3), axis=0)) == len(places)  # one point per voxel


def test_instruction_and_outcome_are_told(recorded):
    assert only(recorded["/find_it/7/instruction"][0], "text").item() == "find it"
    assert only(recorded["/find_it/7/outcome"][0], "text").item() == "success after 2 steps\nspl: 0.500"


def test_cameras_without_a_place_are_pictures_alone(tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    with Recording(tmp_path / "a.rrd", a_body("real")) as recording:
        recording.step(EPISODE, an_observation(0), {})
    found = logged(tmp_path / "a.rrd")
    assert "/find_it/7/cameras/front/picture" in found and not any("/world/camera" in path for path in found)


def test_an_interrupted_recording_leaves_the_older_one(tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    file = tmp_path / "a.rrd"
    file.write_bytes(b"older")
    with pytest.raises(KeyError), Recording(file, a_body()) as recording:
        recording.step(EPISODE, an_observation(0), {})
        raise KeyError
    assert file.read_bytes() == b"older" and list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_recorded_is_told_in_one_line(monkeypatch):
    with pytest.raises(ValueError, match=r"^rerun=look.mp4: a recording is a file that ends in \.rrd$"):
        Recording("look.mp4", a_body())
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ValueError, match=r"^rerun=a.rrd needs the package rerun-sdk: pip install -e '\.\[look\]'$"):
        Recording("a.rrd", a_body())
