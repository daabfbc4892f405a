"""Several bodies from the command line: trained together, resumed exactly, evaluated singly, the start of others."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakes.bodies import Body, write_body
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from embodied.agent import Agent
from embodied.cli import eval as evaluation
from embodied.cli import train as module
from embodied.cli.app import command
from embodied.crew import Crew
from embodied.training.run_folder import newest

TESTS = Path(__file__).parents[1]
SEARCH = f"hydra.searchpath=[file://{TESTS / 'fakes' / 'conf'}]"
MODEL = [
    "model.encoder.widths=[8,8]",
    "model.backbone.config={model_type:llama,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,"
    "num_key_value_heads:2,intermediate_size:16,max_position_embeddings:256,tie_word_embeddings:true}",
    "chunk.horizon=3",
    "execution.steps=2",
]
TRAINER = [
    "trainer.batch_size=8",
    "trainer.max_steps=4",
    "trainer.save_every=2",
    "trainer.log_every=1",
    "trainer.precision=float32",
    "trainer.threads=1",
]
ARM = Body("arm", dims=2)
CART = Body("cart", turn=1.5, spare=1, dims=4, cameras=("left", "right"))
NEW = Body("new", turn=-0.7, spare=2, dims=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name, body in {"arm": ARM, "cart": CART, "new": NEW}.items():
        write_body(root / name, body, episodes=4)
    return root


@pytest.fixture
def run(monkeypatch, tmp_path, capsys, plugins):
    """Runs a command; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(name, work, *words):
        monkeypatch.setattr("sys.argv", [f"embodied-{name}", *words])
        status = 0
        try:
            command(name, work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def train(run):
    return lambda *words: run("train", module.train, *TRAINER, *words)


def both(data, weight=3):
    return [*MODEL, f"data.sources={{arm:{{root:{data}/arm}},cart:{{root:{data}/cart,weight:{weight}}}}}"]


@pytest.fixture(scope="module")
def crew(data, tmp_path_factory):
    """A run of two bodies."""
    out = tmp_path_factory.mktemp("crew") / "run"
    words = [*TRAINER, *both(data), "head=diffusion", "head.sample_steps=5", f"out={out}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["embodied-train", *words])
        command("train", module.train)()
    return out


def one_line(outcome, *parts):
    status, _, err = outcome
    said = [line for line in err.splitlines() if line.startswith("embodied-")]
    assert status == 2 and len(said) == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in said[0], said[0]


def tensors(folder):
    files = sorted(Path(folder).rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}:{name}": t for file in files for name, t in load_file(file).items()}


def same(a, b):
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_of_two_bodies_says_its_shares_and_its_losses(train, data, tmp_path):
    status, out, err = train(*both(data), "out=run", "data.validation=0.25", "trainer.validate_every=4")
    assert status == 0, err
    assert "25% of each batch" in out and "75% of each batch" in out and "agents.cart" in out
    assert "(arm " in err and "validation loss" in out
    events = EventAccumulator(str(tmp_path / "run/log")).Reload()
    curves = {name: [e.value for e in events.Scalars(f"train/{name}")] for name in ("loss", "loss/arm", "loss/cart")}
    mixed = zip(curves["loss"], curves["loss/arm"], curves["loss/cart"], strict=True)
    assert all(min(a, b) <= whole <= max(a, b) for whole, a, b in mixed)
    assert list(Crew.from_pretrained(newest(tmp_path / "run")).agents) == ["arm", "cart"]


@pytest.mark.parametrize(
    "options",
    [
        ["ema.decay=0.99", "head=diffusion"],
        ["lora.match=model.backbone.*_proj", "lora.rank=2", "lora.dropout=0.1", "freeze=[model.encoders]"],
    ],
    ids=["ema-diffusion", "lora"],
)
def test_resumed_from_an_earlier_checkpoint_it_is_the_same_run(train, data, tmp_path, options):
    assert train(*both(data), "out=run", *options)[0] == 0
    shutil.copytree(tmp_path / "run", tmp_path / "again", symlinks=True)
    shutil.rmtree(tmp_path / "again/checkpoints/000004")
    status, out, err = train(*both(data), "out=again", "resume=true", *options)
    assert status == 0 and "from step 2" in out, err
    assert same(tmp_path / "run/checkpoints/000004", tmp_path / "again/checkpoints/000004")


def test_parts_and_processes_learn_what_one_batch_does(train, data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*both(data), "head=diffusion", "trainer.device=cpu", "optimizer=sgd"]
    start = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port), "-m", "embodied.cli.train"]
    several = [*TRAINER, *words, "trainer.accumulate=2", f"out={tmp_path / 'two'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *start, *several], capture_output=True, text=True, timeout=240,
                          env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert train("out=one", *words)[0] == 0
    one, two = (load_file(newest(tmp_path / out) / "model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys()
    assert max((one[k].double() - two[k].double()).abs().max().item() for k in one) < 1e-6


def test_an_evaluation_takes_the_agent_of_the_environments_body(run, crew, tmp_path):
    words = ["env=fake/body", "episodes=1", "videos=0", "num_envs=1", "env.make.max_steps=5", "env.make.tasks=[left]"]
    cart = ["env.make={name:cart,turn:1.5,spare:1,dims:4,cameras:[left,right]}", "out=cart"]
    evaluate = lambda *more: run("eval", evaluation.work, SEARCH, f"policy={crew}", *words, *more)  # noqa: E731
    status, _, err = evaluate(*cart)
    assert status == 0, err
    info = json.loads((tmp_path / "cart/eval_info.json").read_text())
    assert info["n_episodes"] == 1 if "n_episodes" in info else info["episodes"]
    one_line(evaluate("env.make.name=point", "env.make.spare=5", "out=x"), "arm (arm): action.names", "cart (cart)")
    one_line(evaluate(*cart[:1], "source=crt", "out=y"), "no agent 'crt'", "did you mean 'cart'")
    one_line(evaluate(*cart[:1], "source=arm", "out=z"), "disagree on action.names")


def test_a_new_body_starts_from_what_the_crew_has_learned_to_see(train, crew, data, tmp_path):
    words = ["experiment=finetune", f"init={crew}", f"data.root={data}/new", "data.episodes=2", "lora.rank=2"]
    status, out, err = train(*words, "out=new", "trainer.max_steps=2")
    assert status == 0, err
    assert "samples of 2 episodes" in out
    said = {line.split()[0]: line for line in out.splitlines() if line.split()[:1] in (["taken"], ["new"], ["left"])}
    assert "model.backbone" in said["taken"] and "model.encoders" in said["taken"] and "head" not in said["taken"]
    assert "head" in said["new"] and "model.state" in said["new"] and "processing" in said["new"]
    assert "arm.head" in said["left"] and "cart.model.state" in said["left"]
    old, new = Crew.from_pretrained(newest(crew)), Agent.from_pretrained(newest(tmp_path / "new"))
    assert new.config["head"] == old.agents["arm"].config["head"] and new.horizon == 3
    backbone = old.agents["arm"].model.backbone
    before, after = backbone.state_dict(), new.model.backbone.state_dict()
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith("_proj") for name in changed)  # by LoRA, merged; all else was frozen
    action = new.processing.steps["actions"]
    assert action.high.shape == (4,) and bool(action.fitted)
    assert new.model.tokenizer(["a word nobody used: épouvantail"])[0].numel() > 3

    shutil.copytree(tmp_path / "new", tmp_path / "again", symlinks=True)
    one_line(train(*words, "out=again", "resume=true", "trainer.max_steps=3"), "max_steps was 2")
    status, out, err = train(*words, "out=again", "resume=true", "trainer.max_steps=2")
    assert status == 0 and "trained already" in out and "taken" not in out, err


def test_a_known_body_starts_as_the_very_policy_it_was(train, crew, data, tmp_path):
    status, out, err = train(f"init={crew}", f"data.root={data}/cart", "out=more", "optimizer.lr=0",
                             "trainer.max_steps=1")  # fmt: skip
    assert status == 0 and "new    nothing" in out, err
    one, two = Crew.from_pretrained(newest(crew)).agents["cart"], Agent.from_pretrained(newest(tmp_path / "more"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_a_crew_starts_from_an_agent_and_a_crew(train, crew, data, tmp_path):
    sources = f"data.sources={{new:{{root:{data}/new}},arm:{{root:{data}/arm}}}}"
    status, out, err = train(f"init={crew}", sources, "out=second", "optimizer.lr=0", "trainer.max_steps=1")
    assert status == 0 and "new.head" in out, err
    old, second = Crew.from_pretrained(newest(crew)), Crew.from_pretrained(newest(tmp_path / "second"))
    theirs = second.agents["arm"].state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in old.agents["arm"].state_dict().items())
    assert train(*MODEL, f"data.root={data}/arm", "out=agent")[0] == 0
    status, out, err = train("init=agent", sources, "out=third", "trainer.max_steps=1")
    assert status == 0 and "new.head" in out and "left   nothing" in out, err


def test_mistakes_are_one_line(train, crew, data, tmp_path):
    arm = f"data.root={data}/arm"
    cases = [
        ([arm, "data.sources={a:{root:x}}"], ["data.root (one dataset) or data.sources (several), not both"]),
        (["data.sources={a:{weight:1}}"], ["data.sources.a.root is not given"]),
        (["data.sources={a:x}"], ["data.sources.a is 'x'"]),
        ([f"data.sources={{a:{{root:{data}/arm,wight:1}}}}"], ["no 'wight'", "did you mean 'weight'"]),
        ([f"data.sources={{a:{{root:{data}/arm,weight:-1}}}}"], ["data.sources.a.weight must be a positive number"]),
        ([f"data.sources={{a:{{root:{data}/nowhere}}}}"], ["nowhere"]),
        ([*both(data), "data.normalisation=mine"], ["one of source, shared, got 'mine'"]),
        ([*both(data), "own=[hed]"], ["own: 'hed' matches no part's name"]),
        ([arm, "data.episodes=9"], ["has 4 episodes, asked for the first 9"]),
        (["init=nowhere", arm], ["init=nowhere: there is no such folder"]),
        (["init=expert", arm], ["init=expert is no checkpoint"]),
        ([f"init={crew}", arm, "head=mlp"], ["head=mlp would do nothing", "keep=[model,processing,execution"]),
        ([f"init={crew}", arm, "backbone=qwen2"], ["backbone=qwen2 would do nothing"]),
        ([f"init={crew}", arm, "keep=[modl]"], ["keep has 'modl'", "did you mean 'model'"]),
        ([f"init={crew}", f"data.root={data}/new", "keep=[]", *MODEL[1:], "model.encoder.widths=[16,16]",
          "text.vocabulary=300", "model.backbone.config.hidden_size=24"], ["nothing of", "fits this model", " there"]),
    ]  # fmt: skip
    for words, parts in cases:
        one_line(train(*words, "out=bad"), *parts)
        assert not (tmp_path / "bad/checkpoints").exists()
    damaged = shutil.copytree(newest(crew), tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"")
    one_line(train(f"init={damaged}", arm, "out=bad"), "model.safetensors is damaged")
