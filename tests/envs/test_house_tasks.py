"""Tasks in houses: episodes by seed alone, official rules of success, an oracle that succeeds from anywhere."""

import importlib
import importlib.util
import os
import re

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.building import build
from embodied.cli.configs import compose
from embodied.evaluation.policies import ExpertPolicy
from embodied.evaluation.results import write_eval_info, write_rows
from embodied.evaluation.rollout import rollout
from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.navigation.habitat import Habitat
from embodied.evaluation.scorers.navigation.multion import MultiON
from embodied.evaluation.scorers.navigation.questions import EQA, IQUAD
from embodied.evaluation.scorers.navigation.reading import Episodes
from embodied.evaluation.scorers.reading import Skipped
from embodied.interaction import Environment
from embodied.spec import IMAGES, POSE, SEMANTIC, STATE, TASK
from envs.house.categories import MP3D_ID, WANTED
from envs.house.generate import generate
from envs.house.naming import called

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)
simulator = importlib.import_module("envs.house.simulator")

TASKS = ["pointnav", "objectnav", "vln", "reverie", "soon"]
SMALL = ["env.make.body.height=16", "env.make.body.width=16", "env.make.houses=2"]


def made(task, *words):
    env = compose("collect", ["out=unused", f"env=house/{task}", *SMALL, *words]).env
    return build(env.make)


def run(env, seed, policy=None):
    """The last info of an episode; `policy(env)` gives actions, the oracle's by default."""
    env.reset(seed=seed)
    while True:
        _, _, terminated, truncated, info = env.step(env.oracle() if policy is None else policy(env))
        if terminated or truncated:
            return info


@pytest.fixture(scope="module", params=TASKS)
def env(request):
    return made(request.param)


def same(one, other):
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_seed_is_an_episode_whatever_ran_before(env):
    assert isinstance(env, Environment)
    first, _ = env.reset(seed=5)
    second, *_ = env.step(1)
    run(env, 6)
    again, _ = env.reset(seed=5)
    same(first, again)
    same(second, env.step(np.array([1.0], np.float32))[0])
    assert not np.array_equal(env.reset(seed=7)[0][POSE], again[POSE]) or env.reset(seed=7)[0][TASK] != again[TASK]


def test_observations_are_what_the_spaces_and_the_embodiment_say(env):
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation), observation
    assert info["success"] is False
    assert observation[STATE].shape == (env.embodiment.state.dim,)
    assert observation[STATE][:4] == pytest.approx([0, 0, 1, 0])
    assert observation[IMAGES + "front"].std() > 5


def test_the_oracle_succeeds_nearly_as_directly_as_possible(env):
    ends = [run(env, seed) for seed in range(4)]
    assert all(end["success"] for end in ends)
    assert np.mean([end["measures"]["spl"] for end in ends]) > 0.9


def test_the_oracle_knows_the_way_from_wherever_other_actions_led(env):
    rng = np.random.default_rng(0)
    moves = [env.embodiment.action.names.index(name) for name in env.body.moves]

    def lost_then_found(env):
        return rng.choice(moves) if len(env.walk.actions) < 60 else env.oracle()

    assert all(run(env, seed, lost_then_found)["success"] for seed in range(2))


def test_stopping_at_once_fails_and_ends_the_episode(env):
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step(0)
    assert terminated and not truncated and not info["success"]
    assert info["measures"]["path_length"] == 0 and info["prediction"]["stop"]
    with pytest.raises(ValueError, match="call reset"):
        env.step(0)


def test_measures_are_those_of_the_official_scorer(env):
    rng = np.random.default_rng(1)

    def mixed(env):
        return env.oracle() if rng.random() < 0.7 else rng.integers(1, 4)

    scorer = Habitat(env.success_distance)
    names = ["spl", "soft_spl", "distance_to_goal", "path_length", "success"]
    for seed in range(2):
        end = run(env, seed, mixed)
        row = end["prediction"] | {key: np.array(end["prediction"][key]) for key in ("positions", "distances")}
        scored = scorer.episode(Record(row["episode_id"], row, end["reference"]))
        if env.name == "reverie":  # succeeds by sight instead of by distance
            names = ["distance_to_goal", "path_length"]
        for name in names:
            assert scored[name] == pytest.approx(end["measures"][name], abs=1e-9), name


@pytest.mark.parametrize("action", [-1, 99, 0.5, np.nan, [0, 1]])
def test_an_action_that_is_no_index_is_one_line(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="an action is one index from 0 to"):
        env.step(action)


