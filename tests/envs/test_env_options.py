"""One YAML per simulator gives one option per task, whose keys are checked, without importing the simulator."""

import subprocess
import sys

import pytest

import conf
from embodied.building import build
from embodied.cli.app import check, compose
from envs.mujoco.metaworld import MetaWorld

TASKS = tuple(MetaWorld.instructions)


def env_of(*overrides):
    return compose("collect", ["out=unused", *overrides]).env


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_an_option(task):
    env = env_of(f"env=metaworld/{task}")
    assert env.name == f"metaworld/{task}"
    assert list(env.make.tasks) == [task]


def test_mt10_and_mt50_are_options():
    assert tuple(env_of("env=metaworld/mt10").make.tasks) == conf.MT10
    assert tuple(env_of("env=metaworld/mt50").make.tasks) == TASKS
    assert set(conf.MT10) <= set(TASKS)


@pytest.mark.simulator("metaworld")
def test_mt10_is_that_of_the_library():
    from metaworld.env_dict import MT10_V3

    assert [f"{task}-v3" for task in conf.MT10] == list(MT10_V3)


@pytest.mark.simulator("mujoco", "metaworld")
def test_what_an_option_says_is_what_gets_built():
    env = env_of(
        "env=metaworld/door-open", "env.make.height=64", "env.make.cameras=[corner2,gripperPOV]", "env.make.max_steps=9"
    )
    made = build(env.make)
    expert = build(env.expert, env=made)
    made.reset(seed=0)
    expert.reset(0)
    assert expert.act().shape == (4,)
    assert made.tasks == ("door-open",) and made.max_steps == 9
    assert [(c.name, c.height, c.width) for c in made.embodiment.cameras] == [
        ("corner2", 64, 96),
        ("gripperPOV", 64, 96),
    ]
    made.close()


@pytest.mark.parametrize(
    "overrides, says",
    [
        (["env=metaworld/raech"], "did you mean 'metaworld/reach'"),
        (["env=metworld/mt10"], "did you mean 'metaworld/mt10'"),
        (["env=metaworld/reach", "env.make.heigth=64"], "did you mean 'env.make.height'"),
        (["env=metaworld/mt50", "env.make.out_of_bound=error"], "did you mean 'env.make.out_of_bounds'"),
    ],
)
def test_a_typo_gets_the_nearest_name(overrides, says):
    assert says in (check("collect", ["out=unused", *overrides]) or "")


def test_composing_imports_no_simulator():
    code = (
        "import sys; from embodied.cli.app import compose; compose('collect', ['env=metaworld/reach', 'out=x']);"
        "print([m for m in ('mujoco', 'metaworld', 'gymnasium', 'envs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
