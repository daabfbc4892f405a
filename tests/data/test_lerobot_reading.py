"""Datasets that others wrote are read: LeRobot 0.4.4's own files, both forms of tasks, v2.1; and damage is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied.data import LeRobotDataset
from embodied.data.lerobot.video import encode_video, read_frames
from embodied.spec import Embodiment

GOLDEN = Path(__file__).parent / "golden/lerobot-0.4.4"
LENGTHS, TASKS = (5, 7, 6), ("push", "pull", "push")
CONVENTIONS = {
    "action": {"control": "absolute", "space": "joint", "rotation": "none", "frame": "none", "units": "rad"},
    "state": {"rotation": "none", "frame": "none", "units": ["1", "1", "s"]},
    "renderer": "real",
}


def golden_image(episode, t):
    """The formula of golden/make_golden.py."""
    rows, columns, channels = np.meshgrid(np.arange(16), np.arange(24), np.arange(3), indexing="ij")
    return ((rows * 7 + columns * 3 + channels * 50 + t * 11 + episode * 29) % 256).astype(np.uint8)


def assert_golden(dataset):
    assert len(dataset) == 3 and dataset.frames == 18 and dataset.fps == 10
    assert dataset.cameras == ("top", "wrist")
    for number, length in enumerate(LENGTHS):
        episode = dataset.episode(number)
        assert episode["task"] == TASKS[number]
        np.testing.assert_array_equal(
            episode["observation.images.top"], [golden_image(number, t) for t in range(length)]
        )
        for t, frame in enumerate(episode["observation.images.wrist"].astype(int)):
            assert np.abs(frame - (20 * t + 5 * number + 10)).max() <= 3  # video
        t = np.arange(length, dtype=np.float32)
        np.testing.assert_array_equal(episode["observation.state"], np.stack([np.full(length, number), t, t / 8], 1))
        np.testing.assert_array_equal(episode["action"], np.stack([t + 0.5, np.full(length, -number)], 1))


@pytest.fixture
def golden(tmp_path):
    """A copy that may be damaged."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "golden"))


