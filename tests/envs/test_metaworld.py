"""A Meta-World episode is what its seed and task say, whatever ran before; policies see no truth; nothing is silent."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from metaworld_episodes import actions, fingerprint, make

from embodied.building import build
from embodied.interaction import Environment, Expert
from envs.mujoco.metaworld import CAMERAS, MetaWorld

pytestmark = pytest.mark.simulator("mujoco", "metaworld")
TASKS = tuple(MetaWorld.instructions)
STATE_KEYS = {"observation.state", "observation.environment_state", "task"}


@pytest.fixture(scope="module")
def used():
    """An environment of all tasks that most tests here use, so that it has always run something else before."""
    env = make("state", keep=2)
    yield env
    env.close()


@pytest.fixture(scope="module")
def seen():
    env = make("both", ("button-press-topdown", "reach", "drawer-open"), keep=2)
    yield env
    env.close()


def in_a_new_process(observe, episodes):
    script = Path(__file__).with_name("metaworld_episodes.py")
    words = [str(word) for episode in episodes for word in episode]
    done = subprocess.run(
        [sys.executable, script, observe, *words], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fresh_prints():
    return in_a_new_process("state", [(task, 7) for task in reversed(TASKS)])


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_is_the_same_in_a_new_process_and_that_of_a_new_official_environment(used, fresh_prints, task):
    fingerprint(used, task, 8)  # leaves its traces in the model
    assert fingerprint(used, task, 7) == fresh_prints[f"{task} 7"]
    official = official_environment_with_the_positions_of(used, task, 5)
    for step, action in enumerate(actions(5, 12)):
        expected, reward, *_, measures = official.step(action)
        _, mine, _, _, info = used.step(action)
        truth = used.official()
        if step == 0:  # Meta-World's first frame, repeated here, can show objects where they were before the reset
            expected[18:36] = truth[18:36]
        np.testing.assert_array_equal(truth, expected)
        assert mine == reward and info["success"] == bool(measures["success"])


def official_environment_with_the_positions_of(env, task, seed):
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task

    env.reset(seed=seed, options={"task": task})
    kind = ALL_V3_ENVIRONMENTS[f"{task}-v3"]
    official = kind()
    settings = {"rand_vec": env._sim._last_rand_vec, "env_cls": kind, "partially_observable": False}
    official.set_task(Task(f"{task}-v3", pickle.dumps(settings)))
    official.reset()
    return official


def test_pictures_are_the_same_in_a_new_process_and_after_other_tasks_pushed_the_model_out(seen):
    episodes = [(task, seed) for seed in (3, 4) for task in seen.tasks]  # three tasks, two kept
    fresh = in_a_new_process("both", episodes)
    assert {f"{task} {seed}": fingerprint(seen, task, seed) for task, seed in episodes} == fresh
    assert len(set(fresh.values())) == len(fresh)


def test_pictures_are_the_same_when_two_tasks_take_turns(seen):
    first = {task: fingerprint(seen, task, 3) for task in ("reach", "drawer-open")}
    assert {task: fingerprint(seen, task, 3) for task in first} == first


@pytest.mark.parametrize("task", ["window-open", "peg-insert-side", "lever-pull", "drawer-open"])
def test_the_first_observation_shows_everything_where_it_is(used, task):
    import mujoco

    used.reset(seed=9, options={"task": task})
    drawn, true = used._sim.data, copy.copy(used._sim.data)
    mujoco.mj_forward(used._sim.model, true)
    for what in ("xpos", "geom_xpos", "site_xpos", "cam_xpos"):
        np.testing.assert_array_equal(getattr(drawn, what), getattr(true, what))


def test_seeds_move_the_object(used):
    states = [
        used.reset(seed=s, options={"task": "push"})[0]["observation.environment_state"].tobytes() for s in range(10)
    ]
    assert len(set(states)) == 10


def test_without_a_seed_episodes_differ_and_follow_the_last_seed():
    env = make("state", ["reach"])
    runs = []
    for _ in range(2):
        env.reset(seed=1)
        runs.append([env.reset()[0]["observation.environment_state"].tobytes() for _ in range(3)])
    env.close()
    assert runs[0] == runs[1] and len(set(runs[0])) == 3


def test_pixels_come_without_the_simulators_truth(seen):
    env = MetaWorld(["reach"], cameras=["corner", "topview"], height=32, width=40)
    observation, _ = env.reset(seed=0)
    assert set(observation) == {
        "observation.images.corner",
        "observation.images.topview",
        "observation.state",
        "task",
    }
    assert observation["observation.state"].shape == (4,) and observation["observation.state"].dtype == np.float32
    assert observation["observation.images.corner"].shape == (32, 40, 3)
    assert env.observation_space.contains(observation)
    assert observation["task"] == "move the gripper to the goal"
    assert env.embodiment.camera_names == ("corner", "topview")
    env.close()


def test_state_needs_no_pictures_and_has_the_object_and_the_goal(used):
    observation, _ = used.reset(seed=0, options={"task": "reach"})
    assert set(observation) == STATE_KEYS
    assert used.embodiment.cameras == ()
    np.testing.assert_allclose(observation["observation.environment_state"][-3:], used._sim._target_pos, rtol=1e-6)


def test_the_action_means_what_its_specification_says(used):
    spec = used.embodiment.action
    used.reset(seed=0, options={"task": "reach"})
    data = used._sim.data
    before, start = data.mocap_pos[0].copy(), data.time
    used.step(np.array([1, 0, 0, 0]))
    np.testing.assert_allclose(data.mocap_pos[0] - before, [0.01, 0, 0], atol=1e-12)  # spec.units: cm
    assert spec.units[:3] == ("cm", "cm", "cm")
    assert used.embodiment.rate == pytest.approx(1 / (data.time - start))
    openings = []
    for sign in (spec.gripper_closed, -spec.gripper_closed):
        for _ in range(40):
            observation, *_ = used.step(np.array([0, 0, 0, sign]))
        openings.append(observation["observation.state"][3])
    assert openings[0] < 0.5 < 0.9 < openings[1]


def test_actions_out_of_bounds_are_clipped_and_counted(used):
    used.reset(seed=0, options={"task": "reach"})
    counts = [used.step(np.array(a))[4]["clipped"] for a in ([1.5, 0, 0, 0], [1, -1, 1, 1], [0, 0, 0, -3])]
    assert counts == [1, 1, 2]
    clipped = used.official()
    used.reset(seed=0, options={"task": "reach"})
    for action in ([1, 0, 0, 0], [1, -1, 1, 1], [0, 0, 0, -1]):
        used.step(np.array(action))
    np.testing.assert_array_equal(used.official(), clipped)
    assert used.reset(seed=0)[1]["clipped"] == 0


def test_or_they_are_an_error():
    env = make("state", ["reach"], out_of_bounds="error")
    env.reset(seed=0)
    env.step(np.ones(4))
    with pytest.raises(ValueError, match=r"leaves \[-1, 1\]"):
        env.step(np.array([0, 0, 1.01, 0]))
    env.close()


@pytest.mark.parametrize(
    "action, says",
    [
        ([0, np.nan, 0, 0], "not finite"),
        ([0, np.inf, 0, 0], "not finite"),
        ([0, 0, 0], r"4 numbers .* got shape \(3,\)"),
    ],
)
def test_an_action_that_is_none_is_refused(used, action, says):
    used.reset(seed=0)
    with pytest.raises(ValueError, match=says):
        used.step(np.array(action))


def demonstrate(env, task, seed):
    expert = build({"_target_": "envs.experts.metaworld.MetaWorldExpert"}, (Expert,), env=env)
    env.reset(seed=seed, options={"task": task})
    expert.reset(seed)
    for step in range(1, env.max_steps + 1):
        _, _, terminated, truncated, info = env.step(expert.act())
        if terminated or truncated:
            return info, terminated, truncated, step
    raise AssertionError("the episode did not end")


@pytest.mark.parametrize("task", ["button-press-topdown", "door-open", "drawer-open", "pick-place", "peg-insert-side"])
def test_experts_solve_their_tasks(task):
    env = MetaWorld([task], observe="state")
    ends = [demonstrate(env, task, seed) for seed in range(5)]
    env.close()
    assert sum(info["success"] for info, *_ in ends) >= 4
    assert all(terminated == info["success"] for info, terminated, *_ in ends)
    assert not any(info["clipped"] for info, *_ in ends)


def test_an_episode_can_go_on_after_success_and_ends_at_its_limit():
    env = MetaWorld(["reach"], observe="state", stop_on_success=False, max_steps=120)
    info, terminated, truncated, steps = demonstrate(env, "reach", 0)
    assert (info["success"], terminated, truncated, steps) == (True, False, True, 120)
    with pytest.raises(ValueError, match="ended after 120 steps"):
        env.step(np.zeros(4))
    env.close()


def test_switching_tasks_keeps_memory_bounded():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    env = MetaWorld(["reach", "push", "door-open"], height=32, width=32, keep=1)
    sizes = []
    for _ in range(4):
        for task in env.tasks:
            env.reset(seed=0, options={"task": task})
        sizes.append(resident())
    env.close()
    assert sizes[-1] - sizes[0] < 150  # nine more tasks were compiled: 20 MB each, and as much again to draw them


def test_closed_it_can_be_used_again(seen):
    first = fingerprint(seen, "reach", 0)
    seen.close()
    assert fingerprint(seen, "reach", 0) == first


def test_gymnasium_knows_it():
    from gymnasium.utils.env_checker import check_env

    env = gymnasium.make("embodied/MetaWorld-v0", tasks=["reach", "push"], observe="both", height=32, width=32)
    assert isinstance(env.unwrapped, Environment)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_every_task_of_the_library_has_an_instruction_of_its_own():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {f"{task}-v3" for task in TASKS} == set(ALL_V3_ENVIRONMENTS)
    assert len(set(MetaWorld.instructions.values())) == 50


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"tasks": ["button-pres"]}, "no task 'button-pres'; did you mean 'button-press'"),
        ({"tasks": []}, "tasks is empty"),
        ({"cameras": ["corner5"]}, "no camera 'corner5'; did you mean 'corner"),
        ({"cameras": ["wrist"]}, ", ".join(sorted(CAMERAS))),
        ({"cameras": ["corner", "corner"]}, "named twice"),
        ({"cameras": []}, "needs a camera"),
        ({"observe": "pixel"}, "observe is one of pixels, state, both, got 'pixel'"),
        ({"out_of_bounds": "ignore"}, "out_of_bounds is one of"),
        ({"max_steps": 501}, "max_steps is 1 to 500"),
        ({"height": 0}, "0 x 96 pixels"),
        ({"camera_positions": {"corner2": [1, 2]}}, "x, y, z in metres"),
    ],
)
def test_a_mistake_is_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        MetaWorld(**wrong)


def test_a_reset_to_what_it_was_not_made_for_is_refused(seen):
    with pytest.raises(ValueError, match="not made for task 'push'"):
        seen.reset(seed=0, options={"task": "push"})
    with pytest.raises(ValueError, match="unknown reset option 'goal'"):
        seen.reset(seed=0, options={"goal": 3})
    with pytest.raises(ValueError, match="seed is 0 or more"):
        seen.reset(seed=-1)
