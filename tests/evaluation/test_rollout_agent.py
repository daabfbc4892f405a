"""A real agent acts the same whoever shares its batch; how it is found by its run, checkpoint or own folder."""

import numpy as np
import pytest
import torch
from fakes.point import PointWorld
from omegaconf import OmegaConf

import conf  # noqa: F401 (registers configs)
from embodied.agent import create_agent
from embodied.cli.configs import compose
from embodied.evaluation.policies import locate_policy, result_folder
from embodied.evaluation.rollout import rollout

SMALL = [
    "data.root=unused",
    "out=unused",
    "encoder=convolution",
    "model.encoder.widths=[8,8]",
    "model.backbone.config.hidden_size=32",
    "model.backbone.config.num_hidden_layers=1",
    "model.backbone.config.intermediate_size=32",
    "chunk.history=2",
    "chunk.horizon=3",
    "execution.steps=2",
]


@pytest.fixture(scope="module", params=["diffusion", "token"])
def checkpoint(request, tmp_path_factory):
    """An untrained agent with a head that draws noise, saved as a run's last checkpoint."""
    head = {"diffusion": ["head.sample_steps=4"], "token": ["head.temperature=1.0"]}[request.param]
    config = OmegaConf.to_container(compose("train", [*SMALL, f"head={request.param}", *head]), resolve=False)
    random = np.random.default_rng(0)
    columns = {
        "action": random.uniform(-0.1, 0.1, (60, 2)).astype(np.float32),
        "observation.state": random.uniform(0, 1, (60, 2)).astype(np.float32),
    }
    torch.manual_seed(0)
    agent = create_agent(config, PointWorld().embodiment, ["go to the goal on the left"], columns, np.array([30, 60]))
    folder = tmp_path_factory.mktemp("run") / "checkpoints" / "000100"
    agent.save_pretrained(folder)
    (folder.parent / "last").symlink_to("000100")
    return folder


def test_an_agents_episodes_are_bit_identical_for_any_number_of_environments(checkpoint, point_env):
    torch.set_num_threads(1)
    episodes = [(task, seed) for task in ("left", "right") for seed in range(4)]
    policy = locate_policy(str(checkpoint)).load(device="cpu")
    outcomes = []
    for num_envs in (1, 2, 8):
        records = rollout(policy, point_env(max_steps=12), episodes, num_envs=num_envs)
        outcomes.append([(r.task, r.seed, r.success, r.sum_reward, r.length) for r in records])
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len({reward for _, _, _, reward, _ in outcomes[0]}) == len(episodes)


def test_an_agent_is_found_by_its_run_its_checkpoint_or_its_folder(checkpoint):
    run = checkpoint.parent.parent
    for spec in (run, run / "checkpoints", run / "checkpoints/last", checkpoint):
        source = locate_policy(str(spec))
        assert source.kind == "agent" and source.folder == checkpoint
        assert source.identity() == locate_policy(str(run)).identity()


def test_other_weights_are_another_policy(checkpoint):
    before = locate_policy(str(checkpoint)).identity()
    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    try:
        weights.write_bytes(content)
        assert locate_policy(str(checkpoint)).identity() != before
    finally:
        content[-1] ^= 1
        weights.write_bytes(content)


def test_results_go_into_the_run():
    name = "metaworld_reach_10000"
    for spec in ("runs/x", "runs/x/checkpoints", "runs/x/checkpoints/last"):
        assert str(result_folder(spec, "metaworld/reach", 10000)) == f"runs/x/eval/{name}"
    assert str(result_folder("runs/x/checkpoints/000500", "metaworld/reach", 10000)) == f"runs/x/eval/{name}_000500"
    assert str(result_folder("expert", "metaworld/reach", 10000)) == f"runs/expert/eval/{name}"