def as_version_2(root, out):
    """The golden dataset as LeRobot 2.1 laid it out."""
    source, info = LeRobotDataset(root), json.loads((root / "meta/info.json").read_text())
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    info |= {
        "codebase_version": "v2.1",
        "total_chunks": 1,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    for folder in ("meta", "data/chunk-000", "videos/chunk-000/observation.images.wrist"):
        (out / folder).mkdir(parents=True)
    (out / "meta/info.json").write_text(json.dumps(info))
    (out / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "push"}\n{"task_index": 1, "task": "pull"}\n')
    rows = [{"episode_index": i, "tasks": [TASKS[i]], "length": n} for i, n in enumerate(LENGTHS)]
    (out / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    start = 0
    for i, length in enumerate(LENGTHS):
        pq.write_table(table.slice(start, length), out / f"data/chunk-000/episode_{i:06d}.parquet")
        video = out / f"videos/chunk-000/observation.images.wrist/episode_{i:06d}.mp4"
        encode_video(video, source.images(i, "wrist"), 10)
        start += length
    return out


def test_what_lerobot_wrote_is_read():
    assert_golden(LeRobotDataset(GOLDEN))


def test_tasks_may_be_a_column_of_their_own(golden):
    table = pq.read_table(golden / "meta/tasks.parquet")
    assert "__index_level_0__" in table.column_names  # as 0.4.4 writes; later versions name it
    pq.write_table(table.rename_columns(["task_index", "task"]), golden / "meta/tasks.parquet")
    assert_golden(LeRobotDataset(golden))


def test_version_2_is_read(tmp_path):
    dataset = LeRobotDataset(as_version_2(GOLDEN, tmp_path / "v2"))
    assert dataset.catalog.version == "v2.1"
    assert_golden(dataset)


def test_episodes_in_several_files_of_several_chunks_are_found(golden):
    """Two files, the second in another chunk; one row group for all of a file's episodes."""
    data = golden / "data/chunk-000/file-000.parquet"
    table, rows = pq.read_table(data), pq.read_table(golden / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    pq.write_table(table.slice(0, 5), data)
    (golden / "data/chunk-003").mkdir()
    pq.write_table(table.slice(5), golden / "data/chunk-003/file-002.parquet")
    for row in rows[1:]:
        row |= {"data/chunk_index": 3, "data/file_index": 2}
    pq.write_table(pa.Table.from_pylist(rows[:2]), golden / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(rows[2:]), golden / "meta/episodes/chunk-000/file-001.parquet")
    assert_golden(LeRobotDataset(golden))


def test_an_image_column_without_a_camera_name_is_camera_image(golden):
    info = (golden / "meta/info.json").read_text()
    (golden / "meta/info.json").write_text(info.replace("observation.images.top", "observation.image"))
    table = pq.read_table(golden / "data/chunk-000/file-000.parquet")
    names = [name.replace("observation.images.top", "observation.image") for name in table.column_names]
    pq.write_table(table.rename_columns(names), golden / "data/chunk-000/file-000.parquet")
    dataset = LeRobotDataset(golden)
    assert dataset.cameras == ("image", "wrist")
    np.testing.assert_array_equal(next(dataset.images(1, "image")), golden_image(1, 0))


def test_conventions_are_asked_for_and_never_guessed():
    with pytest.raises(ValueError, match="conventions are not guessed"):
        _ = LeRobotDataset(GOLDEN).embodiment
    told = LeRobotDataset(GOLDEN, CONVENTIONS).embodiment
    assert told.action.names == ("x", "y") and told.action.units == ("rad", "rad") and told.rate == 10
    assert told.action.low == (0.5, -2) and told.action.high == (6.5, 0)
    assert told.state.names == ("e", "t", "s") and told.camera_names == ("top", "wrist")
    assert LeRobotDataset(GOLDEN, told).embodiment == told
    with pytest.raises(ValueError, match=r"do not tell action\.frame, state\.units"):
        part = {k: v for k, v in CONVENTIONS["action"].items() if k != "frame"}
        _ = LeRobotDataset(
            GOLDEN, CONVENTIONS | {"action": part, "state": {"rotation": "none", "frame": "none"}}
        ).embodiment
    with pytest.raises(ValueError, match=r"no 'action\.controll'; did you mean 'control'"):
        _ = LeRobotDataset(GOLDEN, CONVENTIONS | {"action": CONVENTIONS["action"] | {"controll": 1}}).embodiment


def test_conventions_may_come_from_a_file_but_not_against_the_datasets_own(tmp_path, golden, dataset):
    (tmp_path / "conventions.json").write_text(json.dumps(CONVENTIONS))
    told = LeRobotDataset(golden, tmp_path / "conventions.json").embodiment
    assert isinstance(told, Embodiment)
    with pytest.raises(ValueError, match="already says what the numbers mean"):
        _ = LeRobotDataset(dataset.root, told).embodiment
    (golden / "meta/embodiment.json").write_text(json.dumps(told.to_dict()))
    assert LeRobotDataset(golden).embodiment == told


def test_a_missing_dataset_names_the_nearest(tmp_path, golden):
    with pytest.raises(ValueError, match=r"there is no dataset at .*/goldn; did you mean 'golden'"):
        LeRobotDataset(tmp_path / "goldn")
    with pytest.raises(
        ValueError, match=r"is not a LeRobot dataset: it has no meta/info\.json; there are datasets in it: golden"
    ):
        LeRobotDataset(tmp_path)


def test_a_wrong_camera_names_the_nearest(golden):
    with pytest.raises(ValueError, match="has no camera 'wirst'; did you mean 'wrist'"):
        next(LeRobotDataset(golden).images(0, "wirst"))
    with pytest.raises(ValueError, match="has episodes 0 to 2, not 3"):
        LeRobotDataset(golden).episode(3)


@pytest.mark.parametrize(
    "file, error, says",
    [
        ("meta/tasks.parquet", FileNotFoundError, "tasks.parquet"),
        ("meta/episodes/chunk-000/file-000.parquet", FileNotFoundError, "file-000.parquet"),
        ("data/chunk-000/file-000.parquet", FileNotFoundError, "data/chunk-000/file-000.parquet"),
        ("videos/observation.images.wrist/chunk-000/file-000.mp4", FileNotFoundError, "file-000.mp4"),
    ],
)
def test_a_missing_file_is_named(golden, file, error, says):
    (golden / file).unlink()
    with pytest.raises(error, match=says):
        LeRobotDataset(golden).episode(0)


@pytest.mark.parametrize(
    "file, says",
    [
        ("meta/info.json", "info.json is not valid JSON"),
        ("meta/tasks.parquet", "tasks.parquet is damaged or was cut short"),
        ("meta/episodes/chunk-000/file-000.parquet", "file-000.parquet is damaged or was cut short"),
        ("data/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet is damaged at episode 0 or was cut short"),
        (
            "videos/observation.images.wrist/chunk-000/file-000.mp4",
            "episode 0: .*file-000.mp4 (is damaged or|.*it) was cut short",
        ),
    ],
)
@pytest.mark.parametrize("keep", [0.6, 0.0])
def test_a_file_that_was_cut_short_is_named(golden, file, says, keep):
    data = (golden / file).read_bytes()
    (golden / file).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match=says):
        LeRobotDataset(golden).episode(0)


def test_a_damaged_image_is_named_by_episode_and_frame(golden):
    file = golden / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    images = table["observation.images.top"].to_pylist()
    images[5 + 3]["bytes"] = images[5 + 3]["bytes"][:100]
    column = pa.array(images, table.schema.field("observation.images.top").type)
    at = table.column_names.index("observation.images.top")
    pq.write_table(table.set_column(at, table.schema.field(at), column), file)
    dataset = LeRobotDataset(golden)
    assert len(list(dataset.images(0, "top"))) == 5
    with pytest.raises(
        ValueError, match=r"file-000\.parquet, episode 1, frame 3, observation\.images\.top: the image is damaged"
    ):
        list(dataset.images(1, "top"))


def test_rows_that_are_not_where_they_should_be_are_noticed(golden):
    file = golden / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).slice(2), file)
    with pytest.raises(ValueError, match="does not hold episode 0's 5 frames"):
        LeRobotDataset(golden).low_dimensional(0)