@pytest.mark.parametrize(
    "words, says",
    [
        (["env.make.split=trian"], "did you mean 'train'"),
        (["env.make.houses=0"], "houses is how many"),
        (["env.make.max_steps=0"], "max_steps cannot be 0"),
        (["env.make.body.turn=0"], "turn is from 1 to 120"),
        (["env.make.body.outputs=[depth]"], "need rgb"),
        (["perturb=colour"], "takes no perturbation 'colour'"),
    ],
)
def test_a_wrong_option_is_one_line(words, says):
    with pytest.raises(ValueError, match=says) as error:
        made("pointnav", *words)
    assert "\n" not in str(error.value)


def test_splits_share_no_house():
    seen = {split: set() for split in ("train", "val", "test")}
    for split, houses in seen.items():
        env = made("pointnav", f"env.make.split={split}", "env.make.houses=3")
        houses |= {env.reset(seed=seed)[1]["house"] for seed in range(6)}
    assert not seen["train"] & seen["val"] and not seen["val"] & seen["test"] and not seen["train"] & seen["test"]


def test_pose_and_gps_tell_where_the_goal_is():
    env = made("pointnav")
    env.reset(seed=3)
    for _ in range(12):
        observation, *_ = env.step(env.oracle())
        state = env.sim.state
        world = np.append(env.episode.goals[0], 0.0)
        c, s = np.cos(state.heading), np.sin(state.heading)
        ahead, left = np.array([[c, s], [-s, c]]) @ (world[:2] - state.position)
        distance, cos, sin = observation[STATE][4:]
        assert [distance * cos, distance * sin] == pytest.approx([ahead, left], abs=1e-4)
        camera = observation[POSE] @ [-left, env.body.camera_height, ahead, 1.0]  # x right, y down, z ahead
        start = env.episode.start
        c, s = np.cos(start.heading), np.sin(start.heading)
        assert camera[:2] == pytest.approx(np.array([[c, s], [-s, c]]) @ (world[:2] - start.position), abs=1e-4)
        assert camera[2] == pytest.approx(0, abs=1e-4)


def test_depth_and_pose_put_the_floor_at_height_zero():
    env = made(
        "objectnav", "env.make.body.height=32", "env.make.body.width=32", "env.make.body.outputs=[rgb,depth,semantic]"
    )
    observation, _ = env.reset(seed=2)
    down = env.embodiment.action.names.index("look_down")
    observation, *_ = env.step(down)
    depth, semantic = observation["observation.depth.front"], observation["observation.semantic.front"]
    focal = 16 / np.tan(np.radians(env.body.field_of_view / 2))
    v, u = np.indices(depth.shape) - 15.5
    points = np.stack([u / focal * depth, v / focal * depth, depth, np.ones_like(depth)], -1) @ observation[POSE].T
    floor = semantic == 2
    assert floor.sum() > 50 and np.abs(points[floor][:, 2]).max() < 1e-3
    assert points[~floor][:, 2].min() > -1e-3


def test_other_words_are_none_of_trainings():
    from envs.house.tasks import objectnav

    env, other = made("objectnav"), made("objectnav", "perturb=instruction")
    for seed in range(6):
        plain, asked = env.reset(seed=seed)[0], other.reset(seed=seed)[0]
        assert np.array_equal(plain[IMAGES + "front"], asked[IMAGES + "front"]) and plain[TASK] != asked[TASK]
    assert not set(objectnav.WORDS[False]) & set(objectnav.WORDS[True])


def test_a_wandering_agent_still_arrives_and_the_label_stays_the_experts():
    env = made("pointnav", "env.make.wander=0.2")
    assert all(run(env, seed)["success"] for seed in range(3))


# several goals, questions


def test_semantic_images_may_be_prompted_with_what_is_wanted():
    outputs = "env.make.body.outputs=[rgb,depth,semantic]"
    plain, prompted = made("objectnav", outputs), made("objectnav", outputs, "env.make.prompted=true")
    found = 0
    for seed in range(3):
        one, other = plain.reset(seed=seed)[0], prompted.reset(seed=seed)[0]
        over = False
        while not over:
            seen, told = one[SEMANTIC + "front"], other[SEMANTIC + "front"]
            wanted = seen == MP3D_ID[plain.episode.reference["object_category"]]
            assert (told[wanted] == WANTED).all() and (told[~wanted] == seen[~wanted]).all()
            found += wanted.sum()
            action = plain.oracle()
            one, _, over, _, _ = plain.step(action)
            other, *_ = prompted.step(action)
    assert found > 0
    with pytest.raises(ValueError, match=r"prompted needs env.make.body.outputs=\[rgb,depth,semantic\]"):
        made("objectnav", "env.make.prompted=true")


