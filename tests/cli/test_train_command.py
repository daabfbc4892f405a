"""embodied-train: a run from a dataset to an agent that loads, its mistakes in one line, its sweeps in one table."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakes.demonstrations import write_demonstrations
from safetensors.torch import load_file

from embodied.agent import Agent
from embodied.cli import train as module
from embodied.cli.app import command
from embodied.training.run_folder import newest, steps

SMALL = [
    "model.encoder.widths=[8,8]",
    "model.backbone.config={model_type:llama,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,"
    "num_key_value_heads:2,intermediate_size:16,max_position_embeddings:256,tie_word_embeddings:true}",
    "chunk.horizon=4",
    "trainer.batch_size=8",
    "trainer.max_steps=4",
    "trainer.save_every=2",
    "trainer.log_every=1",
    "trainer.precision=float32",
    "trainer.threads=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_demonstrations(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def train(data, monkeypatch, tmp_path, capsys):
    """Runs `embodied-train` on the toy dataset; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        root = [] if any(word.startswith("data.root") for word in words) else [f"data.root={data}"]
        monkeypatch.setattr("sys.argv", ["embodied-train", *SMALL, *root, *words])
        status = 0
        try:
            command("train", module.train)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def tensors(folder):
    files = sorted(Path(folder).rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}:{name}": t for file in files for name, t in load_file(file).items()}


def same(a, b):
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


def one_line(outcome, *parts):
    """The command ended with status 2 and one line that has these parts."""
    status, _, err = outcome
    said = [line for line in err.splitlines() if line.startswith("embodied-train: ")]
    assert status == 2 and len(said) == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in said[0]


def test_a_run_leaves_its_config_its_log_and_an_agent_that_needs_nothing_else(train, data, tmp_path):
    status, out, err = train("out=run")
    assert status == 0, err
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.yaml", "log", "checkpoints", ".lock"}
    assert "48 samples of 4 episodes" in out and "model.backbone" in out and "4/4 steps" in err
    shutil.move(tmp_path / "run" / "checkpoints" / "000004", tmp_path / "agent")
    agent = Agent.from_pretrained(tmp_path / "agent")
    assert agent.embodiment.camera_names == ("front", "side") and agent.horizon == 4


@pytest.mark.parametrize(
    "options",
    [
        ["ema.decay=0.99", "head=diffusion"],
        ["lora.match=backbone.*_proj", "lora.rank=2", "lora.dropout=0.1", "head=token", "freeze=[model.encoders]"],
    ],
    ids=["ema-diffusion", "lora-token"],
)
def test_resumed_from_an_earlier_checkpoint_it_is_the_same_run(train, tmp_path, options):
    assert train("out=run", *options)[0] == 0
    shutil.copytree(tmp_path / "run", tmp_path / "again", symlinks=True)
    shutil.rmtree(tmp_path / "again/checkpoints/000004")
    status, out, err = train("out=again", "resume=true", *options)
    assert status == 0 and "from step 2" in out, err
    assert same(tmp_path / "run/checkpoints/000004", tmp_path / "again/checkpoints/000004")


def test_the_same_command_learns_the_same_and_another_seed_another(train, tmp_path):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert train(f"out={out}", f"seed={seed}")[0] == 0
    assert same(newest(tmp_path / "a"), newest(tmp_path / "b"))
    assert not same(newest(tmp_path / "a"), newest(tmp_path / "c"))


def test_cameras_are_chosen_and_episodes_held_out(train, tmp_path):
    status, out, err = train("out=run", "data.cameras=[side]", "data.validation=0.25", "trainer.validate_every=2")
    assert status == 0, err
    assert "36 samples of 3 episodes" in out and out.count("validation loss") == 2
    assert Agent.from_pretrained(newest(tmp_path / "run")).embodiment.camera_names == ("side",)


def test_a_sweep_leaves_one_table_and_a_run_for_each(train, tmp_path):
    status, out, err = train("-m", "out=sweep", "trainer.max_steps=2,3")
    assert status == 0, err
    table = (tmp_path / "sweep" / "sweep.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    assert rows[0][:2] == ["job", "trainer.max_steps"] and {"loss", "samples_per_s", "seconds", "parameters"} <= set(
        rows[0]
    )
    assert [row[1] for row in rows[2:]] == ["2", "3"] and table.strip() in out
    assert [newest(tmp_path / "sweep" / job).name for job in "01"] == ["000002", "000003"]


def test_with_nothing_to_resume_it_says_so_and_starts(train):
    status, out, _ = train("out=run", "resume=true")
    assert status == 0 and "nothing to resume in run: starting fresh" in out


