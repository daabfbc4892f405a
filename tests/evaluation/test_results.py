"""A result on disk holds every episode, reads as LeRobot's does, and is strict JSON."""

import json
import math
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from embodied.evaluation import results
from embodied.evaluation.results import EpisodeRecord, read_eval_info, versions, write_eval_info
from embodied.evaluation.statistics import wilson
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

ARM = Embodiment(
    "arm",
    ActionSpec(("x", "grip"), ("m", "1"), (-1.0, -1.0), (1.0, 1.0), gripper=1),
    StateSpec(("x",), ("m",)),
    (Camera("front", 96, 96, "mujoco:shadow=0"),),
    20.0,
)


def an_episode(task="push", seed=0, success=True, **more) -> EpisodeRecord:
    known = {"sum_reward": 10.0 + seed, "max_reward": 1.0, "length": 30 + seed, "group": "lab"}
    return EpisodeRecord(task, seed, success, **(known | more))


def write(out, records, **changes):
    known = {
        "policy": "runs/a",
        "env": {"name": "lab/push", "make": {"max_steps": 50}},
        "embodiment": ARM,
        "config": {"seed": 0, "env": {"name": "lab/push"}},
        "eval_s": 12.5,
        "command": "embodied-eval policy=runs/a",
        "num_envs": 2,
    }
    return write_eval_info(out, records, **(known | changes))


RECORDS = [an_episode(seed=seed, success=seed != 3) for seed in range(10)] + [
    an_episode("pull", seed, success=seed < 2, video=f"videos/pull_{seed}.mp4") for seed in range(5)
]


def test_what_is_written_is_what_was_returned_and_read(tmp_path):
    info = write(tmp_path / "new" / "folder", RECORDS)
    assert read_eval_info(tmp_path / "new" / "folder") == info
    assert read_eval_info(tmp_path / "new" / "folder" / "eval_info.json") == info


def test_every_episode_is_there_with_its_outcome(tmp_path):
    episodes = {(e["task"], e["seed"]): e for e in write(tmp_path, RECORDS)["episodes"]}
    assert len(episodes) == len(RECORDS)
    for record in RECORDS:
        episode = episodes[record.task, record.seed]
        assert (episode["success"], episode["return"], episode["length"]) == (
            record.success,
            record.sum_reward,
            record.length,
        )


def test_rates_and_intervals_are_in_percent_per_task_and_over_all(tmp_path):
    info = write(tmp_path, RECORDS)
    assert info["overall"]["pc_success"] == pytest.approx(100 * 11 / 15)
    assert info["ci95"] == info["overall"]["ci95"] == pytest.approx([100 * end for end in wilson(11, 15)])
    by_task = {task["task"]: task for task in info["per_task"]}
    assert by_task["push"]["pc_success"] == 90 and by_task["pull"]["pc_success"] == 40
    assert info["overall"]["mean_task_pc_success"] == pytest.approx(65)
    assert info["seeds"] == list(range(10))


def test_lerobots_readers_find_their_keys(tmp_path):
    # lerobot/scripts/lerobot_eval.py, eval_policy_all: what it returns and writes to eval_info.json
    info = write(tmp_path, RECORDS)
    aggregate = {"avg_sum_reward", "avg_max_reward", "pc_success", "n_episodes", "video_paths"}
    assert aggregate | {"eval_s", "eval_ep_s"} <= set(info["overall"])
    assert all(aggregate <= set(group) for group in info["per_group"].values()) and set(info["per_group"]) == {"lab"}
    for task in info["per_task"]:
        assert isinstance(task["task_id"], int) and isinstance(task["task_group"], str)
        metrics = task["metrics"]
        assert set(metrics) == {"sum_rewards", "max_rewards", "successes", "video_paths"}
        assert len(metrics["sum_rewards"]) == len(metrics["successes"]) == task["n_episodes"]
    assert info["overall"]["video_paths"] == [f"videos/pull_{seed}.mp4" for seed in range(5)]
    assert info["overall"]["eval_ep_s"] == pytest.approx(12.5 / 15)


