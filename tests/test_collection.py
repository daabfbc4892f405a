"""The dataset a collection leaves is the same for any number of workers, and however often it was interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.point import PointWorld

from embodied.collection import FAILURES, collect
from embodied.data.lerobot.staging import committed_records, staged

TESTS = Path(__file__).parent


def contents(root):
    """Every file of a dataset by its content, those that begin with a dot left out."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def frames(root):
    return pa.concat_tables(pq.read_table(file) for file in sorted((root / "data").rglob("*.parquet")))


def column(table, key):
    return np.array(table[key].to_pylist(), np.float32)


def seeds(root):
    return [(row["record"]["task"], row["record"]["seed"]) for row in committed_records(root)]


def test_one_worker_or_three_make_the_same_bytes(point_env, tmp_path):
    env = point_env(fails=5)
    for count in (1, 3):
        collect(env, tmp_path / str(count), 6, num_workers=count, noise=0.3)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_seeds_on_which_the_expert_fails_are_replaced_by_the_next(point_env, tmp_path):
    summary = collect(point_env(fails=5), tmp_path / "d", 5, seed=2)
    wanted = [2, 4, 5, 6, 7]  # 3 fails, and 8 is not needed
    assert seeds(tmp_path / "d") == [(task, seed) for task in ("left", "right") for seed in wanted]
    assert (summary.episodes, summary.failures, summary.new) == (10, 2, 10)
    failed = [json.loads(line) for line in (tmp_path / "d" / FAILURES).read_text().splitlines()]
    assert [(row["task"], row["seed"]) for row in failed] == [("left", 3), ("right", 3)]


def test_actions_of_the_expert_that_leave_the_bounds_are_counted(point_env, tmp_path):
    summary = collect(point_env(), tmp_path / "d", 3)
    table = frames(tmp_path / "d")
    wanted = 0.6 * (column(table, "observation.environment_state") - column(table, "observation.state"))
    outside = (np.abs(wanted) > 0.1 + 1e-4).any(1)
    assert (summary.steps, summary.clipped) == (len(outside), outside.sum()) and 0 < outside.sum() < len(outside)
    records = [row["record"] for row in committed_records(tmp_path / "d")]
    assert sum(record["clipped"] for record in records) == summary.clipped


def test_failed_episodes_are_kept_where_that_is_wanted(point_env, tmp_path):
    summary = collect(point_env(fails=5, tasks=["left"]), tmp_path / "d", 5, only_success=False)
    assert seeds(tmp_path / "d") == [("left", seed) for seed in range(5)]
    assert [row["record"]["success"] for row in committed_records(tmp_path / "d")] == [True, True, True, False, True]
    assert summary.failures == 0


def test_a_stored_episode_replays_in_the_simulator(point_env, tmp_path):
    collect(point_env(tasks=["left", "right"]), tmp_path / "d", 2)
    table, world = frames(tmp_path / "d"), PointWorld()
    for index, (task, seed) in enumerate(seeds(tmp_path / "d")):
        rows = table.filter(pa.compute.equal(table["episode_index"], index))
        observation, _ = world.reset(seed=seed, options={"task": task})
        for state, action, success in zip(
            column(rows, "observation.state"), column(rows, "action"), rows["next.success"].to_pylist(), strict=True
        ):
            np.testing.assert_array_equal(observation["observation.state"], state)
            observation, _, _, _, info = world.step(action)
            assert info["success"] == success
        assert success


def test_with_noise_the_label_is_what_the_expert_would_do_from_where_the_noise_led(point_env, tmp_path):
    env = point_env(tasks=["left"])
    for noise in (0.0, 0.5):
        collect(env, tmp_path / str(noise), 4, noise=noise)
    clean, noisy = (frames(tmp_path / str(noise)) for noise in (0.0, 0.5))
    for table in (clean, noisy):
        state, goal = column(table, "observation.state"), column(table, "observation.environment_state")
        np.testing.assert_allclose(column(table, "action"), np.clip(0.6 * (goal - state), -0.1, 0.1), atol=1e-6)
    executed = np.diff(column(noisy, "observation.state"), axis=0)
    same_episode = np.diff(np.array(noisy["episode_index"].to_pylist())) == 0
    disturbance = (executed - column(noisy, "action")[:-1])[same_episode]
    free = np.abs(column(noisy, "action")[:-1][same_episode]) < 0.02  # far from the bounds, where nothing is clipped
    assert 0.03 < disturbance[free].std() < 0.07  # half the range is 0.1, so 0.05
    assert np.abs(disturbance).max() <= 0.2 + 1e-6


def test_a_dead_worker_costs_nothing_but_time(point_env, tmp_path):
    collect(point_env(), tmp_path / "quiet", 4, num_workers=1)
    env = point_env(kill_at=[2, 1], marker=str(tmp_path / "killed"))
    collect(env, tmp_path / "disturbed", 4)
    assert (tmp_path / "killed").exists()
    assert frames(tmp_path / "quiet").equals(frames(tmp_path / "disturbed"))


