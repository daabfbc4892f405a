"""A history of frames: learned from at every step, and carried through a rollout instead of read again."""

import functools

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from embodied.agent import Agent, create_agent
from embodied.cli.configs import compose
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

HISTORY, HORIZON = 3, 4
ACTION = ActionSpec(("x", "grip"), ("m", "1"), (-1.0, -1.0), (1.0, 1.0), gripper=1)
BODY = Embodiment("toy", ACTION, StateSpec(("x",), ("m",)), (Camera("front", 16, 16, "fake"),), rate=10)
SMALL = [
    "data.root=none", "out=none", f"chunk.history={HISTORY}", f"chunk.horizon={HORIZON}", "processing.shift=null",
    "model.encoder.widths=[8,8]", "model.backbone.config.hidden_size=16", "model.backbone.config.num_hidden_layers=1",
    "model.backbone.config.num_attention_heads=2", "model.backbone.config.num_key_value_heads=2",
    "model.backbone.config.intermediate_size=32",
]  # fmt: skip
SEQUENTIAL = {
    "rnn": ["head=rnn", "head.size=16"],
    "rnn, whole episode": ["head=rnn", "head.size=16", "head.window=null", "head.gripper=1"],
    "gpt": ["head=gpt", "head.size=16"],
}


def an_agent(*overrides):
    torch.manual_seed(0)
    config = OmegaConf.to_container(compose("train", [*SMALL, *overrides]), resolve=True)
    rng = np.random.default_rng(0)
    columns = {k: rng.normal(size=(40, d)).astype(np.float32) for k, d in (("action", 2), ("observation.state", 1))}
    agent = create_agent(config, BODY, ["go left", "go to the right"], columns, np.array([20, 40]))
    if agent.model.ages is not None:
        torch.nn.init.normal_(agent.model.ages, std=0.5)  # as if it had been trained
    return agent.eval()


framewise = functools.partial(an_agent, "model.attention=framewise", "chunk.every_step=true")


def an_episode(length=8, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8)
    states = rng.normal(size=(length, 1)).astype(np.float32)
    return [
        {"observation.images.front": frame, "observation.state": state, "task": "go left"}
        for frame, state in zip(frames, states, strict=True)
    ]


def as_batch(frames):
    """Frames of one episode as a history without padding."""
    keys = ("observation.images.front", "observation.state")
    batch = {key: torch.from_numpy(np.stack([frame[key] for frame in frames])).unsqueeze(0) for key in keys}
    return batch | {"observation_is_pad": torch.zeros(1, len(frames), dtype=torch.bool), "task": ["go left"]}


def a_batch(rows=4):
    episodes = [as_batch(an_episode(HISTORY, seed)) for seed in range(rows)]
    batch = {k: torch.cat([e[k] for e in episodes]) for k in episodes[0] if k != "task"} | {"task": ["go left"] * rows}
    rng = np.random.default_rng(9)
    batch["action"] = torch.from_numpy(rng.normal(size=(rows, HISTORY, HORIZON, 2)).astype(np.float32))
    batch["action_is_pad"] = torch.zeros(rows, HISTORY, HORIZON, dtype=torch.bool)
    batch["observation_is_pad"][0, :2] = True
    batch["action_is_pad"][0, :2] = True
    batch["action_is_pad"][1, 1:, 2:] = True
    return batch


def generators(count=4):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def roll_out(agent, slots, count=4, length=7):
    """Actions of `count` episodes of their own lengths, `slots` at a time; a slot is refilled at once."""
    episodes = [an_episode(length + i % 3, seed=i) for i in range(count)]
    actions, running, waiting = [[] for _ in range(count)], {}, list(range(count))
    agent.reset(slots)
    while running or waiting:
        for slot in range(slots):
            if slot not in running and waiting:
                running[slot] = waiting.pop(0)
                agent.start(slot, seed=running[slot], task="go")
        order = sorted(running)
        now = [episodes[running[s]][len(actions[running[s]])] for s in order]
        batch = {k: [o[k] for o in now] if k == "task" else np.stack([o[k] for o in now]) for k in now[0]}
        for slot, action in zip(order, agent.act(batch, order), strict=True):
            actions[running[slot]].append(action)
            if len(actions[running[slot]]) == len(episodes[running[slot]]):
                del running[slot]
    return [np.stack(episode) for episode in actions]