def test_a_run_is_not_overwritten_nor_continued_otherwise(train, tmp_path):
    train("out=run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/checkpoints").rglob("*")}
    one_line(train("out=run"), "out=run is not empty", "resume=true")
    one_line(train("out=run", "resume=true", "optimizer.lr=1"), "optimizer.lr was 0.0003 and is now 1")
    one_line(train("out=run", "resume=true", "trainer.max_steps=9"), "trainer.max_steps was 4 and is now 9", "schedule")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run/checkpoints").rglob("*")} == before


def test_other_data_under_the_same_name_is_refused(train, tmp_path):
    write_demonstrations(tmp_path / "mine")
    train("out=run", "data.root=mine")
    shutil.rmtree(tmp_path / "mine")
    write_demonstrations(tmp_path / "mine", seed=1)
    one_line(train("out=run", "resume=true", "data.root=mine"), "run was trained on other data")


@pytest.mark.parametrize(
    "words, parts",
    [
        (["out=run", "data.root=nowhere"], ["nowhere"]),
        (["out=run", "data.cameras=[fronnt]"], ["fronnt", "front"]),
        (["out=run", "trainer.max_step=3"], ["'trainer.max_step'", "'trainer.max_steps'", "conf/trainer/default.yaml"]),
        (["out=run", "optimiser=sgd"], ["optimiser", "optimizer"]),
        (["out=run", "schedule=cosin"], ["cosine"]),
        (["out=run", "schedule.name=cosin"], ["schedule.name", "cosine"]),
        (["out=run", "freeze=[model.encoder.frontt]"], ["freeze", "near names: model.encoders"]),
        (["out=run", "lora.match=vision_tower"], ["lora.match", "matches nothing"]),
        (["out=run", "trainer.precision=float16"], ["auto, float32, bfloat16"]),
        (["out=run", "trainer.batch_size=1", "trainer.accumulate=2"], ["trainer.batch_size is 1"]),
        (["out=run", "data.validation=1.5"], ["data.validation"]),
        ([], ["out"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(train, tmp_path, words, parts):
    one_line(train(*words), *parts)
    assert not steps(tmp_path / "run")
    status, _, err = train("out=run")
    assert status == 0, f"the mended command can't use the same folder: {err}"


def test_a_folder_that_cannot_be_made_is_one_line(train, tmp_path):
    (tmp_path / "file").write_text("")
    one_line(train("out=file/run"), "file/run")
    one_line(train("out=file"), "out=file is a file")


def test_a_damaged_checkpoint_is_one_line(train, tmp_path):
    train("out=run")
    damaged = newest(tmp_path / "run") / "training_state" / "optimizer.safetensors"
    damaged.write_bytes(b"")
    one_line(train("out=run", "resume=true"), "optimizer.safetensors is damaged", "remove run/checkpoints/000004")


def test_samples_that_make_the_loss_infinite_are_named_with_their_place(train, tmp_path, monkeypatch):
    loss = Agent.loss

    def poisoned(self, batch, generators=None):
        losses = loss(self, batch, generators)
        bad = (batch["observation.state"] == self.poison).any()
        return losses | {"loss": losses["loss"] * (float("inf") if bad else 1.0)}

    write_demonstrations(tmp_path / "mine", episodes=2, length=5)
    from embodied.data import Cache, LeRobotDataset

    Agent.poison = float(Cache(LeRobotDataset("mine"), []).columns["observation.state"][7, 0])
    monkeypatch.setattr(Agent, "loss", poisoned)
    try:
        outcome = train("out=run", "data.root=mine", "data.cameras=[side]")
    finally:
        del Agent.poison
    one_line(outcome, "loss is not finite at step", "samples 7 (episode 1, frame 2);")


def test_launched_as_two_processes_it_learns_what_one_does(train, data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port), "-m"]
    words = [*SMALL, f"data.root={data}", "head=diffusion", "trainer.device=cpu"]
    words += ["optimizer=sgd"]  # Adam blows up the rounding of gradients that are all but 0
    run = [sys.executable, "-m", *start, "embodied.cli.train", *words, f"out={tmp_path / 'two'}"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("48 samples of 4 episodes") == 1
    assert train("out=one", *words)[0] == 0
    one, two = (load_file(newest(tmp_path / out) / "model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys()
    assert max((one[k].double() - two[k].double()).abs().max().item() for k in one) < 1e-6
    facts = json.loads((newest(tmp_path / "two") / "training_state/trainer.json").read_text())
    assert facts["processes"] == 2
