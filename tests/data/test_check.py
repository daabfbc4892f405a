"""A sound dataset has no problems; each kind of damage is found, in its episode, and hides no other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied.data import LeRobotDataset
from embodied.data.check import check
from embodied.data.lerobot import begin, stage_episode

GOLDEN = Path(__file__).parent / "golden/lerobot-0.4.4"


def broken(root, **arguments):
    return [str(p) for p in check(LeRobotDataset(root), stream=None, **arguments) if p.broken]


def change_column(root, name, change):
    """Rewrite a column of the (only) data file."""
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    at = table.column_names.index(name)
    values = table[name].to_pylist()
    change(values)
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), file)


@pytest.mark.parametrize("storage", ["image", "video"])
def test_what_we_write_is_sound(tmp_path, toy, storage):
    toy.write(tmp_path / "d", storage=storage, height=64, width=64)
    assert check(LeRobotDataset(tmp_path / "d"), stream=None) == []


def test_what_lerobot_wrote_is_sound_but_its_image_statistics_are_not():
    """LeRobot 0.4.4 squares uint8 images without widening them, so its standard deviations are far too small."""
    problems = check(LeRobotDataset(GOLDEN), stream=None)
    assert not any(p.broken for p in problems)
    assert any("std of observation.images.top" in p.message for p in problems)
    assert not any("observation.state" in p.message for p in problems)


def test_timestamps_that_drift_are_found(dataset):
    change_column(dataset.root, "timestamp", lambda v: v.__setitem__(slice(7, 9), [0.25, 0.35]))
    (problem,) = broken(dataset.root)
    assert problem == "broken  episode 1: timestamp of frame 2 is 0.2500 s, not 0.2000 s (2 are off)"


@pytest.mark.parametrize(
    "column, at, value, says",
    [
        ("index", 6, 99, "episode 1: index of frame 1 is 99, not 6 (1 are off)"),
        ("frame_index", 20, 3, "episode 2: frame_index of frame 6 is 3, not 6 (1 are off)"),
        ("task_index", 0, 5, "episode 0: task_index 5 is not among the 2 tasks"),
        ("observation.state", 5, [0.0, float("nan"), 1.0], "episode 1: observation.state is not finite at frame 0"),
        (
            "episode_index",
            14,
            0,
            "episode 2: {root}/data/chunk-000/file-000.parquet does not hold episode 2's 7 frames",
        ),
    ],
)
def test_wrong_numbers_are_found_in_their_episode(dataset, column, at, value, says):
    change_column(dataset.root, column, lambda v: v.__setitem__(at, value))
    problems = broken(dataset.root)
    assert any(says.format(root=dataset.root) in problem for problem in problems), problems


def test_statistics_that_are_not_the_datas_are_found(dataset):
    file = dataset.root / "meta/stats.json"
    stats = json.loads(file.read_text())
    stats["action"]["q99"][1] += 0.1
    stats["observation.images.top"]["mean"][2][0][0] += 0.01
    del stats["next.reward"]
    file.write_text(json.dumps(stats))
    found = "\n".join(broken(dataset.root))
    assert found.count("\n") == 2
    assert "q99 of action" in found and "mean of observation.images.top" in found and "no next.reward" in found


def test_all_damage_is_reported_at_once(tmp_path, toy):
    """A cut video in one episode, a damaged one in another, and a wrong count: three lines."""
    root = toy.write(tmp_path / "d", storage="video", height=64, width=64).root
    videos = root / "videos/observation.images.top/chunk-000"
    (videos / "file-000.mp4").unlink()
    (videos / "file-002.mp4").write_bytes((videos / "file-002.mp4").read_bytes()[:300])
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_frames": 20}))
    lines = broken(root)
    assert len(lines) == 3
    assert "total_frames = 20, but meta describes 21" in lines[0]
    assert lines[1].startswith("broken  episode 0: missing video: ")
    assert lines[2].startswith("broken  episode 2: ") and "was cut short" in lines[2]
    assert any("missing video" in line for line in broken(root, decode=False))


def test_damaged_images_are_found_only_by_decoding(dataset):
    change_column(dataset.root, "observation.images.wrist", lambda v: v[8].update(bytes=v[8]["bytes"][:-40]))
    (problem,) = broken(dataset.root)
    assert "episode 1, frame 3, observation.images.wrist: the image is damaged" in problem
    assert broken(dataset.root, decode=False) == []


def test_a_missing_data_file_costs_its_episodes(dataset):
    (dataset.root / "data/chunk-000/file-000.parquet").unlink()
    lines = broken(dataset.root)
    assert len(lines) == 3 and all("missing file of the dataset" in line for line in lines)


def test_things_worth_knowing_are_notes(dataset, toy):
    begin(dataset.root, toy.body())
    stage_episode(dataset.root, 9, toy.demonstration(0), "t")
    problems = check(LeRobotDataset(dataset.root), stream=None)
    assert [p.broken for p in problems] == [False] and "1 staged episodes are not in the dataset yet" in problems[
        0
    ].message


def test_actions_beyond_their_bounds_are_a_note(tmp_path, toy):
    from embodied.data import DatasetWriter

    with DatasetWriter(tmp_path / "d", toy.body()) as writer:
        writer.add_episode(toy.demonstration(0) | {"action": np.full((5, 2), 9.5)}, "t")
    notes = [str(p) for p in check(LeRobotDataset(tmp_path / "d"), stream=None)]
    assert notes[0] == "note    dataset: action 'x' spans 9.5 to 9.5, beyond its bounds -9 to 9"


def test_the_rate_has_to_be_the_embodiments(tmp_path):
    root = Path(shutil.copytree(GOLDEN, tmp_path / "g"))
    told = {
        "action": {"control": "absolute", "space": "joint", "rotation": "none", "frame": "none", "units": "rad"},
        "state": {"rotation": "none", "frame": "none", "units": "rad"},
        "renderer": "real",
    }
    record = LeRobotDataset(root, told).embodiment.to_dict()
    (root / "meta/embodiment.json").write_text(json.dumps(record | {"rate": 20.0}))
    assert any("10 frames per second, but the embodiment's rate is 20 Hz" in line for line in broken(root))
