"""What holds for every simulated body: seeds decide, official episodes are reproduced, mistakes are named."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from body_episodes import FAMILIES, NAMES, actions, fingerprint, make

from embodied.building import build
from embodied.cli.app import compose
from embodied.interaction import Environment

warnings.simplefilter("ignore")
pytestmark = pytest.mark.simulator("mujoco", "gymnasium_robotics", "gym_pusht", "gym_aloha")
OFFICIAL = {"aloha/transfer-cube": "gym_aloha/AlohaTransferCube-v0", "aloha/insertion": "gym_aloha/AlohaInsertion-v0"}
OFFICIAL |= {"pusht/push": "gym_pusht/PushT-v0"}
PROTOCOLS = {
    "kitchen/complete": ["microwave", "kettle", "light switch", "slide cabinet"],
    "kitchen/mixed": ["microwave", "kettle", "bottom burner", "light switch"],
}
"""D4RL's, from its kitchen environments' definitions."""


@pytest.fixture(scope="module")
def used():
    """`used(name)`: an environment that stays, so that it has always run something else before."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = make(name, observe="both", height=24, width=32)
        return made[name]

    yield get
    for env in made.values():
        env.close()


@pytest.fixture(scope="module")
def in_a_new_process():
    script = Path(__file__).with_name("body_episodes.py")
    episodes = [f"{name}/7" for name in reversed(NAMES)]
    done = subprocess.run([sys.executable, script, *episodes], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_is_the_same_in_a_new_process_whatever_ran_before(used, in_a_new_process, name):
    other = fingerprint(used(name), 8)  # leaves its traces in the model
    mine = fingerprint(used(name), 7)
    assert mine == in_a_new_process[f"{name}/7"]
    assert mine != other


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("mobile-arm")])
def test_an_episode_is_that_of_a_new_official_environment_of_the_same_seed(used, name):
    env = used(name)
    fingerprint(env, 8)
    env.reset(seed=5)
    official = official_environment(name)
    official.reset(seed=5)
    for action in actions(env, 5, 6):
        expected, reward, *_ = official.step(action if name.startswith(("fetch", "maze")) else action.astype(float))
        _, mine, *_ = env.step(action)
        assert mine == reward
        if name.startswith("aloha"):
            np.testing.assert_array_equal(env.feel(), expected["agent_pos"])
            np.testing.assert_array_equal(env.truth(), official._env.task.get_env_state(official._env.physics))
        elif name.startswith("pusht"):
            np.testing.assert_array_equal(np.concatenate([env.feel(), env.truth()[:2]]), expected[:4])
        elif name.startswith("adroit"):
            np.testing.assert_array_equal(env.truth(), expected)
        else:
            np.testing.assert_array_equal(env.seen["observation"], expected["observation"])


def official_environment(name):
    import gymnasium

    options = {}
    if name.startswith("pusht"):
        import gym_pusht  # noqa: F401
    elif name.startswith("aloha"):
        import gym_aloha  # noqa: F401

        options["obs_type"] = "pixels_agent_pos"
    if name in PROTOCOLS:
        options["tasks_to_complete"] = PROTOCOLS[name]
    family, task = name.split("/")
    official = OFFICIAL.get(name) or FAMILIES[family].official[task]
    made = gymnasium.make(official, disable_env_checker=True, **options).unwrapped
    if name.startswith("aloha"):  # without its three pictures of 640 x 480 a step, which no physics depends on
        inside = made._env.task
        inside.get_observation = lambda physics: {"agent_pos": inside.get_qpos(physics)}
        made._format_raw_obs = lambda raw: raw
    return made


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_environment_whose_observations_are_what_it_says(used, name):
    from gymnasium.utils.env_checker import check_env

    env = used(name)
    assert isinstance(env, Environment)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["observation.state"].shape == (env.embodiment.state.dim,)
    assert observation["observation.environment_state"].shape == (len(env.truth_names),)
    assert env.embodiment.from_dict(json.loads(json.dumps(env.embodiment.to_dict()))) == env.embodiment
    pictures = [observation[f"observation.images.{camera.name}"] for camera in env.embodiment.cameras]
    assert pictures and all(picture.std() > 3 for picture in pictures), "a picture shows nothing"
    if name.endswith(("reach", "umaze", "pick-place")):  # the rest differs in numbers alone, and it is slow
        check_env(env, skip_render_check=True)


def test_pixels_come_without_the_simulators_truth():
    env = make("fetch/push", height=24, width=32)
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"observation.images.front", "observation.state", "task"}
    env.close()