def test_multion_goes_on_at_each_object_and_is_scored_as_officially():
    env, scorer = made("multion"), MultiON()
    for seed in range(2):
        end = run(env, seed)
        row = end["prediction"] | {"positions": np.array(end["prediction"]["positions"])}
        scored = scorer.episode(Record("x", row, end["reference"]))
        assert scored["success"] == 1 and len(end["prediction"]["found"]) == 3
        for name, value in scored.items():
            assert end["measures"][name] == pytest.approx(value, abs=1e-9), name


def test_saying_found_too_early_ends_multion_with_the_progress_so_far():
    env = made("multion")
    env.reset(seed=0)
    while env.turn == 0:
        env.step(env.oracle())
    while env.distance() < 1.6:
        env.step(env.oracle())
    *_, terminated, _, info = env.step(0)
    assert terminated and not info["success"]
    assert info["measures"]["progress"] == pytest.approx(1 / 3) and 0 < info["measures"]["ppl"] <= 1 / 3


@pytest.mark.parametrize("task, scorer", [("eqa", EQA()), ("iquad", IQUAD())])
def test_the_oracle_answers_questions_from_where_the_answer_is_seen(task, scorer):
    env = made(task, "env.make.body.outputs=[rgb,instance]", "env.make.body.height=64", "env.make.body.width=64")
    records = []
    for seed in range(4):
        env.reset(seed=seed)
        ended = False
        while not ended:
            observation, _, ended, truncated, info = env.step(env.oracle())
            assert not truncated
        assert info["success"], env.question
        if env.question.target is not None:
            there = env.sim.house.instance_of[env.question.target]
            assert (observation["observation.instance.front"] == there).any()
        records.append(Record(str(seed), info["prediction"]["prediction"], info["reference"]))
    assert scorer.score(records).metrics["accuracy"].value == 1


def test_another_answer_is_wrong():
    env = made("eqa")
    env.reset(seed=1)
    wrong = next(name for name in env.own if not name.endswith(env.question.answer))
    *_, terminated, _, info = env.step(env.own.index(wrong))
    assert terminated and not info["success"] and info["measures"]["answered"] == 1


def test_answers_follow_from_what_the_house_is_made_of():
    """Counted and looked up by hand, on the plain data of houses."""
    inquiry = importlib.import_module("envs.house.inquiry")
    rng = np.random.default_rng(0)
    asked = dict.fromkeys((*inquiry.EQA, *inquiry.IQUAD), 0)
    answers = []
    for seed in range(3):
        house = generate(seed)
        for kind in asked:
            for _ in range(40):
                question = inquiry.ask(house, kind, rng)
                if question is None:
                    continue
                asked[kind] += 1
                assert question.answer in inquiry.ANSWERS["eqa" if kind in inquiry.EQA else "iquad"]
                words = question.text.replace("benches", "bench").replace("chests", "chest")
                named = [item for item in house.objects if re.search(rf"\b{called(item.category)}s?\b", words)]
                rooms = {house.rooms[item.room].kind for item in named}
                within = [r for r in {room.kind for room in house.rooms} if r in words]
                if kind == "location":
                    assert rooms == {question.answer}
                elif kind == "color":
                    assert {item.colour for item in named} == {question.answer}
                elif kind == "counting":
                    most = max((len(called(item.category)) for item in named), default=0)  # chest of drawers, not ...
                    assert sum(len(called(item.category)) == most for item in named) == int(question.answer)
                elif kind == "containment":
                    answers.append(question.answer)
                    there = [i for i in named if house.rooms[i.room].kind == within[0]]
                    assert bool(there) == (question.answer == "yes")
    assert min(asked.values()) > 3, asked
    assert 0.3 < np.mean([answer == "yes" for answer in answers]) < 0.7


def test_an_evaluation_notes_what_the_environment_measures(tmp_path):
    env = compose("collect", ["out=unused", "env=house/pointnav", *SMALL]).env
    config = OmegaConf.to_container(env, resolve=True)
    records = rollout(ExpertPolicy(), config, [("pointnav", seed) for seed in range(2)])
    info = write_eval_info(
        tmp_path, records, policy="expert", env={"name": config["name"]}, embodiment=None, config={}, eval_s=1.0
    )
    assert config["name"] == "house/pointnav-train" and info["overall"]["pc_success"] == 100
    each = [episode["measures"]["spl"] for episode in info["episodes"]]
    assert info["overall"]["measures"]["spl"] == pytest.approx(np.mean(each)) and min(each) > 0.8
    assert write_rows(tmp_path, records)
    reader = Episodes(keep=["distances", "stop"])
    wanted = reader.read(tmp_path / "references.json", Skipped())
    said = reader.predictions(tmp_path / "predictions.json", Skipped())
    scores = Habitat().score([Record(name, said[name][1], wanted[name][1]) for name in wanted])
    assert scores.metrics["spl"].value == pytest.approx(np.mean(each))
