"""Scripted experts solve their tasks, also when noise pushes them about, and keep to their bodies' bounds."""

import numpy as np
import pytest
from body_episodes import make

from embodied.building import build
from embodied.interaction import Expert
from envs.experts.maze import distances

pytestmark = pytest.mark.simulator("mujoco", "gymnasium_robotics")
EXPERTS = {
    "fetch": "envs.experts.fetch.FetchExpert",
    "maze": "envs.experts.maze.MazeExpert",
    "mobile-arm": "envs.experts.mobile_arm.MobileArmExpert",
}


def expert_of(name, env):
    return build({"_target_": EXPERTS[name.split("/")[0]]}, (Expert,), env=env)


def lengths(name, seeds, noise=0.0):
    """How long the expert took on each seed; None where it failed."""
    env = make(name, observe="state", out_of_bounds="error")
    expert = expert_of(name, env)
    spec = env.embodiment.action
    reach = (np.array(spec.high) - np.array(spec.low)) / 2
    taken = []
    for seed in seeds:
        env.reset(seed=seed)
        expert.reset(seed)
        random, steps = np.random.default_rng(seed), 0
        for _ in range(env.max_steps):
            action = expert.act()
            assert action.dtype == np.float32
            disturbance = noise * reach * random.standard_normal(spec.dim)
            if spec.gripper is not None:
                disturbance[spec.gripper] = 0
            if noise:
                action = np.clip(action + disturbance, spec.low, spec.high).astype(np.float32)
            info = env.step(action)[4]
            steps += 1
            if info["success"]:
                break
        taken.append(steps if info["success"] else None)
    return taken


@pytest.mark.parametrize(
    "name, longest",
    [
        ("fetch/reach", 6),
        ("fetch/push", 40),
        ("fetch/pick-place", 40),
        ("maze/umaze", 250),
        ("maze/open", 250),
        ("maze/medium", 500),
        ("maze/large", 700),
        ("mobile-arm/pick-place", 160),
    ],
)
def test_experts_solve_their_tasks(name, longest):
    taken = lengths(name, range(5))
    assert None not in taken and max(taken) <= longest, taken


@pytest.mark.parametrize("name", ["fetch/reach", "fetch/pick-place", "maze/umaze", "maze/large"])
def test_experts_come_back_from_where_noise_pushed_them(name):
    taken = lengths(name, range(6), noise=0.4)
    assert sum(length is not None for length in taken) >= 5, taken


def test_the_mobile_arms_expert_comes_back_too():
    taken = lengths("mobile-arm/pick-place", range(3), noise=0.3)
    assert sum(length is not None for length in taken) >= 2, taken


@pytest.mark.parametrize("name", list(EXPERTS))
def test_an_expert_refuses_another_body(name):
    other = "maze/open" if name == "fetch" else "fetch/reach"
    with pytest.raises(ValueError, match="demonstrates in"):
        expert_of(f"{name}/", make(other, observe="state"))


def test_distances_are_those_of_a_shortest_path_algorithm():
    from scipy.sparse.csgraph import shortest_path

    walls = np.random.default_rng(0).random((9, 12)) < 0.3
    walls[4, 5] = False
    free = [tuple(cell) for cell in np.argwhere(~walls)]
    near = [[float(abs(a - c) + abs(b - d) == 1) for c, d in free] for a, b in free]
    expected = shortest_path(np.array(near), unweighted=True)[free.index((4, 5))]
    assert distances(walls, (4, 5)) == {cell: d for cell, d in zip(free, expected, strict=True) if np.isfinite(d)}