def test_the_order_in_which_episodes_end_leaves_no_trace(tmp_path):
    shuffled = list(RECORDS)
    random.Random(0).shuffle(shuffled)
    write(tmp_path / "a", RECORDS)
    write(tmp_path / "b", shuffled)
    assert (tmp_path / "a" / "eval_info.json").read_bytes() == (tmp_path / "b" / "eval_info.json").read_bytes()


def test_how_to_measure_it_again_is_in_it(tmp_path):
    info = write(tmp_path, RECORDS, extra={"policy_identity": {"weights": "abc"}})
    assert info["command"] == "embodied-eval policy=runs/a" and info["config"]["seed"] == 0
    assert Embodiment.from_dict(info["embodiment"]) == ARM
    assert info["versions"]["embodied"] and info["versions"]["torch"] and "mujoco" in {*info["versions"], "mujoco"}
    assert info["policy_identity"] == {"weights": "abc"}


def test_the_command_is_one_a_shell_reads_back(monkeypatch):
    import shlex

    words = ["embodied-eval", "policy=runs/my run", "task='it''s'", "a=[1,2]"]
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/embodied-eval", *words[1:]])
    assert shlex.split(results.command_line()) == words


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_a_number_is_null_and_counted_and_left_out_of_the_mean(tmp_path, bad):
    records = [an_episode(seed=0, sum_reward=4.0), an_episode(seed=1, sum_reward=bad, max_reward=bad)]
    write(tmp_path, records, config={"threshold": bad, "path": Path("a/b")})

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    info = json.loads((tmp_path / "eval_info.json").read_text(), parse_constant=refuse)
    assert [e["return"] for e in info["episodes"]] == [4.0, None]
    assert info["overall"]["avg_sum_reward"] == 4.0 and info["overall"]["nonfinite_rewards"] == 1
    assert info["config"] == {"threshold": None, "path": "a/b"}


def test_numbers_of_numpy_are_numbers(tmp_path):
    import numpy as np

    record = replace(an_episode(), success=np.bool_(True), seed=np.int64(7), sum_reward=np.float32(2.5))
    info = write(tmp_path, [record], config={"rate": np.float32(0.5), "sizes": [np.int64(3)]})
    assert read_eval_info(tmp_path)["episodes"][0]["return"] == 2.5
    assert info["config"] == {"rate": 0.5, "sizes": [3]}


def test_the_same_episode_twice_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="two episodes of push have seed 3"):
        write(tmp_path, [*RECORDS, an_episode(seed=3)])
    with pytest.raises(ValueError, match="without episodes"):
        write(tmp_path, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "prepare, says",
    [
        (lambda d: None, "eval_info.json does not exist"),
        (lambda d: (d / "eval_info.json").write_text('{"overall": '), "damaged or was cut short"),
        (lambda d: (d / "eval_info.json").write_text("[]"), "is not an evaluation result"),
        (lambda d: (d / "eval_info.json").write_text('{"overall": {}}'), "has no 'episodes'"),
        (
            lambda d: (d / "eval_info.json").write_text(
                '{"overall": {}, "episodes": [{"task": "a", "success": true}]}'
            ),
            "episode 0 has no seed, return, length",
        ),
    ],
)
def test_what_is_no_result_is_named(tmp_path, prepare, says):
    prepare(tmp_path)
    with pytest.raises(ValueError) as caught:
        read_eval_info(tmp_path)
    assert says in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_run_folder_is_answered_with_the_results_inside(tmp_path):
    write(tmp_path / "eval" / "button", RECORDS)
    with pytest.raises(ValueError, match=r"it has the results .*eval/button"):
        read_eval_info(tmp_path)


def test_the_commit_is_recorded_and_marked_when_files_changed(tmp_path, monkeypatch):
    (tmp_path / "embodied").mkdir()
    (tmp_path / "embodied" / "__init__.py").write_text("")
    monkeypatch.setattr(results.embodied, "__file__", str(tmp_path / "embodied" / "__init__.py"))
    assert results.git_commit() is None and versions()["git"] is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    clean = results.git_commit()
    assert clean is not None and len(clean) == 40
    (tmp_path / "embodied" / "__init__.py").write_text("x = 1")
    assert results.git_commit() == clean + "+"
