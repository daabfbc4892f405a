"""Meta-World in worker processes: what a collection and an evaluation leave does not depend on how many there are."""

import pytest

import conf  # noqa: F401 (registers env=metaworld/...)
from embodied.cli.configs import compose
from embodied.collection import collect
from embodied.evaluation.policies import ExpertPolicy
from embodied.evaluation.rollout import rollout

pytestmark = pytest.mark.simulator("metaworld", "mujoco")


def env(*words):
    from omegaconf import OmegaConf

    size = ["env.make.height=48", "env.make.width=48", "env.make.tasks=[reach,drawer-close]"]
    composed = compose("eval", ["env=metaworld", "policy=expert", "out=unused", *size, *words])
    return OmegaConf.to_container(composed.env, resolve=True)


def test_one_worker_or_two_make_the_same_dataset(tmp_path):
    for count in (1, 2):
        collect(env(), tmp_path / str(count), 2, num_workers=count, noise=0.1)
    files = {
        count: {f.relative_to(tmp_path / count): f.read_bytes() for f in (tmp_path / count).rglob("*") if f.is_file()}
        for count in ("1", "2")
    }
    assert files["1"] == files["2"]


def test_episodes_are_the_same_in_one_environment_or_three():
    episodes = [(task, seed) for seed in range(2) for task in ("reach", "drawer-close")]
    outcomes = []
    for num_envs in (1, 3):
        records = rollout(
            ExpertPolicy(), env("env.make.stop_on_success=false", "env.make.max_steps=60"), episodes, num_envs=num_envs
        )
        outcomes.append([(r.task, r.seed, r.success, r.sum_reward, r.length) for r in records])
    assert outcomes[0] == outcomes[1]
