"""A perturbed episode is the episode of its seed, with something else changed that a policy should not mind."""

import numpy as np
import pytest
from panda_episodes import make as make_panda

from embodied.cli.app import check, compose
from embodied.evaluation.policies import split_name
from embodied.spec import IMAGES, pair
from envs.mujoco import metaworld
from envs.perturbations import KINDS, Perturbations

LOOKS = ("camera", "lighting", "colour", "distractors")
SIMULATORS = [
    pytest.param("metaworld", marks=pytest.mark.simulator("mujoco", "metaworld")),
    pytest.param("panda", marks=pytest.mark.simulator("pybullet", "panda_gym")),
]


def make(simulator, **perturb):
    if simulator == "panda":
        return make_panda(["push"], perturb=perturb, cameras=["front"], height=64, width=64), IMAGES + "front"
    made = metaworld.MetaWorld(["push"], observe="both", cameras=["corner"], height=64, width=64, perturb=perturb)
    return made, IMAGES + "corner"


def episode(env, seed, steps=4):
    """All observations of an episode under actions that the seed fixes."""
    random = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high
    seen = [env.reset(seed=seed)[0]]
    return seen + [env.step(random.uniform(low, high).astype(np.float32))[0] for _ in range(steps)]


def same(first, second):
    return all(np.array_equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)


@pytest.fixture(scope="module", params=SIMULATORS)
def standard(request):
    env, camera = make(request.param)
    yield request.param, camera, {seed: episode(env, seed) for seed in (1, 2)}, env.embodiment
    env.close()


@pytest.mark.parametrize("kind", LOOKS)
def test_looks_change_pictures_and_nothing_else(standard, kind):
    simulator, camera, usual, embodiment = standard
    env, _ = make(simulator, **{kind: 1.0})
    for seed in usual:
        for a, b in zip(usual[seed], episode(env, seed), strict=True):
            changed = (np.abs(a[camera].astype(int) - b[camera]).max(axis=2) > 8).mean()
            assert changed > (0.001 if kind == "distractors" else 0.05)
            for key in set(a) - {camera}:
                assert np.array_equal(a[key], b[key]), key
    pair(agent=embodiment, env=env.embodiment)  # a policy from the standard split runs here
    env.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_is_the_same_after_others_and_in_a_new_environment(standard, kind):
    simulator, _, usual, _ = standard
    env, _ = make(simulator, **{kind: 1.0})
    first = {seed: episode(env, seed) for seed in usual}
    again, _ = make(simulator, **{kind: 1.0})
    for seed in sorted(usual, reverse=True):
        assert same(episode(env, seed), first[seed])  # nothing of the other episode is left
        assert same(episode(again, seed), first[seed])
        assert not same(usual[seed], first[seed])
    env.close()
    again.close()


def test_a_start_elsewhere_leaves_objects_and_goals_where_they_are(standard):
    simulator, _, usual, _ = standard
    env, _ = make(simulator, start=1.0)
    for seed in usual:
        moved, _ = env.reset(seed=seed)
        before = usual[seed][0]
        offset = env._perturbations.of("push", seed).start()
        went = moved["observation.state"][:3] - before["observation.state"][:3]
        np.testing.assert_allclose(went, offset, atol=0.006)
        assert np.abs(offset).max() > 0.005
        here, there = (o["observation.environment_state"] for o in (before, moved))
        np.testing.assert_allclose(here, there, atol=1e-3)  # the physics settles a little differently
    env.close()


def test_other_words_say_the_same_task(standard):
    simulator, _, usual, _ = standard
    env, _ = make(simulator, instruction=1.0)
    said = {env.reset(seed=seed)[0]["task"] for seed in range(12 if simulator == "metaworld" else 6)}
    assert len(said) >= 2 and usual[1][0]["task"] not in said
    assert all(env.observation_space["task"].contains(text) for text in said)
    env.close()


def test_level_zero_is_the_standard_split(standard):
    simulator, _, usual, _ = standard
    env, _ = make(simulator, **dict.fromkeys(KINDS, 0))
    assert same(episode(env, 1), usual[1])
    env.close()


