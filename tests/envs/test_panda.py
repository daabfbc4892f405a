"""A panda-gym episode is what its seed and task say, whatever ran before; goals can be seen; nothing is silent."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from panda_episodes import fingerprint, make

from embodied.building import build
from embodied.cli.app import check, compose
from embodied.interaction import Environment
from embodied.spec import IMAGES
from envs.pybullet.panda import CAMERAS, TASKS, PandaGym

pytestmark = pytest.mark.simulator("pybullet", "panda_gym")
OFFICIAL = {"reach": "Reach", "push": "Push", "pick-place": "PickAndPlace", "slide": "Slide", "stack": "Stack"}


@pytest.fixture(scope="module")
def used():
    """An environment of all tasks that most tests here use, so that it has always run something else before."""
    env = make(cameras=["front"])
    yield env
    env.close()


@pytest.fixture(scope="module")
def in_state():
    env = make(observe="state", cameras=[])
    yield env
    env.close()


def test_an_episode_is_the_same_in_a_new_process_and_after_others():
    episodes = [(task, seed) for seed in (3, 4) for task in TASKS]
    script = Path(__file__).with_name("panda_episodes.py")
    words = [str(word) for episode in reversed(episodes) for word in episode]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nor does PyBullet say anything
    env = make()
    assert {f"{task} {seed}": fingerprint(env, task, seed) for task, seed in episodes} == json.loads(done.stdout)
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_is_that_of_a_new_official_environment(in_state, task):
    from envs.pybullet.library import load, quiet

    fingerprint(in_state, task, 8)  # leaves its traces
    load("panda_gym")
    with quiet():
        official = gymnasium.make(f"Panda{OFFICIAL[task]}-v3", renderer="Tiny").unwrapped
    expected, _ = official.reset(seed=7)
    observation, _ = in_state.reset(seed=7, options={"task": task})
    random = np.random.default_rng(0)
    for step in range(15):
        truth = observation["observation.environment_state"]
        count = len(expected["observation"]) - (6 if TASKS[task].shut else 7)
        np.testing.assert_array_equal(observation["observation.state"][:6], expected["observation"][:6])
        np.testing.assert_array_equal(truth[:count], expected["observation"][len(expected["observation"]) - count :])
        np.testing.assert_array_equal(truth[24 : 24 + len(expected["desired_goal"])], expected["desired_goal"])
        now = in_state.situation()
        aim = now.objects[0] if len(now.objects) else now.goals[0]
        action = np.append(np.clip(100 * (aim - now.hand), -5, 5), random.uniform(-1, 1)).astype(np.float32)
        theirs = action / np.array([5, 5, 5, 1], np.float32)
        expected, reward, done, _, _ = official.step(theirs[:3] if TASKS[task].shut else theirs)
        observation, mine, _, _, info = in_state.step(action)
        assert (mine, info["success"]) == (reward, done), step
    official.close()


@pytest.mark.parametrize("task", TASKS)
def test_goals_and_objects_have_colours_of_their_own(task):
    """Where a thing's colour is in the picture is where the camera sees the thing."""
    camera = "overview" if task == "slide" else "front"
    env = make([task], cameras=[camera], height=96, width=96)
    observation, _ = env.reset(seed=4)
    picture = observation[IMAGES + camera].astype(float)
    hues = picture / np.maximum(picture.max(axis=2, keepdims=True), 1)
    things = {**TASKS[task].goals, **TASKS[task].objects}
    places = {}
    for name, colour in things.items():
        close = np.abs(hues - np.array(colour) / max(colour)).max(axis=2) < 0.08
        assert 4 < close.sum() < 250, name
        places[name] = np.argwhere(close).mean(axis=0)
    now = env.situation()
    where = dict(zip(things, [*now.goals, *now.objects], strict=True))
    for name, (row, column) in places.items():
        np.testing.assert_allclose([column, row], seen_at(CAMERAS[camera], where[name]), atol=4)
    env.close()


def seen_at(view, point):
    """Column and row at which a pinhole camera of 96 x 96 pixels sees a point."""
    eye, at = np.array(view.eye), np.array(view.at)
    ahead = (at - eye) / np.linalg.norm(at - eye)
    right = np.cross(ahead, view.up)
    right /= np.linalg.norm(right)
    ray = np.asarray(point) - eye
    scale = 48 / np.tan(np.radians(view.fov) / 2) / (ray @ ahead)
    return 48 + scale * (ray @ right), 48 - scale * (ray @ np.cross(right, ahead))


def test_pixels_come_without_the_simulators_truth(used):
    env = make(["push"], observe="pixels", cameras=["side", "wrist"])
    observation, _ = env.reset(seed=0)
    assert set(observation) == {IMAGES + "side", IMAGES + "wrist", "observation.state", "task"}
    assert observation["observation.state"].shape == (7,) and observation[IMAGES + "side"].shape == (32, 40, 3)
    assert env.observation_space.contains(observation)
    assert env.embodiment.camera_names == ("side", "wrist") and isinstance(env, Environment)
    assert "goal=red" in env.embodiment.cameras[0].renderer
    env.close()


