"""Merging, splitting, filtering and storing anew: complete datasets, the same frames, untouched sources."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.data import DatasetWriter, LeRobotDataset
from embodied.data.check import check
from embodied.data.edit import merge, reencode, select, split
from embodied.data.edit.copying import Images, cut_video
from embodied.data.edit.operations import split_numbers, write
from embodied.data.lerobot.video import encode_video, has_encoder, read_frames
from embodied.spec import ConventionMismatch

DATA = Path(__file__).parents[1]
GOLDEN = DATA / "golden/lerobot-0.4.4"
CONVENTIONS = {
    "action": {"control": "absolute", "space": "joint", "rotation": "none", "frame": "none", "units": "rad"},
    "state": {"rotation": "none", "frame": "none", "units": "1"},
    "renderer": "real",
}
INDICES = ("index", "episode_index", "task_index")


def content(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


def sound(root):
    """The dataset in a folder, with nothing that `check` would say of it."""
    dataset = LeRobotDataset(root)
    assert [str(problem) for problem in check(dataset, stream=None)] == []
    return dataset


def assert_episode(made, number, source, other, exact=True):
    """Episode `number` of a dataset is episode `other` of another, but for its indices."""
    seen, wanted = made.episode(number), source.episode(other)
    assert seen.keys() == wanted.keys()
    for key in wanted:
        if key not in INDICES and (exact or "images" not in key):
            np.testing.assert_array_equal(seen[key], wanted[key], err_msg=key)
    records = [{k: v for k, v in d.records[n].items() if k != "number"} for d, n in ((made, number), (source, other))]
    assert records[0] == records[1]


def stored_bytes(dataset):
    """The encoded images of the whole dataset, as a multiset."""
    columns = [f for f, feature in dataset.features.items() if feature.dtype == "image"]
    tables = [pq.read_table(file, columns=columns) for file in sorted((dataset.root / "data").glob("*/*"))]
    return sorted(row["bytes"] for table in tables for key in columns for row in table[key].to_pylist())


@pytest.fixture
def two(tmp_path, toy):
    """Two datasets of one body, with one task in common."""
    first = toy.write(tmp_path / "a", seeds=(0, 1, 2))
    with DatasetWriter(tmp_path / "b", toy.body()) as writer:
        for seed, task in ((4, "task 2"), (3, "task 1")):
            writer.add_episode(toy.demonstration(seed), task, {"seed": seed, "success": seed == 3})
    return first, LeRobotDataset(tmp_path / "b")


def test_a_merge_has_the_episodes_of_all_in_order(two, tmp_path):
    before = [content(dataset.root) for dataset in two]
    assert merge(two, tmp_path / "c") == 5
    made = sound(tmp_path / "c")
    assert made.tasks == ["task 0", "task 1", "task 2"]
    for number, (dataset, other) in enumerate([(two[0], 0), (two[0], 1), (two[0], 2), (two[1], 0), (two[1], 1)]):
        assert_episode(made, number, dataset, other)
    assert made.episode(3)["task_index"].tolist() == [2] * made.episodes[3].length
    assert stored_bytes(made) == sorted(stored_bytes(two[0]) + stored_bytes(two[1]))
    assert [content(dataset.root) for dataset in two] == before


def test_statistics_of_a_merge_are_those_of_all_values(two, tmp_path):
    merge(two, tmp_path / "c")
    made = LeRobotDataset(tmp_path / "c")
    episodes = [dataset.episode(number) for dataset in two for number in range(len(dataset))]
    for key in ("action", "observation.state"):
        values = np.concatenate([episode[key] for episode in episodes]).astype(np.float64)
        np.testing.assert_allclose(made.stats[key]["std"], values.std(0), atol=1e-12)
        np.testing.assert_allclose(made.stats[key]["q90"], np.quantile(values, 0.9, axis=0), atol=1e-12)
    pixels = np.concatenate([episode["observation.images.wrist"] for episode in episodes]).reshape(-1, 3) / 255
    np.testing.assert_allclose(made.stats["observation.images.wrist"]["mean"].ravel(), pixels.mean(0), atol=1e-9)


def test_videos_are_merged_without_encoding_them_again(tmp_path, toy):
    two = [
        toy.write(tmp_path / name, seeds, "video", height=64, width=64) for name, seeds in (("a", (0, 1)), ("b", (2,)))
    ]
    merge(two, tmp_path / "c")
    made = sound(tmp_path / "c")
    for number, (dataset, other) in enumerate([(two[0], 0), (two[0], 1), (two[1], 0)]):
        assert_episode(made, number, dataset, other)
        (copy, _), (source, _) = (
            d.episodes[n].videos["observation.images.top"] for d, n in ((made, number), (dataset, other))
        )
        assert copy.read_bytes() == source.read_bytes() and copy.stat().st_ino != source.stat().st_ino


def changed(toy, root, **change):
    """A dataset of one episode whose body is a little different."""
    record = toy.body().to_dict()
    record["action"] = record["action"] | {k: v for k, v in change.items() if k in record["action"]}
    record |= {k: v for k, v in change.items() if k in record}
    body = type(toy.body()).from_dict(record)
    with DatasetWriter(root, body, image_storage=change.get("storage", "image")) as writer:
        frames = toy.demonstration(0) | change.get("frames", {})
        writer.add_episode({k: v for k, v in frames.items() if v is not None}, "task 0")
    return LeRobotDataset(root)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"control": "absolute"}, r"disagree on action\.control: 'delta' .* against 'absolute'"),
        ({"low": (-8.0, -9.0)}, r"disagree on action\.low"),
        ({"rate": 20.0}, "has 10 frames per second, .*b has 20"),
        ({"cameras": [], "frames": {f"observation.images.{c}": None for c in ("top", "wrist")}}, r"cameras\.top"),
        ({"frames": {"next.reward": None}}, r"next\.reward is float32 1 in .*toy, but absent in .*b$"),
        (
            {"storage": "video"},
            r"images\.top is image 16 x 24 x 3 in .*toy, but video 16 x 24 x 3 in .*b: action=reencode",
        ),
    ],
)
def test_what_does_not_mean_the_same_is_not_merged(tmp_path, toy, dataset, change, says):
    other = changed(toy, tmp_path / "b", **change)
    for order in ((dataset, other), (other, dataset)):
        with pytest.raises((ConventionMismatch, ValueError)) as error:
            merge(order, tmp_path / "c")
        assert "\n" not in str(error.value) and not (tmp_path / "c").exists()
    with pytest.raises(ValueError, match=says):
        merge((LeRobotDataset(dataset.root), other), tmp_path / "c")


def test_a_merge_needs_two_that_differ(dataset, tmp_path):
    with pytest.raises(ValueError, match="at least two datasets"):
        merge([dataset], tmp_path / "c")
    with pytest.raises(ValueError, match="is named twice"):
        merge([dataset, LeRobotDataset(dataset.root)], tmp_path / "c")


@given(
    st.integers(1, 60),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_the_parts_of_a_split_are_disjoint_whole_and_of_the_size_asked_for(episodes, weights, seed):
    parts = {f"p{i}": weight / sum(weights) for i, weight in enumerate(weights)}
    try:
        chosen = split_numbers(episodes, parts, seed)
    except ValueError as error:
        assert "would have no episode" in str(error)
        assert min(parts.values()) * episodes < 1
        return
    together = sorted(number for numbers in chosen.values() for number in numbers)
    assert together == list(range(episodes))
    for name, numbers in chosen.items():
        assert numbers == sorted(numbers) and abs(len(numbers) - parts[name] * episodes) < 1
    assert split_numbers(episodes, parts, seed) == chosen


def test_the_seed_decides_who_goes_where():
    assert split_numbers(50, {"a": 0.5, "b": 0.5}, 0) != split_numbers(50, {"a": 0.5, "b": 0.5}, 1)


def test_a_split_makes_datasets_that_together_have_every_episode(tmp_path, toy):
    dataset = toy.write(tmp_path / "a", seeds=range(5))
    assert split(dataset, tmp_path / "parts", {"train": 0.6, "val": 0.4}, seed=3) == {"train": 3, "val": 2}
    seen = {}
    for name in ("train", "val"):
        made = sound(tmp_path / "parts" / name)
        for number, record in enumerate(made.records):
            assert_episode(made, number, dataset, record["seed"])
            seen[record["seed"]] = name
    assert sorted(seen) == list(range(5))


@pytest.mark.parametrize(
    "parts, says",
    [
        ({"train": 0.9, "val": 0.2}, "add up to 1.1, not 1"),
        ({"train": 1.2, "val": -0.2}, "positive fractions that add up to 1"),
        ({"train": 0.9, "val": 0.1}, "part 'val' would have no episode: 0.1 of 3"),
        ({"../x": 0.5, "y": 0.5}, "a part's name becomes a folder's"),
        ({}, "positive fractions"),
    ],
)
def test_parts_that_cannot_be_are_refused(dataset, tmp_path, parts, says):
    with pytest.raises(ValueError, match=says):
        split(dataset, tmp_path / "parts", parts)
    assert not (tmp_path / "parts").exists()


def test_a_filter_keeps_what_passes_all(two, tmp_path):
    merge(two, tmp_path / "c")
    source = LeRobotDataset(tmp_path / "c")  # lengths 5 9 7 9 5, tasks 0 1 0 2 1, seed 4 failed
    cases = {
        "task": ({"tasks": ["task 1", "task 2"]}, [1, 3, 4]),
        "number": ({"episodes": [4, 0]}, [0, 4]),
        "short": ({"max_length": 7}, [0, 2, 4]),
        "long": ({"min_length": 7}, [1, 2, 3]),
        "success": ({"success": True}, [0, 1, 2, 4]),
        "failure": ({"success": False}, [3]),
        "all": ({"tasks": ["task 0"], "min_length": 6, "success": True}, [2]),
    }
    for name, (filters, kept) in cases.items():
        assert select(source, tmp_path / name, **filters) == len(kept)
        made = sound(tmp_path / name)
        for number, other in enumerate(kept):
            assert_episode(made, number, source, other)
    assert LeRobotDataset(tmp_path / "task").tasks == ["task 1", "task 2"]


@pytest.mark.parametrize(
    "filters, says",
    [
        ({}, "nothing to filter by"),
        ({"tasks": ["taks 1"]}, "no task 'taks 1'; did you mean 'task 1'"),
        ({"episodes": [3]}, "has episodes 0 to 2, not 3"),
        ({"min_length": 100}, "none of the 3 episodes of .* passes"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(dataset, tmp_path, filters, says):
    with pytest.raises(ValueError, match=says):
        select(dataset, tmp_path / "c", **filters)
    assert not (tmp_path / "c").exists()


def test_success_that_nobody_recorded_is_not_guessed(tmp_path, toy):
    with DatasetWriter(tmp_path / "a", toy.body()) as writer:
        writer.add_episode(toy.demonstration(0), "t")
    with pytest.raises(ValueError, match="does not say whether episode 0 succeeded"):
        select(LeRobotDataset(tmp_path / "a"), tmp_path / "c", success=True)


def test_what_lerobot_made_is_copied_without_encoding_it_again(tmp_path):
    """One video file of three episodes: the packets are cut out, and decode to the same frames."""
    source = LeRobotDataset(GOLDEN, CONVENTIONS)
    assert reencode(source, tmp_path / "c") == 3
    made = sound(tmp_path / "c")
    for number in range(3):
        assert_episode(made, number, source, number)
    assert made.embodiment == source.embodiment and stored_bytes(made) == stored_bytes(source)


def test_version_2_becomes_version_3(tmp_path):
    specification = importlib.util.spec_from_file_location("reading", DATA / "test_lerobot_reading.py")
    reading = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(reading)
    root = reading.as_version_2(GOLDEN, tmp_path / "v2")
    with pytest.raises(ValueError, match=r"no statistics of its actions: give action\.low"):
        reencode(LeRobotDataset(root, CONVENTIONS), tmp_path / "c")
    actions = [LeRobotDataset(root).episode(number)["action"] for number in range(3)]
    rows = [{"stats": {"action": {"min": a.min(0).tolist(), "max": a.max(0).tolist()}}} for a in actions]
    (root / "meta/episodes_stats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = LeRobotDataset(root, CONVENTIONS)
    reencode(source, tmp_path / "c")
    made = sound(tmp_path / "c")
    assert source.catalog.version == "v2.1" and made.catalog.version == "v3.0"
    reading.assert_golden(made)
    assert made.embodiment.action.low == (0.5, -2.0) and made.embodiment.action.high == (6.5, 0.0)


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264"])
def test_a_video_is_cut_anywhere_an_episode_can_begin(tmp_path, codec):
    if not has_encoder(codec):
        pytest.skip(f"this build of PyAV has no {codec}")
    frames = [np.full((64, 64, 3), 6 * i, np.uint8) for i in range(30)]
    encode_video(tmp_path / "all.mp4", frames, 30, codec)  # a key frame every second frame
    for first, count in ((0, 5), (4, 11), (28, 2), (10, 1)):
        cut_video(tmp_path / "all.mp4", tmp_path / "part.mp4", first / 30, count, 30)
        seen = list(read_frames(tmp_path / "part.mp4", [i / 30 for i in range(count)]))
        wanted = list(read_frames(tmp_path / "all.mp4", [i / 30 for i in range(first, first + count)]))
        np.testing.assert_array_equal(seen, wanted)
    with pytest.raises(ValueError, match=r"cannot be cut at 0\.100 s without decoding"):
        cut_video(tmp_path / "all.mp4", tmp_path / "part.mp4", 3 / 30, 4, 30)
    with pytest.raises(ValueError, match=r"without decoding \(2 of 9 frames\)"):
        cut_video(tmp_path / "all.mp4", tmp_path / "part.mp4", 28 / 30, 9, 30)


def test_images_become_video_and_come_back(tmp_path, toy):
    source = toy.write(tmp_path / "a", height=64, width=64)
    reencode(source, tmp_path / "v", Images(storage="video", crf=20))
    film = sound(tmp_path / "v")
    assert {f.dtype for f in film.features.values() if f.visual} == {"video"}
    for number in range(3):
        assert_episode(film, number, source, number, exact=False)
        error = np.abs(
            film.episode(number, ["top"])["observation.images.top"].astype(int)
            - source.episode(number, ["top"])["observation.images.top"]
        )
        assert error.mean() < 3
    reencode(film, tmp_path / "p", Images(storage="image"))
    back = sound(tmp_path / "p")
    for number in range(3):
        assert_episode(back, number, film, number)


def test_a_worse_quality_is_smaller(tmp_path, toy):
    source = toy.write(tmp_path / "a", height=64, width=64)
    sizes = {}
    for crf in (10, 50):
        reencode(source, tmp_path / f"v{crf}", Images(storage="video", crf=crf))
        sizes[crf] = sum(file.stat().st_size for file in (tmp_path / f"v{crf}").rglob("*.mp4"))
    assert sizes[50] < 0.7 * sizes[10]


def test_images_are_scaled_as_the_cache_scales_them(tmp_path, dataset):
    from embodied.data import Cache

    reencode(dataset, tmp_path / "small", Images(size=(8, 10)))
    made = sound(tmp_path / "small")
    assert [(camera.height, camera.width) for camera in made.embodiment.cameras] == [(8, 10)] * 2
    cache = Cache(dataset, size=(8, 10), stream=None)
    frames = np.fromfile(cache.camera_file("wrist"), np.uint8).reshape(-1, 8, 10, 3)
    seen = np.concatenate([made.episode(n)["observation.images.wrist"] for n in range(3)])
    np.testing.assert_array_equal(seen, frames)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"storage": "gif"}, "images are stored as image or video, got 'gif'"),
        ({"size": (0, 5)}, "size is .height, width. in pixels, got .0, 5."),
        ({"codec": "h266"}, "cannot be encoded with 'h266': there is"),
        ({"crf": 99}, "crf is 0 .best. to 63, got 99"),
    ],
)
def test_a_way_of_storing_that_is_none_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Images(**arguments)


def test_an_odd_size_is_no_video_and_leaves_nothing(dataset, tmp_path):
    with pytest.raises(ValueError, match="even height and width, got 15 x 24"):
        reencode(dataset, tmp_path / "c", Images("video", (15, 24)))
    assert not (tmp_path / "c").exists()


def test_an_interrupted_copy_goes_on_and_is_the_same(two, tmp_path, monkeypatch):
    merge(two, tmp_path / "whole")
    from embodied.data.edit.copying import Copier

    stage = Copier.stage

    def interrupted(self, number, target):
        if target == 3:
            raise KeyboardInterrupt
        stage(self, number, target)

    with monkeypatch.context() as patch:
        patch.setattr(Copier, "stage", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge(two, tmp_path / "c")
    with pytest.raises(ValueError, match="unfinished collection"):
        LeRobotDataset(tmp_path / "c")
    with pytest.raises(ValueError, match="was begun with"):
        merge(two[::-1], tmp_path / "c")
    merge(two, tmp_path / "c")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


@pytest.mark.parametrize("target", ["a", "a/inside", "."])
def test_a_result_does_not_overlap_with_its_source(two, tmp_path, target):
    before = content(tmp_path)
    with pytest.raises(ValueError, match="which is not touched: choose another folder"):
        select(two[0], tmp_path / target, episodes=[0])
    assert content(tmp_path) == before


def test_another_folder_is_left_alone(two, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds other things"):
        merge(two, tmp_path / "thesis")
    assert content(tmp_path / "thesis") == {"chapter.tex": b"years of work"}


def test_conventions_that_nobody_told_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="conventions are not guessed"):
        reencode(LeRobotDataset(GOLDEN), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_damaged_episode_is_named_and_what_was_copied_is_kept(tmp_path, toy):
    source = toy.write(tmp_path / "a", storage="video", height=64, width=64)
    file, _ = source.episodes[1].videos["observation.images.top"]
    file.unlink()
    with pytest.raises(FileNotFoundError, match=file.name):
        reencode(source, tmp_path / "c")
    shutil.copyfile(source.episodes[0].videos["observation.images.top"][0], file)  # of five frames, not of nine
    rows = source.root / "meta/records"
    shutil.rmtree(rows)  # so that the images are looked at
    with pytest.raises(ValueError, match=r"a: episode 1: .* has no frame at"):
        reencode(LeRobotDataset(source.root), tmp_path / "d")
    assert (tmp_path / "d/staging/episode_000000").is_dir()


def test_an_episode_of_two_instructions_is_not_copied(tmp_path):
    root = Path(shutil.copytree(GOLDEN, tmp_path / "g"))
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    index = table.column_names.index("task_index")
    values = table["task_index"].to_numpy().copy()
    values[3] = 1
    pq.write_table(table.set_column(index, "task_index", [values]), file)
    source = LeRobotDataset(root, CONVENTIONS)
    with pytest.raises(ValueError, match="episode 0: it has 2 instructions"):
        reencode(source, tmp_path / "c")
    assert write([(source, 1), (source, 2)], tmp_path / "c", {}) == 2


def test_where_it_came_from_is_kept(two, tmp_path):
    merge(two, tmp_path / "c")
    told = json.loads((tmp_path / "c/meta/collection.json").read_text())["settings"]
    assert [(one["root"], one["episodes"]) for one in told["merged"]] == [("a", 3), ("b", 2)]
