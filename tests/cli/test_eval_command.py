"""embodied-eval: outcomes with their interval on disk, no finished episode lost, and every mistake in one line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embodied.cli import eval as module
from embodied.cli.app import command
from embodied.evaluation.journal import FILE
from embodied.evaluation.statistics import wilson

TESTS = Path(__file__).parents[1]
SEARCH = f"hydra.searchpath=[file://{TESTS / 'fakes' / 'conf'}]"
MEASURED = ("seconds", "inference_ms", "retries")


@pytest.fixture
def evaluate(plugins, monkeypatch, tmp_path, capsys):
    """Runs `embodied-eval` with a user's own environment; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        own = [] if any("metaworld" in word for word in words) else [SEARCH]
        monkeypatch.setattr("sys.argv", ["embodied-eval", *own, *words])
        status = 0
        try:
            command("eval", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def outcomes(folder):
    episodes = json.loads((folder / "eval_info.json").read_text())["episodes"]
    return [{key: value for key, value in episode.items() if key not in MEASURED} for episode in episodes]


def test_the_experts_rate_comes_with_interval_seeds_videos_and_report(evaluate, tmp_path):
    words = ("policy=expert", "env=fake/point", "env.expert.fails=5", "env.make.tasks=[left]")
    status, said, shown = evaluate(*words, "episodes=10", "seed=20", "videos=2")
    assert status == 0
    out = tmp_path / "runs/expert/eval/fake_point_20"
    info = json.loads((out / "eval_info.json").read_text())
    assert [(e["task"], e["seed"]) for e in info["episodes"]] == [("left", seed) for seed in range(20, 30)]
    assert [e["seed"] for e in info["episodes"] if not e["success"]] == [23, 28]
    low, high = wilson(8, 10)
    assert info["ci95"] == pytest.approx([100 * low, 100 * high])
    assert f"success 8/10 = 80.0 % (95 % interval {100 * low:.1f} to {100 * high:.1f})" in said
    assert "10/10 episodes" in shown and "success 8/10" in shown
    assert sorted(path.name for path in (out / "videos").iterdir()) == ["left_20.mp4", "left_21.mp4"]
    assert (out / "report.html").is_file()
    assert not (out / FILE).exists()


def test_a_sweep_gets_the_numbers_it_tabulates(evaluate, plugins, tmp_path, monkeypatch):
    from embodied.cli.configs import compose

    monkeypatch.chdir(tmp_path)
    config = compose("eval", [SEARCH, "policy=random", "env=fake/point", "episodes=2", "out=o", "videos=0"])
    results = module.work(config)
    assert {"success", "low", "high", "n", "episodes_per_hour"} <= set(results)
    assert results["n"] == 4 and 0 <= results["low"] <= results["success"] <= results["high"] <= 1


def test_an_interrupted_evaluation_goes_on_and_ends_as_if_it_had_not_been(evaluate, tmp_path):
    words = ["policy=random", "env=fake/point", "env.make.max_steps=15", "episodes=8", "seed=5", "videos=1"]
    assert evaluate(*words, "out=whole")[0] == 0
    slow = [*words, "env.make.delay=0.01", "out=killed"]
    path = os.pathsep.join([str(TESTS), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-m", "embodied.cli.eval", SEARCH, *slow],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )
    journal = tmp_path / "killed" / FILE
    while process.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 4):
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.wait()
    finished = journal.read_text().count("\n") - 1
    assert 3 <= finished < 16
    journal.write_text(journal.read_text() + '{"task": "left", "se')  # as if it had been cut in mid-write
    status, _, shown = evaluate(*slow)
    assert status == 0 and f"{finished + 1}/16 episodes" in shown
    assert outcomes(tmp_path / "killed") == outcomes(tmp_path / "whole")
    assert not journal.exists()


def test_a_journal_of_another_evaluation_is_kept(evaluate, tmp_path):
    words = ["policy=random", "env=fake/point", "episodes=2", "out=o", "videos=0"]
    raising = ["env.make._target_=fakes.point.PointWorld", "+env.make.raise_at=[1,3]", "seed=0", "num_envs=1"]
    status, _, shown = evaluate(*words, *raising)
    assert status == 2 and "fake/point, task left, seed 1: KeyError: 'joint7'" in shown
    before = (tmp_path / "o" / FILE).read_text()
    assert before.count("\n") == 2  # the identity, and seed 0
    status, _, shown = evaluate(*words, "seed=7")
    assert status == 2 and "resume=false" in shown and len(shown.strip().splitlines()) == 1
    assert (tmp_path / "o" / FILE).read_text() == before
    assert evaluate(*words, "seed=7", "resume=false")[0] == 0
    assert {episode["seed"] for episode in outcomes(tmp_path / "o")} == {7, 8}


@pytest.mark.parametrize(
    "words, said",
    [
        (["policy=runs/quickstrat"], "did you mean 'runs/quickstart'"),
        (["policy=exprt"], "did you mean 'expert'"),
        (["policy=/no/such/run"], "there is no such folder"),
        (["policy=runs/quickstart"], "without a complete checkpoint"),
        (["policy=pictures"], "holds no agent"),
        (["policy=notes.txt"], "is a file"),
        (["policy=ws://robot:8000"], "needs the deploy extra"),
        (["policy=damaged"], "damaged"),
        (["policy=expert", "env.expert=null"], "no expert"),
        (["policy=expert", "episodes=0"], "episodes is 1 or more"),
        (["policy=expert", "num_envs=0"], "num_envs is 1 or more"),
        (["policy=expert", "seed=-1"], "seed is 0 or more"),
        (["policy=expert", "env.make.broken=true"], "no GL library"),
        (["policy=expert", "env.make.colour=red"], "colour"),
        (["policy=expert", "out=notes.txt"], "notes.txt is a file"),
        ([], "policy"),
    ],
)
def test_a_mistake_ends_in_one_line_and_leaves_nothing(evaluate, tmp_path, words, said):
    (tmp_path / "runs/quickstart").mkdir(parents=True)
    (tmp_path / "runs/quickstart/config.yaml").write_text("seed: 0")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text("{damaged")
    (tmp_path / "damaged/model.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("notes")
    before = sorted(tmp_path.rglob("*"))
    status, _, shown = evaluate("env=fake/point", "episodes=1", *words)
    lines = shown.strip().splitlines()
    assert status not in (0, None)
    assert len(lines) == 1 and lines[0].startswith("embodied-eval: ") and said in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words, said",
    [
        (["env=metaworld/reach", "policy=expert", "num_env=2"], "did you mean 'num_envs'"),
        (["env=metaworld/reech", "policy=expert"], "did you mean 'metaworld/reach'"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(evaluate, tmp_path, words, said):
    status, _, shown = evaluate(*words)
    assert status == 2 and said in shown and not list(tmp_path.iterdir())


def test_chunks_are_executed_otherwise_than_trained_where_that_is_asked_for(evaluate):
    status, _, shown = evaluate("policy=random", "env=fake/point", "execution=newest", "episodes=1", "videos=0")
    assert status and "policy=random predicts no chunks: execution= is for an agent" in shown


def test_what_was_clipped_and_what_ends_an_episode_is_said(evaluate, tmp_path):
    words = ("policy=expert", "env=fake/point", "env.make.tasks=[left]", "episodes=1", "videos=0")
    status, said, _ = evaluate(*words, "out=clipped")
    assert status == 0 and "actions left the bounds and were clipped" in said
    status, said, _ = evaluate(*words, "out=failed", "out_of_bounds=fail")
    assert status == 0 and "episodes count as failed: left, seed 10000: the action of step 0 had" in said
    info = json.loads((tmp_path / "failed/eval_info.json").read_text())
    assert info["overall"]["failed_to_finish"] == 1 and info["overall"]["clipped_actions"] == 0


def test_filmed_episodes_are_recorded_for_rerun(evaluate, tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    words = ("policy=expert", "env=fake/point", "env.make.tasks=[left]", "episodes=2", "videos=1", "rerun=look.rrd")
    assert evaluate(*words)[0] == 0
    assert (tmp_path / "look.rrd").stat().st_size > 1000


@pytest.mark.parametrize(
    "words, says",
    [
        (("rerun=look.mp4",), "rerun=look.mp4: a recording is a file that ends in .rrd"),
        (
            ("rerun=look.rrd", "videos=0"),
            "rerun=look.rrd records the episodes that are filmed, and videos=0 films none",
        ),
    ],
)
def test_a_recording_that_cannot_be_made_is_one_line_and_nothing_runs(evaluate, tmp_path, words, says):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    status, _, shown = evaluate("policy=random", "env=fake/point", "episodes=1", *words)
    assert (status, shown) == (2, f"embodied-eval: {says}\n") and not (tmp_path / "runs").exists()