def test_the_action_means_what_its_specification_says(in_state):
    spec = in_state.embodiment.action
    in_state.reset(seed=0, options={"task": "pick-place"})
    before = in_state.situation().hand
    for _ in range(3):
        in_state.step(np.array([0, 2, 0, 0]))
    moved = in_state.situation().hand - before
    assert spec.units[:3] == ("cm", "cm", "cm") and 0.02 < moved[1] < 0.065
    assert np.abs(moved[[0, 2]]).max() < 0.02
    widths = []
    for sign in (-spec.gripper_closed, spec.gripper_closed):
        for _ in range(4):
            observation, *_ = in_state.step(np.array([0, 0, 0, sign]))
        widths.append(observation["observation.state"][6])
    assert widths[0] > 0.07 and abs(widths[1]) < 0.005
    assert in_state.embodiment.rate == pytest.approx(1 / in_state._sim.dt)


def test_joints_can_be_controlled_and_are_observed():
    env = make(["reach"], observe="state", control="joints", cameras=[])
    first, _ = env.reset(seed=0)
    for _ in range(5):
        observation, *_ = env.step(np.array([0.05, 0, 0, 0, 0, 0, 0, 0]))
    turned = observation["observation.state"][7:] - first["observation.state"][7:]
    assert turned[0] > 0.1 and np.abs(turned[1:]).max() < 0.02
    env.close()


def test_actions_out_of_bounds_are_clipped_and_counted_or_an_error(in_state):
    in_state.reset(seed=0, options={"task": "push"})
    counts = [in_state.step(np.array(a))[4]["clipped"] for a in ([5.5, 0, 0, 0], [5, -5, 5, 1], [0, 0, 0, -3])]
    assert counts == [1, 1, 2]
    env = make(["push"], observe="state", out_of_bounds="error", cameras=[])
    env.reset(seed=0)
    with pytest.raises(ValueError, match="out of bounds"):
        env.step(np.array([0, 0, 5.01, 0]))
    env.close()


@pytest.mark.parametrize(
    "action, says", [([0, np.nan, 0, 0], "not finite"), ([0, 0, 0], r"4 numbers .* got shape \(3,\)")]
)
def test_an_action_that_is_none_is_refused(in_state, action, says):
    in_state.reset(seed=0)
    with pytest.raises(ValueError, match=says):
        in_state.step(np.array(action))


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"tasks": ["psuh"]}, "no task 'psuh'; did you mean 'push'"),
        ({"tasks": []}, "tasks is empty; there is reach, push"),
        ({"cameras": ["frnt"]}, "did you mean 'front'"),
        ({"cameras": []}, "needs a camera"),
        ({"control": "torque"}, "control is one of cartesian, joints"),
        ({"max_steps": 0}, "max_steps is 1 or more"),
        ({"perturb": {"camra": 1}}, "did you mean 'camera'"),
        ({"perturb": {"camera": 3}}, "number from 0 to 2, got 3"),
        ({"height": 4}, "height and width are 8 to 4096"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments, says):
    with pytest.raises(ValueError, match=says):
        PandaGym(**arguments)


def test_a_wrong_seed_option_or_step_is_one_clear_line(in_state):
    for wrong, says in (
        ({"seed": -1}, "seed is 0 or more"),
        ({"options": {"task": "flip"}}, "not made for task 'flip'"),
        ({"options": {"tsk": "push"}}, "unknown reset option 'tsk'"),
    ):
        with pytest.raises(ValueError, match=says):
            in_state.reset(**wrong)
    env = make(["reach"], observe="state", cameras=[], max_steps=2)
    with pytest.raises(ValueError, match="call reset before step"):
        env.step(np.zeros(4))
    env.reset(seed=0)
    assert [env.step(np.zeros(4))[3] for _ in range(2)] == [False, True]
    with pytest.raises(ValueError, match="ended after 2 steps"):
        env.step(np.zeros(4))
    env.close()


def test_every_task_is_an_option_and_has_other_words():
    assert list(PandaGym.rephrased) == list(PandaGym.instructions) == list(TASKS)
    for task in TASKS:
        env = compose("collect", ["out=x", f"env=panda/{task}"]).env
        assert list(env.make.tasks) == [task] and env.make.max_steps == (100 if task == "stack" else 50)
        assert PandaGym.instructions[task] not in PandaGym.rephrased[task]
    assert "did you mean 'env.make.height'" in (
        check("collect", ["out=x", "env=panda/push", "env.make.heigth=9"]) or ""
    )


@pytest.mark.parametrize("task", TASKS)
def test_experts_solve_their_tasks(in_state, task):
    expert = build({"_target_": "envs.experts.panda.PandaExpert"}, env=in_state)
    wins = 0
    for seed in range(5):
        in_state.reset(seed=seed, options={"task": task})
        expert.reset(seed)
        won = False
        while not won and in_state._steps < 50 + 50 * (task == "stack"):
            *_, info = in_state.step(expert.act())
            won = info["success"]
        wins += won
        assert info["clipped"] == 0
    assert wins >= 4


def test_the_expert_refuses_another_environment():
    with pytest.raises(ValueError, match="demonstrates in PandaGym, not in object"):
        build({"_target_": "envs.experts.panda.PandaExpert"}, env=object())


def test_gymnasium_knows_it():
    from gymnasium.utils.env_checker import check_env

    env = gymnasium.make("embodied/PandaGym-v0", tasks=["reach", "push"], observe="both", height=32, width=32)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.unwrapped.render().shape == (32, 32, 3)
    env.close()


def test_resets_and_pictures_keep_memory_bounded(used):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    sizes = []
    for _ in range(3):
        for seed in range(12):
            used.reset(seed=seed, options={"task": used.tasks[seed % 5]})
        sizes.append(resident())
    assert sizes[-1] - sizes[0] < 40