def test_a_collection_killed_at_any_moment_goes_on_without_loss_or_duplicates(point_env, tmp_path):
    env = point_env(fails=5, delay=0.01)
    collect(env, tmp_path / "whole", 12, num_workers=1)
    script = (
        "import json, sys; from embodied.collection import collect; collect(json.loads(sys.argv[1]), sys.argv[2], 12)"
    )
    path = os.pathsep.join([str(TESTS), *sys.path])
    out, kills = tmp_path / "killed", 0
    for wanted in (1, 4, 9, 15):
        process = subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(env), str(out)], env=os.environ | {"PYTHONPATH": path}
        )
        while process.poll() is None and len(staged(out)) < wanted:
            time.sleep(0.005)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == 4
    summary = collect(env, out, 12)
    assert 0 < summary.new < 24
    assert contents(out) == contents(tmp_path / "whole")


def test_a_finished_dataset_can_be_extended(point_env, tmp_path):
    env = point_env(tasks=["left"], fails=5)
    collect(env, tmp_path / "at_once", 7)
    collect(env, tmp_path / "in_two", 3)
    assert collect(env, tmp_path / "in_two", 7).new == 4
    assert collect(env, tmp_path / "in_two", 7).new == 0
    assert seeds(tmp_path / "in_two") == seeds(tmp_path / "at_once")
    for key in ("observation.state", "action", "episode_index", "index"):
        one, other = frames(tmp_path / "in_two"), frames(tmp_path / "at_once")
        np.testing.assert_array_equal(column(one, key), column(other, key))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"noise": 0.1}, "noise = 0.0, not 0.1"),
        ({"images": "video"}, "images = 'image', not 'video'"),
        ({"only_success": False}, "only_success = True, not False"),
    ],
)
def test_a_dataset_made_otherwise_is_left_as_it_is(point_env, tmp_path, change, said):
    env = point_env(tasks=["left"])
    collect(env, tmp_path / "d", 1)
    before = contents(tmp_path / "d")
    with pytest.raises(ValueError, match=said):
        collect(env, tmp_path / "d", 2, **change)
    assert contents(tmp_path / "d") == before


def test_a_folder_of_other_things_is_left_as_it_is(point_env, tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(ValueError, match="holds other things"):
        collect(point_env(), tmp_path, 1)
    with pytest.raises(ValueError, match="is a file"):
        collect(point_env(), tmp_path / "thesis.txt", 1)
    assert contents(tmp_path) == {"thesis.txt": b"chapter 1"}


def test_two_collections_do_not_write_to_one_folder(point_env, tmp_path):
    script = """
import sys
from embodied.files import only_one
with only_one(sys.argv[1], "collection"):
    print("ready", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "d")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    with pytest.raises(ValueError, match="another collection is at work"):
        collect(point_env(), tmp_path / "d", 1)
    other.communicate(b"")
    assert not (tmp_path / "d").exists()


def test_an_expert_that_never_succeeds_ends_in_one_line(point_env, tmp_path):
    env = point_env(tasks=["left"], max_steps=1)
    with pytest.raises(ValueError, match=r"fake/point: \d of 2\d seeds of task left succeeded"):
        collect(env, tmp_path / "d", 5)


def test_mistakes_are_named_before_anything_is_written(point_env, tmp_path):
    out = tmp_path / "d"
    for arguments, said in [
        ({"episodes": 0}, "episodes"),
        ({"episodes": 1, "noise": -1.0}, "noise is a standard deviation"),
        ({"episodes": 1, "seed": -1}, "a seed is 0 or more"),
        ({"episodes": 1, "num_workers": 0}, "num_workers"),
        ({"episodes": 1, "images": "gif"}, "image or video"),
    ]:
        with pytest.raises(ValueError, match=said):
            collect(point_env(), out, **arguments)
    with pytest.raises(ValueError, match="fake/point has no expert to collect from"):
        collect({**point_env(), "expert": None}, out, 1)
    with pytest.raises(ValueError, match="fake/point could not be built: no GL library"):
        collect(point_env(broken=True), out, 1)
    assert not out.exists()


def test_an_environment_that_raises_is_named_with_task_and_seed(point_env, tmp_path):
    with pytest.raises(ValueError, match=r"fake/point, task (left|right), seed 1: KeyError: 'joint7'"):
        collect(point_env(raise_at=[1, 2]), tmp_path / "d", 3)
    with pytest.raises(ValueError, match=r"fake/point, task (left|right), seed 1: .*SIGKILL, 3 times in a row"):
        collect(point_env(kill_at=[1, 2]), tmp_path / "e", 3)


def test_a_full_disk_is_said_with_the_place_and_nothing_is_lost(point_env, tmp_path):
    """A limit on file sizes (which fails like a full disk, with EFBIG) in the workers, lifted for the second try."""
    import resource

    env = point_env(tasks=["left"], size=64)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        with pytest.raises((OSError, ValueError), match="File too large"):
            collect(env, tmp_path / "d", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert collect(env, tmp_path / "d", 2).episodes == 2


def test_a_collecting_process_starts_without_torch():
    script = "import sys, embodied.collection; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
