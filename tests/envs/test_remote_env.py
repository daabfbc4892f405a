"""A served environment cannot be told from one that is here, and every end of either side is noticed in one line."""

import ast
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from embodied.building import build
from embodied.cli.app import compose
from embodied.interaction import Environment
from envs.remote.body import RemoteBody
from envs.remote.client import Link, RemoteError
from envs.remote.env import RemoteEnv

pytestmark = pytest.mark.simulator("msgpack")

sys.path.insert(0, str(Path(__file__).parent))
WORLDS = str(Path(__file__).parent / "remote_worlds.py")
SERVER = Path(__file__).parents[2] / "envs/remote/server.py"


def same(a, b, path="it"):
    """Equal in value and in type, all the way down."""
    assert type(a) is type(b) or isinstance(a, OrderedDict), (path, type(a), type(b))  # which arrives as a dict
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}.{place}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape, path
        np.testing.assert_array_equal(a, b, err_msg=path)
        assert b.flags.writeable, path
    else:
        assert a == b or a != a, path


def gone(pid, seconds=8.0):
    """Whether a process ends within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def faulty():
    made = []

    def make(**options):
        made.append(RemoteEnv(f"{WORLDS}:Faulty", **options))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_every_kind_of_space_observation_reward_and_info_arrives_as_it_is():
    from remote_worlds import Everything

    here, there = Everything(scale=2.5), RemoteEnv(f"{WORLDS}:Everything", {"scale": 2.5})
    assert there.observation_space == here.observation_space
    assert there.action_space == here.action_space
    assert there.metadata == here.metadata and there.render_mode == "rgb_array"
    here.action_space.seed(0)
    same(here.reset(seed=4, options={"a": [1]}), there.reset(seed=4, options={"a": [1]}))
    for _ in range(3):
        action = here.action_space.sample()
        mine, theirs = here.step(action), there.step(action)
        same(mine, theirs)
        assert there.observation_space.contains(theirs[0])
    same(here.render(), there.render())
    there.close()


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Blackjack-v1", "FrozenLake-v1"])
def test_gymnasiums_own_environments_go_the_same_way(name):
    here, there = gymnasium.make(name), RemoteEnv(name)
    assert there.observation_space == here.observation_space and there.action_space == here.action_space
    here.action_space.seed(1)
    same(here.reset(seed=7), there.reset(seed=7))
    for step in range(40):
        action = here.action_space.sample()
        mine, theirs = here.step(action), there.step(action)
        same(mine, theirs)
        if mine[2] or mine[3]:
            same(here.reset(seed=step), there.reset(seed=step))
    there.close()


def test_an_error_there_is_one_line_here_and_the_episode_goes_on(faulty):
    env = faulty()
    env.reset()
    with pytest.raises(RemoteError, match=r"KeyError: 'drawer' \(remote_worlds.py, line \d+\)"):
        env.step(1)
    assert env.step(0)[1] == 0.0


def test_what_cannot_cross_is_left_out_of_info_with_a_word_and_refused_as_observation(faulty):
    env = faulty()
    env.reset()
    with pytest.warns(UserWarning, match="info.inner.lock cannot cross"):
        assert env.step(5)[4]["inner"] == {"fine": 1}
    with pytest.raises(RemoteError, match="gave a Faulty, which cannot cross"):
        env.step(6)
    with pytest.raises(RemoteError, match="was given a object, which cannot cross"):
        env.step(object())
    env.step(0)


def test_a_message_over_the_limit_is_refused_on_either_side_and_the_episode_goes_on(faulty):
    env = faulty(max_message=1_000_000)
    env.reset()
    with pytest.raises(RemoteError, match=r"2400.* bytes is larger than the limit of 1000000"):
        env.step(4)
    with pytest.raises(RemoteError, match="larger than the limit"):
        env.step(np.zeros(200_000))
    env.step(0)


def test_a_dead_server_is_one_line_and_the_next_reset_starts_another(faulty):
    env = faulty()
    first = env.reset()[1]["pid"]
    with pytest.raises(RemoteError, match="ended; the server was ended by SIGKILL"):
        env.step(2)
    with pytest.raises(RemoteError, match="closed"):
        env.step(0)
    assert env.reset()[1]["pid"] != first
    env.step(0)


def test_a_silent_server_is_given_up_and_killed(faulty):
    env = faulty(timeout=0.5)
    pid = env.reset()[1]["pid"]
    begun = time.monotonic()
    with pytest.raises(RemoteError, match="step: no message came in time"):
        env.step(3)
    assert time.monotonic() - begun < 5
    assert gone(pid)


def test_closing_lets_the_environment_close_itself(faulty, tmp_path):
    env = faulty(arguments={"marker": str(tmp_path / "marker")})
    pid = env.reset()[1]["pid"]
    env.close()
    assert (tmp_path / "marker").read_text() == "closed" and gone(pid)


def test_a_killed_client_leaves_no_server_even_in_the_middle_of_a_step():
    code = (
        "import sys; from envs.remote.env import RemoteEnv; e = RemoteEnv(sys.argv[1])\n"
        "print(e.reset()[1]['pid'], flush=True); e.step(3)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, f"{WORLDS}:Faulty"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=SERVER.parents[2],
    )
    pid = int(child.stdout.readline())
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert gone(pid)


@pytest.mark.parametrize(
    "options, says",
    [
        ({}, "one of both"),
        ({"env": "CartPole-v1", "address": "localhost:1"}, "one of both"),
        ({"env": "CartPole-v1", "timeout": 0}, "above 0"),
        ({"env": "NoSuch-v0"}, "NoSuch"),
        ({"env": "no_such_module:Thing"}, "no_such_module"),
        ({"env": "/nowhere/file.py:Thing"}, "there is no file /nowhere/file.py"),
        ({"env": f"{WORLDS}:Nothing"}, "has no Nothing"),
        ({"env": f"{WORLDS}:Everything", "arguments": {"colour": 1}}, "colour"),
        ({"env": f"{WORLDS}:Faulty", "arguments": {"broken": True}}, "RuntimeError: no licence found"),
        ({"env": f"{WORLDS}:Counter"}, "is no environment"),
        ({"env": "CartPole-v1", "python": "/nowhere/python"}, "/nowhere/python cannot be started"),
        ({"env": "CartPole-v1", "python": "/bin/false"}, "ended; the server exited with status 1"),
        ({"env": "CartPole-v1", "imports": ["no_such_module"]}, "no_such_module"),
        ({"address": "nowhere"}, "host:port"),
    ],
)
def test_what_cannot_be_started_is_one_line(options, says, monkeypatch):
    monkeypatch.setenv("EMBODIED_REMOTE_TOKEN", "0123456789abcdef")
    with pytest.raises(ValueError, match=says) as problem:
        RemoteEnv(**options)
    assert "\n" not in str(problem.value)


def test_an_object_with_methods_can_be_served_and_only_those_it_lists_be_called():
    link = Link.started(f"{WORLDS}:Counter")
    assert link.call("add", 3)["total"] == 3
    answer = link.call("add", 2, twice=True)
    assert answer["total"] == 7 and answer["array"].tolist() == [7, 7, 7]
    for name in ("secret", "__init__", "total", "__class__"):
        with pytest.raises(RemoteError, match="it has no method"):
            link.call(name)
    link.close()


def test_the_server_file_needs_nothing_but_numpy_msgpack_and_python_3_9():
    tree = ast.parse(SERVER.read_text(), feature_version=(3, 9))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    assert {name for name in modules if name not in sys.stdlib_module_names} == {"numpy", "msgpack"}


def test_it_is_an_environment_like_any_other():
    make = ["env.make.env=CartPole-v1", "env.make.arguments={render_mode:rgb_array}", "env.make.success_return=20"]
    config = compose("eval", ["policy=random", "env=remote", *make])
    env = build(config.env.make)
    assert isinstance(env, Environment)
    assert env.max_steps == 500 and env.embodiment.action.kind == "categorical" and env.embodiment.rate == 50
    observation, info = env.reset(seed=0, options={"task": env.tasks[0]})
    assert observation["observation.state"].shape == (4,) and env.observation_space.contains(observation)
    assert info["success"] is False
    ended = False
    while not ended:
        observation, _, terminated, truncated, info = env.step(np.array([observation["observation.state"][2] > 0]))
        ended = terminated or truncated
    assert info["success"] is True
    assert env.render().shape == (400, 600, 3)
    env.close()


def test_keys_say_where_an_observation_has_what():
    keys = {
        "observation.images.front": "picture",
        "observation.state": "joints",
        "observation.environment_state": "more.choices",
    }
    env = RemoteBody(f"{WORLDS}:Armed", keys=keys, max_steps=2, success="solved", instruction="wave", rate=4)
    assert isinstance(env, Environment) and env.embodiment.rate == 4
    assert env.embodiment.action.low == (-1.0, -1.0) and env.embodiment.camera_names == ("front",)
    seen, _ = env.reset(seed=0)
    served = env.unwrapped._link.call("reset", seed=0)[0]
    assert env.observation_space.contains(seen) and seen["task"] == "wave"
    np.testing.assert_array_equal(seen["observation.images.front"], served["picture"])
    np.testing.assert_array_equal(seen["observation.state"], served["joints"].astype(np.float32))
    np.testing.assert_array_equal(seen["observation.environment_state"], served["more"]["choices"])
    assert [env.step(np.array([0.5, 2.0]))[3:][0] for _ in range(2)] == [False, True]
    with pytest.raises(ValueError, match="an action is 2 finite numbers"):
        env.step([0.1, np.nan])
    env.close()


@pytest.mark.parametrize(
    "world, options, says",
    [
        ("Everything", {"keys": {"observation.state": "joints"}, "max_steps": 3}, "takes a Dict as action"),
        ("Armed", {"keys": {"observation.images.front": "rgb"}, "max_steps": 3}, "there is no 'rgb'"),
        ("Armed", {"keys": {"observation.images.front": "joints"}, "max_steps": 3}, "'joints' is no picture"),
        ("Armed", {"keys": {"observation.sound": "joints"}, "max_steps": 3}, "there is no observation"),
        ("Armed", {"max_steps": 3}, "say in keys what is what"),
        ("Faulty", {}, "has no limit of steps"),
    ],
)
def test_settings_that_do_not_fit_what_is_served_are_one_line(world, options, says):
    with pytest.raises(ValueError, match=says):
        RemoteBody(f"{WORLDS}:{world}", **options)


def test_an_environment_that_does_not_say_whether_it_is_solved_is_refused_at_its_first_step():
    env = RemoteBody(f"{WORLDS}:Faulty", max_steps=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="info has no 'success', it has pid"):
        env.step([0])
    env.close()


@pytest.mark.simulator("gym_pusht")
def test_a_body_of_this_project_keeps_its_embodiment_and_its_tasks():
    from envs.pusht import PushT

    options = {"height": 16, "width": 16, "observe": "both"}
    here, there = PushT(**options), RemoteBody("envs.pusht:PushT", options)
    assert there.embodiment == here.embodiment and there.tasks == here.tasks and there.max_steps == here.max_steps
    same(here.reset(seed=3, options={"task": "push"}), there.reset(seed=3, options={"task": "push"}))
    same(here.step(np.array([200, 200])), there.step(np.array([200, 200])))
    there.close()