def test_an_unknown_version_is_refused(golden):
    info = (golden / "meta/info.json").read_text()
    (golden / "meta/info.json").write_text(info.replace('"v3.0"', '"v1.6"'))
    with pytest.raises(ValueError, match=r"of version v1\.6; versions 2\.1 and 3\.0 can be read"):
        LeRobotDataset(golden)


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264"])
@pytest.mark.parametrize("rate", [10, 12.5, 30, 80])
def test_video_frames_are_found_by_time_from_anywhere(tmp_path, codec, rate):
    from embodied.data.lerobot.video import has_encoder

    if not has_encoder(codec):
        pytest.skip(f"this build of PyAV has no {codec}")
    frames = [np.full((64, 64, 3), 6 * i, np.uint8) for i in range(40)]
    assert encode_video(tmp_path / "v.mp4", frames, rate, codec) == 40
    for first in (0, 1, 17, 39):
        seen = list(read_frames(tmp_path / "v.mp4", [i / rate for i in range(first, 40)]))
        assert [round(f.mean() / 6) for f in seen] == list(range(first, 40))
    with pytest.raises(ValueError, match=r"v\.mp4 has no frame at .* s \(it ends before: it was cut short"):
        list(read_frames(tmp_path / "v.mp4", [41 / rate]))
    with pytest.raises(ValueError, match=r"no frame at .* s .the nearest is at"):
        list(read_frames(tmp_path / "v.mp4", [5.5 / rate]))


def test_nothing_of_lerobots_library_is_needed():
    code = "import sys, embodied.data; print(*{'lerobot', 'datasets', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
