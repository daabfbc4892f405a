"""Perturbed splits of the simulated bodies: another look, start or wording, and the same goal and objects."""

import warnings

import numpy as np
import pytest
from body_episodes import FAMILIES, actions, make

from envs.base import LETTERS
from envs.perturbations import KINDS

warnings.simplefilter("ignore")
pytestmark = pytest.mark.simulator("mujoco", "gymnasium_robotics", "gym_pusht", "gym_aloha")
NAMES = ["fetch/push", "fetch/slide", "maze/umaze", "kitchen/complete", "adroit/hammer", "adroit/relocate"]
NAMES += ["mobile-arm/pick-place", "aloha/insertion"]
LOOKS = [(n, k) for n in NAMES for k in FAMILIES[n.split("/")[0]].perturbable if k not in ("start", "instruction")]
WORDED = [f"{family}/{task}" for family, kind in FAMILIES.items() for task in kind.instructions]


def perturbed(name, *kinds):
    return make(name, observe="both", height=48, width=48, perturb=dict.fromkeys(kinds, 1.0))


@pytest.fixture(scope="module")
def envs():
    """`envs(name, *kinds)`: an environment that stays, so that compiling is paid once."""
    made = {}

    def get(*key):
        if key not in made:
            made[key] = perturbed(*key)
        return made[key]

    yield get
    for env in made.values():
        env.close()


def episode(env, seed, steps=3):
    seen = [env.reset(seed=seed)[0]]
    return seen + [env.step(action)[0] for action in actions(env, seed, steps)]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        for key in a:
            assert np.array_equal(a[key], b[key]), key


def picture(observation):
    return next(observation[key].astype(int) for key in sorted(observation) if "images" in key)


@pytest.mark.parametrize("name, kind", LOOKS)
def test_looks_change_pictures_and_nothing_else(envs, name, kind):
    usual, other = episode(envs(name), 3), episode(envs(name, kind), 3)
    for a, b in zip(usual, other, strict=True):
        changed = (np.abs(picture(a) - picture(b)).max(axis=2) > 8).mean()
        assert changed > (0.0004 if kind == "distractors" else 0.03)
        for key in a:
            assert "images" in key or np.array_equal(a[key], b[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_is_the_same_after_others_and_beside_a_perturbed_one(envs, name):
    """Nothing of one episode's looks is left in the next, or in another environment of the same model."""
    kinds = FAMILIES[name.split("/")[0]].perturbable
    before, first = episode(envs(name), 3), episode(envs(name, *kinds), 3)
    episode(envs(name, *kinds), 4)
    assert_same(episode(envs(name, *kinds), 3), first)
    assert_same(episode(envs(name), 3), before)
    new = perturbed(name, *kinds)
    assert_same(episode(new, 3), first)
    new.close()


@pytest.mark.parametrize("task", ["reach", "push", "pick-place", "slide"])
@pytest.mark.parametrize("level", [1.0, 2.0])
def test_fetch_starts_elsewhere_with_goal_and_object_in_place(task, level):
    usual = make(f"fetch/{task}", observe="state")
    other = make(f"fetch/{task}", observe="state", perturb={"start": level})
    for seed in range(8):
        here, there = usual.reset(seed=seed)[0], other.reset(seed=seed)[0]
        moved = np.abs(there["observation.state"] - here["observation.state"])[:3]
        assert 0.002 < moved.max() < 0.031 * level
        assert moved[:2] == pytest.approx(np.abs(other.drawn.start())[:2], abs=0.003)
        a, b = (x["observation.environment_state"] for x in (here, there))
        np.testing.assert_array_equal(a[6:], b[6:])  # the goal
        np.testing.assert_allclose(a[:3], b[:3], atol=1e-3)  # the object settles for longer


def test_the_mobile_arm_starts_with_its_hand_elsewhere(envs):
    usual, other = envs("mobile-arm/pick-place"), envs("mobile-arm/pick-place", "start")
    for seed in range(4):
        a, b = usual.reset(seed=seed)[0], other.reset(seed=seed)[0]
        np.testing.assert_array_equal(a["observation.environment_state"], b["observation.environment_state"])
        np.testing.assert_array_equal(a["observation.state"][:3], b["observation.state"][:3])  # the base
        offset = other.drawn.start()
        went = np.linalg.norm(other.fingertips() - usual.fingertips())
        assert went == pytest.approx(np.linalg.norm(offset), abs=1e-6) and went > 0.002


def test_cubes_that_are_named_by_their_colour_keep_it(envs):
    usual, other = envs("mobile-arm/pick-place"), envs("mobile-arm/pick-place", "colour")
    for env in (usual, other):
        env.reset(seed=0)
    before, after = (env.scene()[0] for env in (usual, other))
    for colour in ("red", "green", "blue"):
        np.testing.assert_array_equal(before.geom(colour).rgba, after.geom(colour).rgba)
    assert not np.array_equal(before.geom("table").rgba, after.geom("table").rgba)


@pytest.mark.parametrize("name", WORDED)
def test_every_task_has_other_words(name):
    family, task = name.split("/")
    kind = FAMILIES[family]
    assert set(kind.rephrased) == set(kind.instructions)
    assert len(set(kind.rephrased[task]) - {kind.instructions[task]}) >= 2
    for text in kind.rephrased[task]:
        assert len(text) <= 160 and set(text.replace("{colour}", "green")) <= set(LETTERS)


@pytest.mark.parametrize("name", ["pusht/push", "mobile-arm/pick-place"])
def test_other_words_say_the_same_task(name):
    usual, other = (make(name, observe="state", perturb=perturb) for perturb in (None, {"instruction": 1}))
    said = {}
    for seed in range(8):
        a, b = usual.reset(seed=seed)[0], other.reset(seed=seed)[0]
        said[b["task"]] = a["task"]
        assert other.observation_space["task"].contains(b["task"])
        np.testing.assert_array_equal(a["observation.environment_state"], b["observation.environment_state"])
        if name.startswith("mobile-arm"):
            assert usual.wanted in b["task"] and "{" not in b["task"]
    assert len(said) >= 2 and not set(said) & set(said.values())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_kind_that_makes_no_sense_is_refused_by_what_there_is(family):
    kind, task = FAMILIES[family], next(iter(FAMILIES[family].instructions))
    for other in set(KINDS) - set(kind.perturbable):
        says = f"{kind.__name__} takes no perturbation '{other}'; there is {', '.join(kind.perturbable)}"
        with pytest.raises(ValueError, match=says):
            kind([task], perturb={other: 1.0})
    kind([task], perturb=dict.fromkeys(KINDS, 0)).close()  # level 0 is the standard split everywhere
    with pytest.raises(ValueError, match="no perturbation 'camra'; did you mean 'camera'"):
        kind([task], perturb={"camra": 1.0})