@pytest.mark.simulator("mujoco", "metaworld")
def test_tasks_that_share_a_process_with_perturbed_ones_look_as_usual():
    """Headlight, colours and cameras live in MuJoCo's model: another environment's must not be touched."""
    plain, camera = make("metaworld")
    before = plain.reset(seed=1)[0][camera]
    env, _ = make("metaworld", **dict.fromkeys(LOOKS, 1.0))
    env.reset(seed=1)
    assert np.array_equal(plain.reset(seed=1)[0][camera], before)
    env.close()
    plain.close()


def test_a_kind_is_drawn_the_same_alone_and_among_others():
    alone, among = Perturbations({"start": 1}), Perturbations(dict.fromkeys(KINDS, 1))
    np.testing.assert_array_equal(alone.of("push", 5).start(), among.of("push", 5).start())
    assert not np.array_equal(alone.of("push", 5).start(), alone.of("push", 6).start())
    assert not np.array_equal(alone.of("push", 5).start(), alone.of("reach", 5).start())


def test_distractors_keep_clear():
    clear = [np.array([0.0, 0.0, 0.1]), np.array([0.1, 0.1, 0.0])]
    for seed in range(50):
        things = Perturbations({"distractors": 2}).of("push", seed).distractors((-0.2, -0.2), (0.2, 0.2), clear)
        places = [np.array(thing.place) for thing in things]
        assert 1 <= len(things) <= 6 and np.abs(places).max() <= 0.2
        everything = places + [place[:2] for place in clear]
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(everything[: len(places)]) for b in everything[i + 1 :]]
        assert min(gaps) >= 0.08


def test_a_camera_is_turned_by_what_the_level_says():
    for level in (0.5, 2.0):
        for seed in range(20):
            shift = Perturbations({"camera": level}).of("push", seed).camera("front")
            np.testing.assert_allclose(shift.rotation @ shift.rotation.T, np.eye(3), atol=1e-12)
            angle = np.degrees(np.arccos((np.trace(shift.rotation) - 1) / 2))
            assert angle <= 4 * np.sqrt(3) * level and np.abs(shift.offset).max() <= 0.04 * level


@pytest.mark.parametrize(
    "levels, says",
    [
        ({"camra": 1}, "no perturbation 'camra'; did you mean 'camera'"),
        ({"camera": -1}, "from 0 to 2, got -1"),
        ({"camera": 2.5}, "from 0 to 2, got 2.5"),
        ({"camera": float("nan")}, "from 0 to 2, got nan"),
        ({"camera": "much"}, "from 0 to 2, got much"),
        ({"camera": True}, "from 0 to 2, got True"),
    ],
)
def test_a_wrong_kind_or_level_is_one_clear_line(levels, says):
    with pytest.raises(ValueError, match=says):
        Perturbations(levels)


def test_one_word_perturbs_any_environment_and_names_the_result():
    import embodied.cli.eval  # noqa: F401 (registers what eval.yaml resolves)

    words = ["policy=runs/x", "env=metaworld/mt10"]
    assert compose("eval", words).out == "runs/x/eval/metaworld_mt10_10000"
    config = compose("eval", [*words, "perturb=camera"])
    assert config.out == "runs/x/eval/metaworld_mt10+camera_10000"
    assert dict(config.env.make.perturb) == {"camera": 1.0} and split_name(config.env) == "metaworld/mt10+camera"
    several = compose("eval", [*words, "perturb=[start,camera]", "env.make.perturb.start=0.5"])
    assert split_name(several.env) == "metaworld/mt10+camera+start0.5"
    for kind in KINDS:
        assert dict(compose("collect", ["out=x", "env=panda/push", f"perturb={kind}"]).env.make.perturb) == {kind: 1.0}
    assert set(compose("eval", [*words, "perturb=all"]).env.make.perturb) == set(KINDS)
    assert "did you mean 'camera'" in (check("eval", [*words, "perturb=camra"]) or "")


def test_every_meta_world_task_has_other_words():
    assert list(metaworld.MetaWorld.rephrased) == list(metaworld.MetaWorld.instructions)
    for task, others in metaworld.MetaWorld.rephrased.items():
        assert len(set(others) - {metaworld.MetaWorld.instructions[task]}) >= 2
