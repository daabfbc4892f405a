"""Where an agent acts and the expert says what it should have done (DAgger), that is what the dataset holds."""

import numpy as np
import pytest
import torch
from fakes.point import PointWorld
from omegaconf import OmegaConf
from test_collection import column, contents, frames, seeds

from embodied.agent import create_agent
from embodied.cli.configs import compose
from embodied.collection import collect
from embodied.evaluation.policies import locate_policy
from embodied.interaction import stack

SMALL = [
    "data.root=none", "out=none", "chunk.horizon=2", "execution.steps=1", "processing.shift=null",
    "model.encoder.widths=[8]", "model.backbone.config.hidden_size=16", "model.backbone.config.num_hidden_layers=1",
    "model.backbone.config.num_attention_heads=2", "model.backbone.config.num_key_value_heads=2",
    "model.backbone.config.intermediate_size=32",
]  # fmt: skip


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    columns = {key: rng.uniform(-0.1, 0.1, (20, 2)).astype(np.float32) for key in ("action", "observation.state")}
    config = OmegaConf.to_container(compose("train", SMALL), resolve=True)
    made = create_agent(config, PointWorld().embodiment, ["to the left", "go"], columns, np.array([20])).eval()
    folder = tmp_path_factory.mktemp("agent") / "point"
    made.save_pretrained(folder)
    return made, folder


def expert(table):
    return np.clip(
        0.6 * (column(table, "observation.environment_state") - column(table, "observation.state")), -0.1, 0.1
    )


def test_the_agent_acts_and_the_expert_is_stored(point_env, tmp_path, agent):
    collect(point_env(tasks=["left"]), tmp_path / "d", 2, policy=locate_policy(str(agent[1])))
    table, world = frames(tmp_path / "d"), PointWorld()
    np.testing.assert_allclose(column(table, "action"), expert(table), atol=1e-6)
    for index, (task, seed) in enumerate(seeds(tmp_path / "d")):
        states = column(table.filter(np.array(table["episode_index"].to_pylist()) == index), "observation.state")
        observation, _ = world.reset(seed=seed, options={"task": task})
        agent[0].reset(1)
        agent[0].start(0, seed, task)
        for state in states:
            np.testing.assert_array_equal(observation["observation.state"], state)
            action = np.clip(agent[0].act(stack([observation]), [0])[0], -0.1, 0.1)
            observation, *_ = world.step(action)


def test_the_expert_may_act_now_and_then(point_env, tmp_path, agent):
    environment = point_env(tasks=["left"])
    for mix in (0.5, 1.0):
        collect(environment, tmp_path / str(mix), 2, policy=locate_policy(str(agent[1])), mix=mix, num_workers=1)
    collect(environment, tmp_path / "expert", 2)
    always, sometimes = (frames(tmp_path / name) for name in ("1.0", "0.5"))
    assert (column(always, "action") == column(frames(tmp_path / "expert"), "action")).all()
    moved = np.diff(column(sometimes, "observation.state"), axis=0)
    asked = np.abs(moved - column(sometimes, "action")[:-1]).max(1) < 1e-6
    assert 0.2 < asked.mean() < 0.8
    collect(environment, tmp_path / "again", 2, policy=locate_policy(str(agent[1])), mix=0.5, num_workers=2)
    kept = {k: v for k, v in contents(tmp_path / "again").items() if k.startswith("data")}
    assert kept == {k: v for k, v in contents(tmp_path / "0.5").items() if k.startswith("data")}


def test_what_a_policy_does_itself_is_stored_where_that_is_asked_for(point_env, tmp_path):
    walker = locate_policy({"_target_": "fakes.policies.NoisyWalker", "gain": 0.3, "noise": 0.0})
    environment = point_env(tasks=["left"]) | {"expert": None}
    collect(environment, tmp_path / "own", 3, policy=walker, stored="policy")
    table = frames(tmp_path / "own")
    away = column(table, "observation.environment_state") - column(table, "observation.state")
    np.testing.assert_allclose(column(table, "action"), np.clip(0.3 * away, -0.1, 0.1), atol=1e-6)
    assert len(seeds(tmp_path / "own")) == 3

    lost = locate_policy({"_target_": "fakes.policies.Constant", "action": [0.0, 0.1]})
    with pytest.raises(ValueError, match="0 of 20 seeds of task left succeeded; only_success=false keeps"):
        collect(point_env(tasks=["left"], max_steps=3), tmp_path / "lost", 1, policy=lost, stored="policy")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stored": "policy"}, "it is expert, or policy with a policy= that acts alone"),
        ({"policy": True, "stored": "policy", "mix": 0.5}, "without mix"),
        ({"mix": 0.5}, "mix is the expert's share"),
        ({"policy": True, "mix": 1.5}, "from 0 to 1, got 1.5"),
        ({"policy": True, "renderer": "photo"}, "disagree on cameras.top.renderer"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(point_env, tmp_path, agent, options, said):
    environment = point_env(**{key: options.pop(key) for key in ("renderer",) if key in options})
    options |= {"policy": locate_policy(str(agent[1]))} if options.get("policy") else {}
    with pytest.raises(ValueError, match=said):
        collect(environment, tmp_path / "d", 2, **options)
    assert not list(tmp_path.glob("d/data/**/*.parquet"))
