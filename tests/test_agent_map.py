"""A map is one more thing to read: learned over whole episodes, carried through rollouts, chosen by one word."""

import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from embodied.agent import Agent, create_agent
from embodied.cli.configs import compose
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec
from maps.geometry import camera_pose

SIDE = 16
NAMES = ("stop", "forward", "left")
ACTION = ActionSpec(NAMES, ("1",) * 3, (0.0,) * 3, (1.0,) * 3, kind="categorical", control="none", space="base")
BODY = Embodiment("walker", ACTION, StateSpec(("x",), ("m",)), (Camera("front", SIDE, SIDE, "fake", depth=True),), 4)
SMALL = [
    "experiment=navigation", "data.root=none", "out=none", "processing.shift=null", "model.encoder.widths=[8,8]",
    "model.encoder.patch=2", "model.backbone.config.hidden_size=16", "model.backbone.config.num_hidden_layers=1",
    "model.backbone.config.num_attention_heads=2", "model.backbone.config.num_key_value_heads=2",
    "model.backbone.config.intermediate_size=32", "head.hidden=[16]",
]  # fmt: skip
AROUND = [
    f"model.map.surroundings.{key}" for key in ("size=32", "resolution=0.25", "window=16", "patch=4", "camera=front")
]
MAPS = {
    "none": [],
    "occupancy": ["map=occupancy", *AROUND],
    "smnet": ["map=smnet", "model.map.memory=8", "model.map.classes=0", *AROUND],
    "voxels": ["map=voxels", "model.map.capacity=400", *AROUND],
    "waypoints": ["map=waypoints", "model.map.capacity=16", "model.map.dropout=0"],
    "gridmm": ["map=gridmm", "model.map.capacity=400", "model.map.cells=4", "model.map.dropout=0"],
    "objects": ["map=objects", "model.map.objects=5", "model.map.points=16", "model.map.new_points=8",
                "model.map.dropout=0"],
}  # fmt: skip


def an_agent(*words):
    torch.manual_seed(0)
    config = OmegaConf.to_container(compose("train", [*SMALL, *words]), resolve=True)
    rng = np.random.default_rng(0)
    columns = {
        "action": rng.integers(0, 3, (40, 1)).astype(np.float32),
        "observation.state": rng.normal(size=(40, 1)).astype(np.float32),
    }
    return create_agent(config, BODY, ["go left", "go to the right door"], columns, np.array([20, 40])).eval()


def an_episode(length, seed):
    rng = np.random.default_rng(seed)
    place = np.cumsum(rng.uniform(-0.3, 0.3, (length, 2)), axis=0)
    turn = rng.uniform(-math.pi, math.pi, length)
    poses = camera_pose(*(torch.tensor(v).float() for v in (place[:, 0], place[:, 1], np.full(length, 1.25), turn)))
    return [
        {
            "observation.images.front": rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
            "observation.depth.front": rng.uniform(0.2, 3, (SIDE, SIDE)).astype(np.float32),
            "observation.instance.front": rng.integers(0, 4, (SIDE, SIDE)),
            "observation.semantic.front": rng.integers(0, 5, (SIDE, SIDE)),
            "observation.state": rng.normal(size=1).astype(np.float32),
            "observation.pose": pose.numpy(),
            "task": ["go left", "go to the right door"][seed % 2],
        }
        for pose in poses
    ]


def as_batch(episodes):
    """Episodes as `embodied.data.episodes` gives them: padded in front by their first frame."""
    longest = max(map(len, episodes))
    padded = [[frames[0]] * (longest - len(frames)) + frames for frames in episodes]
    keys = [key for key in episodes[0][0] if key != "task"]
    batch = {key: torch.from_numpy(np.stack([[f[key] for f in frames] for frames in padded])) for key in keys}
    missing = [[step < longest - len(frames) for step in range(longest)] for frames in episodes]
    rng = np.random.default_rng(1)
    batch["action"] = torch.from_numpy(rng.integers(0, 3, (len(episodes), longest, 1, 1)).astype(np.float32))
    batch["observation_is_pad"] = torch.tensor(missing)
    return batch | {
        "task": [frames[0]["task"] for frames in episodes],
        "action_is_pad": batch["observation_is_pad"].unsqueeze(-1),
    }


