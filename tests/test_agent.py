"""An agent survives its folder bit for bit, acts the same alone and in company, and nothing in a folder runs."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from embodied.agent import Agent, create_agent
from embodied.building import ForbiddenTarget
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

TASKS = ["press the button", "open the door of the house"]
HEADS = {
    "mlp": {"_target_": "policies.heads.mlp.MLPHead", "hidden": [16]},
    "token": {"_target_": "policies.heads.token.TokenHead", "temperature": 1.0},
    "diffusion": {
        "_target_": "policies.heads.diffusion.DiffusionHead",
        "denoiser": {"_target_": "policies.heads.denoisers.mlp.MLPDenoiser", "hidden": 16, "blocks": 1},
        "sample_steps": 5,
    },
}
CONFIG = {
    "model": {
        "encoder": {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [8, 8]},
        "connector": {"_target_": "embodied.lvlm.connectors.resampler.PerceiverResampler", "queries": 2, "heads": 2},
        "backbone": {
            "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
            "config": {
                "model_type": "llama",
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "intermediate_size": 32,
                "tie_word_embeddings": True,
            },
        },
        "state": {"_target_": "embodied.lvlm.encoders.state.StateEncoder", "hidden": 0},
    },
    "processing": {
        "shift": {"_target_": "embodied.processing.augment.RandomShift", "pixels": 2},
        "state": {
            "_target_": "embodied.processing.normalize.Normalize",
            "key": "observation.state",
            "mode": "mean_std",
        },
        "actions": {"_target_": "embodied.processing.normalize.Normalize", "key": "action", "mode": "min_max"},
    },
    "execution": {"_target_": "policies.execution.RecedingHorizon", "steps": 2},
    "chunk": {"history": 2, "horizon": 4},
}


def a_body():
    action = ActionSpec(("x", "y", "grip"), ("m", "m", "1"), (-1.0,) * 3, (1.0,) * 3, gripper=2)
    cameras = (Camera("front", 16, 16, "fake"), Camera("hand", 16, 16, "fake"))
    return Embodiment("toy", action, StateSpec(("x", "y"), ("m", "m")), cameras, rate=10)


def an_agent(head="mlp", **changes):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    columns = {
        "action": rng.normal(size=(50, 3)).astype(np.float32),
        "observation.state": rng.normal(size=(50, 2)).astype(np.float32),
    }
    config = CONFIG | {"head": HEADS[head]} | changes
    return create_agent(config, a_body(), TASKS, columns, np.array([20, 50]))


def a_batch(rows=4, seed=0):
    rng = np.random.default_rng(seed)
    batch = {
        f"observation.images.{c}": torch.from_numpy(rng.integers(0, 256, (rows, 2, 16, 16, 3), dtype=np.uint8))
        for c in ("front", "hand")
    }
    return batch | {
        "observation.state": torch.from_numpy(rng.normal(size=(rows, 2, 2)).astype(np.float32)),
        "observation_is_pad": torch.zeros(rows, 2, dtype=torch.bool),
        "action": torch.from_numpy(rng.normal(size=(rows, 4, 3)).astype(np.float32)),
        "action_is_pad": torch.zeros(rows, 4, dtype=torch.bool),
        "task": [TASKS[i % 2] for i in range(rows)],
    }


def an_observation(rng, task):
    frames = {f"observation.images.{c}": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for c in ("front", "hand")}
    return frames | {"observation.state": rng.normal(size=2).astype(np.float32), "task": task}


def episodes_together(agent, count, slots, length=7):
    """Actions of `count` episodes, `slots` at a time, a slot refilled as soon as its episode of its own length ends."""
    from embodied.contracts import stack

    lengths = [length + i % 3 for i in range(count)]
    rngs = [np.random.default_rng(100 + i) for i in range(count)]
    actions = [[] for _ in range(count)]
    agent.reset(slots)
    running, waiting = {}, list(range(count))
    while running or waiting:
        for slot in range(slots):
            if slot not in running and waiting:
                running[slot] = waiting.pop(0)
                agent.start(slot, seed=running[slot], task=TASKS[running[slot] % 2])
        order = sorted(running)
        batch = stack([an_observation(rngs[running[s]], TASKS[running[s] % 2]) for s in order])
        for slot, action in zip(order, agent.act(batch, order), strict=True):
            actions[running[slot]].append(action)
            if len(actions[running[slot]]) == lengths[running[slot]]:
                del running[slot]
    return [np.stack(episode) for episode in actions]


@pytest.mark.parametrize("head", HEADS)
def test_an_episode_is_the_same_to_the_bit_whoever_shares_its_batch(head):
    agent = an_agent(head)
    alone = episodes_together(agent, count=5, slots=1)
    for slots in (2, 5):
        for one, other in zip(alone, episodes_together(agent, count=5, slots=slots), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("head", HEADS)
def test_saved_and_loaded_it_is_the_same_agent(head, tmp_path):
    agent = an_agent(head).eval()
    agent.save_pretrained(tmp_path)
    loaded = Agent.from_pretrained(tmp_path)
    assert loaded.embodiment == agent.embodiment
    for name, tensor in agent.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    generators = [[torch.Generator().manual_seed(i) for i in range(4)] for _ in range(2)]
    a, b = agent.predict(a_batch(), generators[0]), loaded.predict(a_batch(), generators[1])
    assert torch.equal(a, b)


def test_it_stands_alone_after_its_backbone_came_from_a_checkpoint(tmp_path):
    backbone = an_agent().model.backbone.model
    tokenizer = an_agent().model.tokenizer
    backbone.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    node = {"_target_": "embodied.lvlm.backbones.causal.CausalBackbone", "checkpoint": str(tmp_path / "lm")}
    agent = an_agent(model=CONFIG["model"] | {"backbone": node}, text={"checkpoint": str(tmp_path / "lm")}).eval()
    assert torch.equal(agent.model.backbone.model.get_input_embeddings().weight, backbone.get_input_embeddings().weight)
    agent.save_pretrained(tmp_path / "agent")
    shutil.rmtree(tmp_path / "lm")
    assert torch.equal(Agent.from_pretrained(tmp_path / "agent").predict(a_batch()), agent.predict(a_batch()))


@pytest.mark.parametrize("head", HEADS)
def test_padding_at_the_end_of_an_episode_changes_no_gradient(head):
    agent, batch = an_agent(head).train(), a_batch()
    batch["action_is_pad"][:, 2:] = True
    gradients = []
    for garbage in (0.0, 5.0):
        batch["action"][:, 2:] = garbage
        agent.zero_grad()
        agent.loss(batch, [torch.Generator().manual_seed(i) for i in range(4)])["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in agent.parameters() if p.grad is not None]))
    assert torch.equal(*gradients)


# Folders from strangers.


class _Runs:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def a_saved_agent(folder):
    an_agent().save_pretrained(folder)
    return folder


def edit(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "target, says",
    [
        ("os.system", "outside the allowed packages"),
        ("subprocess.Popen", "outside the allowed packages"),
        ("embodied.agent.torch.load", "no module|is a function"),
        ("embodied.files.Path", "another name for pathlib"),
        ("embodied.progress.Progress", "is not a Module or Execution"),
        ("embodied.files.write_text", "is a function"),
    ],
)
@pytest.mark.parametrize("part", ["head", "processing", "execution", "connector"])
def test_a_config_that_names_something_else_is_refused_and_nothing_runs(part, target, says, tmp_path):
    folder, proof = a_saved_agent(tmp_path / "agent"), tmp_path / "proof"
    node = {"_target_": target, "args": f"touch {proof}", "total": 1, "what": "x"}

    def change(config):
        if part == "processing":
            config["processing"]["shift"] = node
        elif part == "connector":
            config["model"]["connector"] = node
        else:
            config[part] = node

    edit(folder, change)
    with pytest.raises(ValueError, match=says if target != "embodied.progress.Progress" else "is not a"):
        Agent.from_pretrained(folder)
    assert not proof.exists()


def test_a_nested_node_is_checked_like_any_other(tmp_path):
    folder = a_saved_agent(tmp_path / "agent")
    edit(folder, lambda c: c["head"].update(hidden={"_target_": "os.system", "command": "true"}))
    with pytest.raises(ForbiddenTarget, match=r"os\.system"):
        Agent.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "weights.pt"])
def test_a_pickle_is_refused_and_does_not_run(name, tmp_path):
    folder, proof = a_saved_agent(tmp_path / "agent"), tmp_path / "proof"
    (folder / name).write_bytes(pickle.dumps(_Runs(proof)))
    with pytest.raises(ValueError, match=r"pickle|no safetensors file"):
        Agent.from_pretrained(folder)
    assert not proof.exists()


def test_a_truncated_weights_file_is_named(tmp_path):
    folder = a_saved_agent(tmp_path / "agent")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        Agent.from_pretrained(folder)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda c: c["chunk"].update(horizon=9), r"does not fit.*config wants"),
        (lambda c: c["model"]["backbone"]["config"].update(num_hidden_layers=3), r"it has no 'model\.backbone"),
        (lambda c: c["model"]["backbone"]["config"].update(num_hidden_layers=1), r"which the agent has not"),
        (lambda c: c.update(format="other"), "format is 'other'"),
        (lambda c: c.pop("embodiment"), "incomplete"),
        (lambda c: c["head"].update(hiden=[3]), "did you mean 'hidden'"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_named(change, says, tmp_path):
    folder = a_saved_agent(tmp_path / "agent")
    edit(folder, change)
    with pytest.raises(ValueError, match=says):
        Agent.from_pretrained(folder)


def test_a_folder_that_is_no_agent_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no agent"):
        Agent.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        Agent.from_pretrained(tmp_path)