def test_state_needs_no_pictures():
    env = make("maze/umaze", observe="state")
    assert set(env.reset(seed=0)[0]) == {"observation.state", "observation.environment_state", "task"}
    assert env.embodiment.cameras == ()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_option_of_the_commands(name):
    node = compose("eval", ["policy=random", f"env={'pusht' if name == 'pusht/push' else name}"]).env
    assert node.name == ("pusht" if name == "pusht/push" else name)
    env = build(node.make)
    assert env.tasks == (name.split("/")[1],)
    if node.expert is not None:
        expert = build(node.expert, env=env)
        env.reset(seed=0)
        expert.reset(0)
        assert env.action_space.contains(expert.act())
    env.close()


@pytest.mark.parametrize("name", ["fetch/push", "pusht/push", "mobile-arm/pick-place"])
def test_actions_out_of_bounds_are_clipped_and_counted(used, name):
    env = used(name)
    high = np.array(env.embodiment.action.high)
    env.reset(seed=0)
    counts = [env.step(action)[4]["clipped"] for action in (high * 2, high, high * 3)]
    assert counts == [1, 1, 2]
    clipped = env.truth()
    env.reset(seed=0)
    for _ in range(3):
        env.step(high)
    np.testing.assert_array_equal(env.truth(), clipped)


def test_or_they_are_an_error():
    env = make("maze/umaze", observe="state", out_of_bounds="error")
    env.reset(seed=0)
    env.step(np.ones(2))
    with pytest.raises(ValueError, match=r"force_y=1.01 at step 1 of task umaze leaves \[-1, 1\]"):
        env.step(np.array([0, 1.01]))


@pytest.mark.parametrize("action, says", [([np.nan, 0], "not finite"), ([0, 0, 0], r"2 numbers .* shape \(3,\)")])
def test_an_action_that_is_none_is_refused(used, action, says):
    used("maze/umaze").reset(seed=0)
    with pytest.raises(ValueError, match=says):
        used("maze/umaze").step(np.array(action))


def test_an_episode_ends_at_its_limit_and_not_before(used):
    env = make("maze/umaze", observe="state", max_steps=3)
    with pytest.raises(ValueError, match="call reset before step"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(ValueError, match="ended after 3 steps"):
        env.step(np.zeros(2))


@pytest.mark.parametrize(
    "family, wrong, says",
    [
        ("fetch", {"tasks": ["reech"]}, "Fetch has no task 'reech'; did you mean 'reach'"),
        ("fetch", {"tasks": []}, "tasks is empty; there is reach, push"),
        ("maze", {"cameras": ["abov"]}, "no camera 'abov'; did you mean 'above'"),
        ("maze", {"cameras": []}, "needs a camera"),
        ("kitchen", {"observe": "pixel"}, "observe is one of pixels, state, both, got 'pixel'"),
        ("mobile-arm", {"out_of_bounds": "ignore"}, "out_of_bounds is one of"),
        ("mobile-arm", {"max_steps": 0}, "max_steps is 1 or more"),
        ("pusht", {"cameras": ["side"]}, "no camera 'side'"),
        ("pusht", {"width": 0}, "96 x 0 pixels"),
        ("adroit", {"tasks": None}, "have bodies that differ; name one task"),
        ("aloha", {"tasks": None}, "have bodies that differ; name one task"),
        ("fetch", {"camera_positions": {"front": [1, 2]}}, "x, y, z in metres"),
    ],
)
def test_a_mistake_is_named(family, wrong, says):
    with pytest.raises(ValueError, match=says):
        FAMILIES[family](**wrong)


def test_a_reset_to_what_it_was_not_made_for_is_refused(used):
    env = used("fetch/reach")
    with pytest.raises(ValueError, match="not made for task 'push'"):
        env.reset(seed=0, options={"task": "push"})
    with pytest.raises(ValueError, match="unknown reset option 'goal'"):
        env.reset(seed=0, options={"goal": 3})
    with pytest.raises(ValueError, match="seed is 0 or more"):
        env.reset(seed=-1)


def test_without_a_seed_episodes_differ_and_follow_the_last_seed(used):
    env = used("fetch/push")
    runs = []
    for _ in range(2):
        env.reset(seed=1)
        runs.append([env.reset()[0]["observation.environment_state"].tobytes() for _ in range(3)])
    assert runs[0] == runs[1] and len(set(runs[0])) == 3


def test_several_tasks_of_one_body_take_turns():
    from envs.mujoco.fetch import Fetch

    env = Fetch(["push", "reach"], observe="both", height=24, width=32)
    alone = {name: make(f"fetch/{name}", observe="both", height=24, width=32) for name in env.tasks}
    for _ in range(2):
        for name, single in alone.items():
            mine, _ = env.reset(seed=3, options={"task": name})
            wanted, _ = single.reset(seed=3)
            for key, value in wanted.items():
                np.testing.assert_array_equal(mine[key], value)
    for made in (env, *alone.values()):
        made.close()