def readouts(agent, batch):
    return agent.model(agent.processing(batch)).tokens


@pytest.mark.parametrize("name", MAPS)
@torch.no_grad()
def test_a_rollout_reads_what_training_read(name):
    agent = an_agent(*MAPS[name])
    episodes = [an_episode(length, seed) for seed, length in enumerate((3, 5, 4))]
    batch = as_batch(episodes)
    wanted = readouts(agent, batch)[:, :, 0]
    memory = None if agent.model.map is None else agent.model.map.begin(4)
    for row, frames in enumerate(episodes):
        for step, frame in enumerate(frames):
            one = {k: v[row : row + 1, 5 - len(frames) + step][:, None] for k, v in batch.items() if k != "task"}
            one |= {"task": [frame["task"]], "observation_is_pad": torch.zeros(1, 1, dtype=torch.bool)}
            seen = agent.model(agent.processing(one), memory, [row + 1] if memory is not None else None).tokens
            torch.testing.assert_close(seen[0, 0, 0], wanted[row, 5 - len(frames) + step], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in MAPS if name != "none"])
@torch.no_grad()
def test_a_map_makes_the_past_matter_and_nothing_else_does(name):
    def later(words, first):
        agent = an_agent(*words)
        episode = an_episode(4, seed=0)
        return readouts(agent, as_batch([[first, *episode[1:]]]))[0, -1]

    mine, others = an_episode(4, seed=0)[0], an_episode(4, seed=8)[0] | {"task": "go left"}
    assert torch.equal(later([], mine), later([], others))
    assert (later(MAPS[name], mine) - later(MAPS[name], others)).abs().max() > 1e-6


@pytest.mark.parametrize("name", MAPS)
def test_actions_depend_on_an_episode_alone(name):
    agent = an_agent(*MAPS[name], "head.temperature=1.0")
    episodes = [an_episode(5, seed) for seed in range(4)]

    def actions(slots, passes):
        agent.rows_per_pass = passes
        agent.reset(slots)
        said = {}
        for first in range(0, 4, slots):  # every slot is used again for a later episode
            here = range(first, min(first + slots, 4))
            for n in here:
                agent.start(n - first, seed=n, task="walk")
            for step in range(5):
                seen = [episodes[n][step] for n in here]
                stacked = {k: [f[k] for f in seen] if k == "task" else np.stack([f[k] for f in seen]) for k in seen[0]}
                for n, action in zip(here, agent.act(stacked, [n - first for n in here]), strict=True):
                    said.setdefault(n, []).append(action.tolist())
        return said

    alone = actions(1, 1)
    assert actions(4, 1) == actions(3, 1) == alone
    assert actions(3, 2) == actions(4, 2)


@pytest.mark.parametrize("name", ["smnet", "voxels", "gridmm"])
def test_gradients_reach_the_encoder_through_the_memory(name):
    agent = an_agent(*MAPS[name], "model.order=[task,map,state]", "model.depth=null").train()
    batch = as_batch([an_episode(4, 0)])
    batch["action_is_pad"] = torch.tensor([[[True], [True], [True], [False]]])  # only the last step is learned
    batch["observation.depth.front"][:, 1:] = 0.0  # and only the first one saw anything
    agent.loss(batch)["loss"].backward()
    reached = [p.grad.abs().max() for n, p in agent.named_parameters() if n.startswith("model.encoders") and p.ndim > 1]
    assert min(reached) > 0


def test_depth_is_read_where_asked_for():
    agent, episode = an_agent(), an_episode(1, 0)
    near = [episode[0] | {"observation.depth.front": np.full((SIDE, SIDE), 0.3, np.float32)}]
    assert not torch.allclose(readouts(agent, as_batch([episode])), readouts(agent, as_batch([near])))
    blind = an_agent("model.depth=null")
    assert blind.model.reads == ()
    assert torch.equal(readouts(blind, as_batch([episode])), readouts(blind, as_batch([near])))
    broken = [episode[0] | {"observation.depth.front": np.full((SIDE, SIDE), np.nan, np.float32)}]
    assert readouts(agent, as_batch([broken])).isfinite().all()