@pytest.mark.parametrize("head", SEQUENTIAL)
def test_a_rollout_that_carries_its_memory_acts_as_one_pass_over_the_history(head):
    agent = framewise(*SEQUENTIAL[head], "execution.steps=1")
    assert agent.carries
    acted, episode = roll_out(agent, slots=1, count=1)[0], an_episode(7)
    window = len(episode) if agent.head.window is None else agent.head.window
    for step in range(7):
        chunk = agent.predict(as_batch(episode[max(0, step + 1 - window) : step + 1]))
        np.testing.assert_allclose(acted[step], chunk[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("head", SEQUENTIAL)
def test_frames_whose_chunk_is_not_executed_are_remembered_all_the_same(head):
    agent = framewise(*SEQUENTIAL[head], "execution.steps=3")
    acted, episode = roll_out(agent, slots=1, count=1)[0], an_episode(7)
    window = len(episode) if agent.head.window is None else agent.head.window
    chunk = agent.predict(as_batch(episode[max(0, 4 - window) : 4]))[0].numpy()
    np.testing.assert_allclose(acted[3:6], chunk[:3], atol=1e-5)


@pytest.mark.parametrize("head", [*SEQUENTIAL.values(), ["head=mixture"], ["head=transformer", "head.attend=steps"]])
def test_an_episode_is_the_same_to_the_bit_whoever_shares_its_batch(head):
    agent = framewise(*head)
    alone = roll_out(agent, slots=1)
    for slots in (2, 4):
        for one, other in zip(alone, roll_out(agent, slots), strict=True):
            assert np.array_equal(one, other)
    agent.rows_per_pass = None  # all rows in one pass round differently, and no more than that
    for one, other in zip(alone, roll_out(agent, 4), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_new_episode_remembers_nothing_of_the_last():
    agent = framewise(*SEQUENTIAL["rnn, whole episode"])
    first = roll_out(agent, slots=1, count=1)[0]
    again = roll_out(agent, slots=1, count=2)[0]
    assert np.array_equal(first, again)
    agent.start(0, seed=0, task="go")
    assert not any(part.any() for part in agent._slots[0].memory)


@pytest.mark.parametrize("head", ["mlp", "diffusion", "mixture", "transformer"])
@pytest.mark.parametrize("attention", ["framewise", "stepwise"])
def test_every_step_is_learned_as_if_it_were_the_present_one(head, attention):
    """The loss of a history is the mean of what each of its steps would have been charged as the latest."""
    agent = an_agent(f"model.attention={attention}", "chunk.every_step=true", f"head={head}")
    batch = a_batch()
    noise = generators() if head == "diffusion" else None
    whole = agent.loss(batch, noise)["loss"]
    if head == "diffusion":  # draws noise: another row's noise must not matter
        lone = {k: v[2:3] for k, v in batch.items()}
        alone = agent.loss(lone, generators()[2:3])["loss"]
        batch["action_is_pad"][[0, 1, 3]] = True
        assert torch.allclose(agent.loss(batch, generators())["loss"], alone, rtol=1e-4)
        return
    agent.every_step = False
    total, kept = 0.0, 0
    for step in range(HISTORY):
        now = dict(batch)
        now |= {"action": batch["action"][:, step], "action_is_pad": batch["action_is_pad"][:, step]}
        now["observation_is_pad"] = batch["observation_is_pad"].clone()
        now["observation_is_pad"][:, step + 1 :] = True
        now["observation_is_pad"][:, step] = False  # a frame that does not exist has a latest step, and no actions
        count = int((~now["action_is_pad"]).sum())
        total, kept = total + agent.loss(now)["loss"] * count, kept + count
    assert torch.allclose(whole, total / kept, rtol=1e-4)


@pytest.mark.parametrize("head", ["mlp", "rnn", "gpt"])
def test_what_padding_holds_changes_no_gradient(head):
    agent, gradients = framewise(f"head={head}"), []
    for garbage in (0.0, 7.0):
        batch = a_batch()
        batch["action"][batch["action_is_pad"]] = garbage
        batch["observation.state"][0, :2] = garbage
        batch["observation.images.front"][0, :2] = int(garbage)
        agent.zero_grad()
        agent.loss(batch)["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in agent.parameters() if p.grad is not None]))
    assert torch.equal(*gradients) and gradients[0].any()


def test_relative_actions_are_relative_to_each_steps_own_state():
    agent = framewise("processing=relative", "processing.shift=null", "processing.relative.dims=[0]")
    processed = agent.processing(a_batch())["action"]
    for step in range(HISTORY):
        now = a_batch()
        alone = now | {"action": now["action"][:, step], "action_is_pad": now["action_is_pad"][:, step]}
        alone["observation.state"] = now["observation.state"][:, : step + 1]
        assert torch.equal(processed[:, step], agent.processing(alone)["action"])


def test_it_is_saved_and_loaded_with_its_memory(tmp_path):
    agent = framewise(*SEQUENTIAL["gpt"])
    agent.save_pretrained(tmp_path)
    loaded = Agent.from_pretrained(tmp_path)
    assert loaded.every_step and loaded.carries
    assert np.array_equal(roll_out(loaded, 2)[1], roll_out(agent, 2)[1])


@pytest.mark.parametrize(
    "overrides, says",
    [
        (["chunk.every_step=true"], "choose stepwise or framewise"),
        (["chunk.every_step=true", "model.attention=stepwise", "head=token"], "TokenHead reads the .* prefix"),
        (["model.attention=framewise", "head=token"], "with model.attention=framewise a step has none"),
        (["model.attention=framewise", "head=transformer", "head.attend=prefix"], "TransformerHead reads"),
        (["execution.latency=4"], r"steps is 4 and latency 4, but a chunk has only 4|raise execution\.steps"),
        (["execution=temporal_ensemble", "execution.latency=4"], r"lower execution\.latency"),
    ],
)
def test_a_combination_that_cannot_be_is_refused_when_it_is_built(overrides, says):
    with pytest.raises(ValueError, match=says):
        an_agent(*overrides)


def test_chunks_can_be_executed_in_another_way_than_trained():
    agent = an_agent("head=mlp")
    agent.execute_by({"_target_": "policies.execution.AdaptiveEnsemble", "latency": 1})
    assert agent.execution.latency == 1 and agent.config["execution"]["latency"] == 1
    with pytest.raises(ValueError, match="chunk has only 4"):
        agent.execute_by({"_target_": "policies.execution.RecedingHorizon", "steps": 9})


def test_a_head_can_choose_in_another_way_than_trained_and_what_it_learned_stays():
    agent = an_agent("head=flow")
    before = {name: weight.clone() for name, weight in agent.state_dict().items()}
    agent.choose_by({"sample_steps": 3})
    assert agent.head.sample_steps == agent.config["head"]["sample_steps"] == 3
    assert all(torch.equal(weight, before[name]) for name, weight in agent.state_dict().items())
    for settings, says in (
        ({"sample_step": 3}, "did you mean 'sample_steps'"),
        ({"_target_": "policies.heads.mlp.MLPHead"}, "choose no other"),
        ({"denoiser": {**agent.config["head"]["denoiser"], "hidden": 48}}, "other weights than those it learned"),
    ):
        with pytest.raises(ValueError, match=says):
            agent.choose_by(settings)
    assert agent.config["head"]["sample_steps"] == 3
