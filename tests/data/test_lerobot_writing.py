"""What is written is read back, in LeRobot's own columns, whatever was killed, refused or full on the way."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodied.data import DatasetWriter, LeRobotDataset
from embodied.data.lerobot import begin, done, finalize, stage_episode, staged
from embodied.data.lerobot import finalize as finalize_function

finalizing = sys.modules[finalize_function.__module__]
GOLDEN = Path(__file__).parent / "golden/lerobot-0.4.4"


def assert_same(episode, frames, task):
    assert episode["task"] == task
    for key, values in frames.items():
        assert episode[key].dtype == values.dtype, key
        np.testing.assert_array_equal(episode[key], values, err_msg=key)


def content(root):
    """Every file of a dataset with its bytes."""
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


def test_images_and_numbers_come_back_bit_for_bit(dataset, toy):
    assert len(dataset) == 3 and dataset.frames == sum(toy.lengths) and dataset.tasks == ["task 0", "task 1"]
    assert dataset.embodiment == toy.body() and dataset.fps == 10
    for seed in range(3):
        assert_same(dataset.episode(seed), toy.demonstration(seed), f"task {seed % 2}")
    assert dataset.records[2] == {"number": 2, "seed": 2, "success": True}


def test_indices_and_timestamps_are_lerobots(dataset, toy):
    second = dataset.low_dimensional(1)
    assert second["index"].tolist() == list(range(toy.lengths[0], toy.lengths[0] + toy.lengths[1]))
    assert second["frame_index"].tolist() == list(range(toy.lengths[1]))
    np.testing.assert_array_equal(second["timestamp"], (np.arange(toy.lengths[1]) / 10).astype(np.float32))
    assert set(second["episode_index"]) == {1} and set(second["task_index"]) == {1}


def test_columns_and_types_are_those_lerobot_writes(tmp_path, toy):
    """Compared with files that LeRobot 0.4.4 wrote: same columns in the same order with the same types."""
    dataset = toy.write(tmp_path / "ours", storage="video")
    own = {"observation.images.top", "observation.images.wrist", "observation.state", "action"}

    def kinds(root, file, skip=("next.",)):
        schema = pq.read_schema(root / file)
        return {
            n: str(schema.field(n).type).replace("large_string", "string")
            for n in schema.names
            if not any(s in n for s in skip)
        }

    ours, theirs = (kinds(root, "meta/episodes/chunk-000/file-000.parquet") for root in (dataset.root, GOLDEN))
    shared = {n for n in theirs if not n.startswith("videos/observation.images.top")}
    assert {n: ours[n] for n in shared} == {n: theirs[n] for n in shared}
    assert [n for n in ours if n in theirs and "stats/" not in n] == [
        n for n in theirs if n in ours and "stats/" not in n
    ]
    ours, theirs = (json.loads((root / "meta/info.json").read_text()) for root in (dataset.root, GOLDEN))
    assert list(ours) == list(theirs)
    assert {k for k in ours["features"] if "next" not in k} == set(theirs["features"])
    assert (
        ours["features"]["observation.images.wrist"]["info"].keys()
        == theirs["features"]["observation.images.wrist"]["info"].keys()
    )
    stats = json.loads((dataset.root / "meta/stats.json").read_text())
    for key in own:
        reference = json.loads((GOLDEN / "meta/stats.json").read_text())[key]
        assert {n: np.shape(v)[:1] for n, v in stats[key].items()} == {n: np.shape(v)[:1] for n, v in reference.items()}


def test_image_columns_are_those_lerobot_writes(dataset):
    ours, theirs = (pq.read_schema(root / "data/chunk-000/file-000.parquet") for root in (dataset.root, GOLDEN))
    for name in theirs.names:
        assert str(ours.field(name).type).replace("[3]", "[n]") == str(theirs.field(name).type).replace("[3]", "[n]")
    described = [json.loads(schema.metadata[b"huggingface"])["info"]["features"] for schema in (ours, theirs)]
    assert {n: described[0][n] for n in described[1]} == described[1]
    assert pq.ParquetFile(dataset.root / "data/chunk-000/file-000.parquet").num_row_groups == 3


def test_statistics_are_exact(dataset, toy):
    frames = [toy.demonstration(seed) for seed in range(3)]
    for key in ("observation.state", "action"):
        values, stats = np.concatenate([f[key] for f in frames]).astype(np.float64), dataset.stats[key]
        np.testing.assert_allclose(stats["mean"], values.mean(0), atol=1e-12)
        np.testing.assert_allclose(stats["std"], values.std(0), atol=1e-12)
        np.testing.assert_allclose(stats["q01"], np.quantile(values, 0.01, axis=0), atol=1e-12)
        np.testing.assert_allclose(stats["q99"], np.quantile(values, 0.99, axis=0), atol=1e-12)
        assert stats["count"] == [len(values)]
    pixels = np.concatenate([f["observation.images.wrist"] for f in frames]).reshape(-1, 3) / 255
    stats = dataset.stats["observation.images.wrist"]
    assert stats["mean"].shape == (3, 1, 1)
    for name, value in {"mean": pixels.mean(0), "std": pixels.std(0), "q90": np.quantile(pixels, 0.9, axis=0)}.items():
        np.testing.assert_allclose(stats[name].ravel(), value, atol=1e-9)
    row = pq.read_table(dataset.root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[1]
    np.testing.assert_allclose(row["stats/action/q50"], np.median(frames[1]["action"], axis=0), atol=1e-6)


def test_every_rank_and_kind_of_feature_comes_back(tmp_path, toy):
    frames = toy.demonstration(0) | {
        "observation.pose": np.random.default_rng(0).normal(size=(5, 4, 4)).astype(np.float32),
        "observation.points": np.random.default_rng(1).normal(size=(5, 2, 3, 4)).astype(np.float32),
        "said": np.array(["go", "on", "", "ünïcode", "stop"], object),
        "count": np.arange(5),
    }
    with DatasetWriter(tmp_path / "d", toy.body()) as writer:
        writer.add_episode(frames, "t")
    assert_same(LeRobotDataset(tmp_path / "d").episode(0), frames, "t")


def test_videos_are_close_and_their_frames_are_at_their_times(tmp_path, toy):
    dataset = toy.write(tmp_path / "v", storage="video", height=64, width=64)
    assert all(feature.dtype == "video" for feature in dataset.features.values() if feature.visual)
    for seed in range(3):
        wanted = toy.demonstration(seed, height=64, width=64)["observation.images.top"].astype(int)
        seen = np.stack(list(dataset.images(seed, "top"))).astype(int)
        assert seen.shape == wanted.shape
        assert np.abs(seen - wanted).mean() < 3  # neighbouring frames differ by 6
    assert "data" in {p.name for p in dataset.root.iterdir()}


def test_many_episodes_spread_over_files(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(finalizing, "DATA_MB", 0.01)
    monkeypatch.setattr("embodied.data.lerobot.format.FILES_PER_CHUNK", 2)
    dataset = toy.write(tmp_path / "d", seeds=range(6))
    files = sorted(str(f.relative_to(dataset.root)) for f in dataset.root.glob("data/*/*"))
    assert len(files) > 2 and "data/chunk-001/file-000.parquet" in files
    for seed in range(6):
        assert_same(dataset.episode(seed), toy.demonstration(seed), f"task {seed % 2}")


def test_episodes_are_in_the_order_of_their_numbers_whoever_staged_first(tmp_path, toy):
    begin(tmp_path / "d", toy.body())
    for number in (40, 7, 1_000_003):
        stage_episode(tmp_path / "d", number, toy.demonstration(number % 3), f"n{number}")
    assert staged(tmp_path / "d") == {7, 40, 1_000_003}
    assert finalize(tmp_path / "d") == 3
    dataset = LeRobotDataset(tmp_path / "d")
    assert [record["number"] for record in dataset.records] == [7, 40, 1_000_003]
    assert not (tmp_path / "d/staging").exists()
    assert done(tmp_path / "d") == {7, 40, 1_000_003}


def test_what_a_killed_process_left_half_done_goes_when_the_dataset_is_made(tmp_path, toy):
    begin(tmp_path / "d", toy.body())
    stage_episode(tmp_path / "d", 0, toy.demonstration(0), "whole")
    half = tmp_path / "d/staging/.episode_000001.0a1b2c3d.tmp"
    half.mkdir()
    (half / "episode.json").write_text("{")
    assert finalize(tmp_path / "d") == 1
    assert not (tmp_path / "d/staging").exists()


def test_processes_stage_side_by_side(tmp_path, toy):
    begin(tmp_path / "d", toy.body())
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        list(pool.map(_stage, [(tmp_path / "d", seed) for seed in range(6)]))
    finalize(tmp_path / "d")
    assert content(tmp_path / "d") == content(toy.write(tmp_path / "e", seeds=range(6)).root)


def _stage(arguments):
    root, seed = arguments
    stage_episode(root, seed, _demonstration(seed), f"task {seed % 2}", {"seed": seed, "success": True})


def _demonstration(seed):
    import importlib.util

    source = importlib.util.spec_from_file_location("toy_conftest", Path(__file__).parent / "conftest.py")
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module.demonstration(seed)


def test_a_dataset_can_grow(tmp_path, toy):
    toy.write(tmp_path / "d", seeds=range(2))
    before = content(tmp_path / "d")
    with DatasetWriter(tmp_path / "d", toy.body()) as writer:
        assert writer.done == {0, 1}
        writer.add_episode(toy.demonstration(5), "something new", {"seed": 5})
    dataset = LeRobotDataset(tmp_path / "d")
    assert len(dataset) == 3 and dataset.tasks == ["task 0", "task 1", "something new"]
    for number, (seed, task) in enumerate([(0, "task 0"), (1, "task 1"), (5, "something new")]):
        assert_same(dataset.episode(number), toy.demonstration(seed), task)
    after = content(tmp_path / "d")
    assert all(after[name] == data for name, data in before.items() if name.startswith("data/"))
    values = np.concatenate([toy.demonstration(seed)["action"] for seed in (0, 1, 5)])
    np.testing.assert_allclose(dataset.stats["action"]["q99"], np.quantile(values.astype(np.float64), 0.99, axis=0))
    pixels = np.concatenate([toy.demonstration(seed)["observation.images.wrist"] for seed in (0, 1, 5)]).reshape(-1, 3)
    np.testing.assert_allclose(dataset.stats["observation.images.wrist"]["std"].ravel(), (pixels / 255).std(0))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("grown", [False, True])
def test_a_finalize_that_is_killed_anywhere_loses_nothing(tmp_path, toy, monkeypatch, grown):
    """Stop before each write in turn; the old dataset stays readable, and doing it again gives the same bytes."""

    def prepare(root):
        if grown:
            toy.write(root, seeds=range(2))
        begin(root, toy.body())
        for seed in (2, 3):
            stage_episode(root, seed, toy.demonstration(seed), f"later {seed}", {"seed": seed})

    prepare(tmp_path / "whole")
    finalize(tmp_path / "whole")
    wanted = content(tmp_path / "whole")
    writes = ("_write_parquet", "write_json", "_remove_staging")
    originals = {name: getattr(finalizing, name) for name in writes}
    for stop in range(7):
        root, calls = tmp_path / f"killed-{stop}", iter(range(100))
        prepare(root)

        def guarded(name, calls=calls, stop=stop):
            def write(*arguments):
                if next(calls) == stop:
                    raise Killed
                return originals[name](*arguments)

            return write

        for name in writes:
            monkeypatch.setattr(finalizing, name, guarded(name))
        try:
            finalize(root)
            killed = False
        except Killed:
            killed = True
        for name in writes:
            monkeypatch.setattr(finalizing, name, originals[name])
        assert killed == (stop < 6)
        if killed and grown and stop < 5:
            dataset = LeRobotDataset(root)
            assert len(dataset) == 2
            assert_same(dataset.episode(1), toy.demonstration(1), "task 1")
        if killed and not grown and stop < 5:
            with pytest.raises(ValueError, match=r"unfinished collection \(2 episodes there\).*action=finalize"):
                LeRobotDataset(root)
        assert done(root) == ({0, 1, 2, 3} if grown else {2, 3})
        finalize(root)
        assert content(root) == wanted


def test_kill_9_loses_at_most_the_episode_being_written(tmp_path, toy):
    program = textwrap.dedent(f"""
        import importlib.util, sys, time
        source = importlib.util.spec_from_file_location("toy", {str(Path(__file__).parent / "conftest.py")!r})
        toy = importlib.util.module_from_spec(source); source.loader.exec_module(toy)
        from embodied.data import DatasetWriter
        with DatasetWriter(sys.argv[1], toy.body()) as writer:
            print("ready", flush=True)
            for seed in range(12):
                if seed not in writer.done:
                    time.sleep(0.03)
                    writer.add_episode(toy.demonstration(seed), f"task {{seed % 2}}", {{"seed": seed}}, number=seed)
                    print(seed, flush=True)
    """)
    root, rng = tmp_path / "d", random.Random(0)
    safe: set[int] = set()
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        for _ in range(2):
            safe.add(int(process.stdout.readline()))
        time.sleep(rng.random() * 0.06)
        os.kill(process.pid, signal.SIGKILL)
        safe |= {int(line) for line in process.stdout.read().split()}
        process.wait()
        assert safe <= done(root), f"attempt {attempt}"
    subprocess.run([sys.executable, "-c", program, str(root)], check=True, capture_output=True)
    dataset = LeRobotDataset(root)
    assert [record["seed"] for record in dataset.records] == list(range(12))
    for seed in range(12):
        assert_same(dataset.episode(seed), toy.demonstration(seed), f"task {seed % 2}")
    assert not list(root.rglob(".*"))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"images": "video"}, "images = 'image', not 'video'"),
        ({"settings": {"seed": 1}}, "settings.seed = 0, not 1"),
        ({"rate": 20.0}, "embodiment.rate = 10.0, not 20.0"),
    ],
)
def test_a_collection_goes_on_only_with_the_same_arguments(tmp_path, toy, change, says):
    begin(tmp_path / "d", toy.body(), settings={"seed": 0})
    stage_episode(tmp_path / "d", 0, toy.demonstration(0), "t")
    assert begin(tmp_path / "d", toy.body(), settings={"seed": 0}) == {0}
    arguments = {"images": "image", "settings": {"seed": 0}} | {k: v for k, v in change.items() if k != "rate"}
    with pytest.raises(ValueError, match=says):
        begin(tmp_path / "d", toy.body(rate=change.get("rate", 10.0)), **arguments)
    assert staged(tmp_path / "d") == {0}


def test_a_dataset_that_others_went_on_with_is_left_alone(tmp_path, toy):
    root = toy.write(tmp_path / "d").root
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_episodes": 4}))
    with pytest.raises(ValueError, match="was changed by another program"):
        begin(root, toy.body())


def test_other_peoples_folders_are_left_alone(tmp_path, toy):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other things \(chapter\.tex"):
        begin(tmp_path / "thesis", toy.body())
    with pytest.raises(ValueError, match="this command did not begin"):
        begin(GOLDEN, toy.body())
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        begin(tmp_path / "file", toy.body())
    assert (tmp_path / "thesis/chapter.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda f: f.pop("action"), "episode 4: the episode has no 'action'"),
        (lambda f: f.update({"action": f["action"][:-1]}), "'action' has 4 frames, but 'observation.images.top' has 5"),
        (lambda f: f["observation.state"].__setitem__((3, 1), np.nan), "'observation.state' is not finite at frame 3"),
        (
            lambda f: f.update({"action": np.zeros((5, 3))}),
            r"'action' has shape \(3,\) per frame, but \(2,\) is declared",
        ),
        (lambda f: f.update({"observation.images.top": np.zeros((5, 16, 24, 3))}), "is uint8, got float64"),
        (lambda f: f.update({"observation.images.side": f["observation.images.top"]}), "does not declare"),
        (lambda f: [f.update({key: value[:0]}) for key, value in f.items()], "at least one frame"),
    ],
)
def test_an_episode_that_is_not_what_was_declared_is_refused(tmp_path, toy, damage, says):
    begin(tmp_path / "d", toy.body())
    frames = toy.demonstration(0)
    damage(frames)
    with pytest.raises(ValueError, match=says):
        stage_episode(tmp_path / "d", 4, frames, "t")
    assert staged(tmp_path / "d") == set() and not list((tmp_path / "d/staging").iterdir())


def test_episodes_with_different_columns_are_refused_and_kept(tmp_path, toy):
    begin(tmp_path / "d", toy.body())
    stage_episode(tmp_path / "d", 0, toy.demonstration(0), "t")
    stage_episode(tmp_path / "d", 1, {k: v for k, v in toy.demonstration(1).items() if k != "next.reward"}, "t")
    with pytest.raises(ValueError, match=r"staged episode 1 has next\.reward as None"):
        finalize(tmp_path / "d")
    assert staged(tmp_path / "d") == {0, 1}


def test_odd_sizes_cannot_be_video(tmp_path, toy):
    begin(tmp_path / "d", toy.body(height=15), "video")
    with pytest.raises(ValueError, match="even height and width, got 15 x 24"):
        stage_episode(tmp_path / "d", 0, toy.demonstration(0, height=15), "t")


@pytest.mark.parametrize("call", ["stage", "finalize"])
def test_a_full_disk_leaves_what_was_there(tmp_path, toy, monkeypatch, call):
    toy.write(tmp_path / "d", seeds=[0])
    begin(tmp_path / "d", toy.body())
    stage_episode(tmp_path / "d", 1, toy.demonstration(1), "task 1")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full)
        with pytest.raises(OSError, match="No space left"):
            stage_episode(tmp_path / "d", 2, toy.demonstration(2), "t") if call == "stage" else finalize(tmp_path / "d")
    assert staged(tmp_path / "d") == {1} and len(LeRobotDataset(tmp_path / "d")) == 1
    finalize(tmp_path / "d")
    assert_same(LeRobotDataset(tmp_path / "d").episode(1), toy.demonstration(1), "task 1")


def test_nothing_to_finalize_is_said(tmp_path, toy):
    begin(tmp_path / "d", toy.body())
    with pytest.raises(ValueError, match="holds no staged episode"):
        finalize(tmp_path / "d")
    with pytest.raises(ValueError, match="no collection was begun"):
        stage_episode(tmp_path / "e", 0, toy.demonstration(0), "t")


def test_a_body_without_cameras_is_written_and_grown(tmp_path, toy):
    blind = toy.body().with_cameras([])
    for seeds in ((0, 1), (2,)):
        with DatasetWriter(tmp_path / "d", blind) as writer:
            for seed in seeds:
                frames = {k: v for k, v in toy.demonstration(seed).items() if "images" not in k}
                writer.add_episode(frames, "t", {"seed": seed})
    dataset = LeRobotDataset(tmp_path / "d")
    assert dataset.cameras == () and [record["seed"] for record in dataset.records] == [0, 1, 2]
    for seed in range(3):
        np.testing.assert_array_equal(dataset.episode(seed)["action"], toy.demonstration(seed)["action"])