def test_who_looks_at_no_pictures_has_no_eyes():
    words = "model.order=[task,map,state]", "model.depth=null"
    assert len(an_agent(*MAPS["occupancy"], *words).model.encoders) == 0
    assert len(an_agent(*MAPS["smnet"], *words).model.encoders) == 1
    agent = an_agent(*MAPS["occupancy"], *words).train()
    agent.loss(as_batch([an_episode(3, 0)]))["loss"].backward()
    assert all(p.grad is not None for p in agent.parameters() if p.requires_grad)


def test_categories_are_read_where_asked_for_and_what_is_none_is_black():
    words = "model.semantic={categories: 5}", "model.order=[task,semantic,state]", "model.depth=null"
    agent, episode = an_agent(*words).train(), an_episode(2, 0)
    assert agent.model.reads == ("observation.semantic.front",)
    batch = as_batch([episode])
    agent.loss(batch)["loss"].backward()
    palette = agent.model.semantic.palette
    assert palette.grad[batch["observation.semantic.front"].unique()].abs().amin(-1).gt(0).all()

    def read(categories):
        return readouts(agent.eval(), batch | {"observation.semantic.front": categories})

    seen = batch["observation.semantic.front"]
    other = seen.clone()
    other[0, 0, :8] = (other[0, 0, :8] + 1) % 5
    assert not torch.allclose(read(seen), read(other))
    assert torch.equal(read(torch.full_like(seen, -1)), read(torch.full_like(seen, 5)))


def test_an_agent_with_a_map_is_saved_and_loaded_whole(tmp_path):
    agent, batch = an_agent(*MAPS["smnet"]), as_batch([an_episode(3, 0)])
    agent.save_pretrained(tmp_path / "agent")
    assert torch.equal(readouts(Agent.from_pretrained(tmp_path / "agent"), batch), readouts(agent, batch))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["map=occupancy", "chunk.whole_episodes=false"], "needs chunk.whole_episodes=true"),
        (["map=occupancy", "model.order=[task,images,depth]"], "model.map is given, but"),
        (["model.order=[task,images]"], "model.depth is given, but"),
        (["map=occupancy", "model.attention=causal"], "model.attention=framewise"),
        (["chunk.history=3"], "chunk.history=1, not"),
        (["map=frontier"], "FrontierFinder is no memory"),
        (["model.depth.reach=0"], "reach is in metres and positive"),
        (["model.semantic={categories: 0}"], "categories is 1 or more"),
        (["map=voxels", "model.encoder.patch=16"], "are no picture"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words, said):
    with pytest.raises(ValueError, match=said):
        agent = an_agent(*words)
        readouts(agent, as_batch([an_episode(2, 0)]))


def test_an_observation_without_what_the_map_reads_is_named():
    agent = an_agent(*MAPS["objects"])
    agent.reset(1)
    agent.start(0, seed=0, task="walk")
    frame = {k: v for k, v in an_episode(1, 0)[0].items() if "instance" not in k}
    with pytest.raises(ValueError, match=r"reads observation\.instance\.front, but what it is given has only"):
        agent.act({k: [v] if k == "task" else v[None] for k, v in frame.items()}, [0])


@pytest.mark.parametrize("name", ["none", "occupancy", "smnet", "voxels", "objects"])
def test_what_it_remembers_can_be_looked_at(name):
    agent = an_agent(*MAPS[name])
    agent.reset(2)
    for slot in (0, 1):
        agent.start(slot, seed=slot, task="walk")
    before, frame = agent.drawings(1), an_episode(1, 0)[0]
    agent.act({k: [v] if k == "task" else v[None] for k, v in frame.items()}, [1])
    drawn, cloud = agent.drawings(1), agent.cloud(1)
    assert set(drawn) == ({"map"} if name in ("occupancy", "smnet", "voxels") else set())
    assert (cloud is not None) == (name == "voxels")
    for key, picture in drawn.items():
        assert picture.dtype == np.uint8 and (picture != before[key]).any()
        assert (agent.drawings(0)[key] == before[key]).all()
