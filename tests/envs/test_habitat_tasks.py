"""Episodes of files, on habitat-sim's stand-in: an agent runs them like those of houses, and bad ones are one line."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied.building import build
from embodied.cli.app import compose
from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.navigation.questions import EQA as OfficialEQA
from embodied.interaction import Environment
from envs.habitat.engine import rotation_of, to_habitat
from envs.house.generate import generate

REAL = importlib.util.find_spec("habitat_sim") is not None
pytestmark = [
    pytest.mark.simulator("numba"),
    pytest.mark.skipif(REAL, reason="these are for a stand-in, which the real one would hide"),
]
HOUSE = generate(3)
CODE = {"stop": 0, "move_forward": 1, "turn_left": 2, "turn_right": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes and one episode file per task, made from a house."""
    from envs.house.houses import House
    from envs.house.pathfinder import PathFinder

    root = tmp_path_factory.mktemp("habitat")
    (root / "scenes/made").mkdir(parents=True)
    HOUSE.save(root / "scenes/made/house.json")
    (root / "scenes/made/house.glb").touch()
    finder, rng = PathFinder(HOUSE), np.random.default_rng(0)

    def place(x, y):
        return [float(v) for v in to_habitat([x, y, 0.0])]

    house = House(HOUSE)
    number = next(n for n, item in enumerate(HOUSE.objects) if len(house.views(n, house.finder())))
    seen, item = house.views(number, house.finder()), HOUSE.objects[number]
    rows = {"pointnav": [], "objectnav": [], "vln": [], "eqa": []}
    states = [{"position": place(*point), "rotation": [0, 0, 0, 1]} for point in seen]
    asked = {"question_text": f"what color is the {item.category}?", "answer_text": item.colour}
    asked |= {"question_type": "color", "answer_token": [0]}
    thing = {"position": [float(v) for v in to_habitat(item.centre)], "object_id": 1}
    for episode in range(3):
        start = finder.random_point(rng)
        goal = finder.random_point(rng)
        shared = {
            "episode_id": str(episode),
            "scene_id": "made/house.glb",
            "start_position": place(*start),
            "start_rotation": [float(v) for v in rotation_of(rng.uniform(-3, 3))],
            "info": {"geodesic_distance": finder.geodesic(start, goal)},
        }
        goals = [{"position": place(*goal), "radius": 0.2}]
        rows["pointnav"].append(shared | {"goals": goals})
        rows["objectnav"].append(shared | {"goals": [], "object_category": item.category})
        told = {"instruction_text": "Go “there”.", "instruction_tokens": [1]}
        path = [place(*point) for point in finder.path(start, goal)]
        rows["vln"].append(shared | {"goals": goals, "instruction": told, "reference_path": path, "trajectory_id": 5})
        rows["eqa"].append(shared | {"goals": [thing | {"view_points": states}], "question": asked})
    rows["eqa"][1] |= {"goals": [thing], "shortest_paths": [[{"position": place(*seen[0]), "action": 3}]]}
    goal = thing | {"view_points": [{"agent_state": state} for state in states]}
    words = {"answer_vocab": {"word_list": ["sideways", item.colour]}}
    for task, episodes in rows.items():
        beside = {"goals_by_category": {f"house.glb_{item.category}": [goal]}} if task == "objectnav" else {}
        beside |= words if task == "eqa" else {}
        (root / f"{task}.json").write_text(json.dumps({"episodes": episodes} | beside))
    return root


@pytest.fixture
def make(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "habitat_double"))
    monkeypatch.delitem(sys.modules, "habitat_sim", raising=False)
    made = []

    def go(task, *overrides, episodes=None):
        words = [f"env=habitat/{task}", f"env.make.episodes={episodes or folder / f'{task}.json'}", "out=unused"]
        small = [f"env.make.scenes={folder}/scenes", "env.make.body.height=32", "env.make.body.width=32"]
        config = compose("collect", [*words, *small, "env.make.body.radius=0.2", *overrides])
        made.append(build(config.env.make))
        return made[-1], build(config.env.expert, env=made[-1])

    yield go
    for env in made:
        env.close()


@pytest.mark.parametrize("task", ["pointnav", "objectnav", "vln"])
def test_the_oracle_solves_the_files_episodes(make, folder, task):
    from embodied.evaluation.scorers.navigation.paths import length

    env, expert = make(task)
    assert isinstance(env, Environment) and env.embodiment.cameras[0].renderer.startswith("habitat-sim:")
    rows = json.loads((folder / f"{task}.json").read_text())["episodes"]
    for seed in (0, 4):
        row = rows[seed % 3]
        observation, info = env.reset(seed=seed, options={"task": task})
        expert.reset(seed)
        assert info["episode_id"] == row["episode_id"] and env.observation_space.contains(observation)
        assert observation["observation.state"][:4].tolist() == [0, 0, 1, 0]
        over = False
        while not over:
            observation, _, terminated, truncated, info = env.step(expert.act())
            over = terminated or truncated
        assert info["success"] and info["measures"]["spl"] > 0.8
        told = info["prediction"]
        assert info["reference"]["episode_id"] == row["episode_id"]
        assert told["stop"] and told["episode_id"] == row["episode_id"]
        np.testing.assert_allclose(told["positions"][0], row["start_position"], atol=1e-5)
        assert length(told["positions"]) == pytest.approx(info["measures"]["path_length"], abs=1e-4)
        if task != "objectnav":
            assert told["distances"][0] == pytest.approx(row["info"]["geodesic_distance"], abs=1e-4)
            end = np.linalg.norm(np.subtract(told["positions"][-1], row["goals"][0]["position"]))
            assert end <= env.success_distance
        if task == "vln":
            assert observation["task"] == "Go “there”." and info["measures"]["ndtw"] > 0.8


EQA = ("env.make.body.forward=0.25", "env.make.body.turn=15")


def test_the_oracle_answers_a_files_questions_from_where_the_object_is_seen(make, folder):
    env, expert = make("eqa", *EQA)
    rows = json.loads((folder / "eqa.json").read_text())["episodes"]
    asked = rows[0]["question"]
    colour = asked["answer_text"]
    assert isinstance(env, Environment) and env.own == ("answer sideways", f"answer {colour}")
    records = []
    for seed in (0, 1):  # view points; the end of a shortest path
        observation, info = env.reset(seed=seed)
        expert.reset(seed)
        assert env.observation_space.contains(observation) and observation["task"] == asked["question_text"]
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(expert.act())
            over = terminated or truncated
        assert info["success"] and terminated and info["measures"]["distance_to_goal"] < 0.2
        assert info["prediction"] == {"episode_id": str(seed), "prediction": colour}
        if seed == 0:
            away = env.row.goals[0].position[:2] - env.sim.state.position[:2]
            turned = math.atan2(away[1], away[0]) - env.sim.state.heading
            assert abs(math.remainder(turned, 2 * math.pi)) <= math.radians(7.5) + 1e-5
        else:
            ended = env.sim.state.position - env.row.points[0]
            assert np.linalg.norm(ended) < 0.2
        records.append(Record(str(seed), info["prediction"]["prediction"], info["reference"]))
    assert OfficialEQA().score(records).metrics["accuracy"].value == 1
    env.reset(seed=2)
    *_, terminated, _, info = env.step(env.own.index("answer sideways"))
    assert terminated and not info["success"] and info["prediction"]["prediction"] == "sideways"
    assert OfficialEQA().score([Record("2", "sideways", info["reference"])]).metrics["accuracy"].value == 0


def test_a_question_whose_answer_cannot_be_given_is_one_line_or_skipped_and_counted(make, folder, tmp_path):
    content = json.loads((folder / "eqa.json").read_text())
    content["episodes"][0]["question"]["answer_text"] = "plaid"
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(content))
    env, _ = make("eqa", *EQA, episodes=file)
    with pytest.raises(ValueError) as problem:
        env.reset(seed=0)
    assert str(problem.value) == f"{file}, episode 0: its answer 'plaid' is not in answer_vocab"
    env, _ = make("eqa", *EQA, "env.make.on_fault=skip", episodes=file)
    info = env.reset(seed=0)[1]
    assert info["episode_id"] == "1" and info["skipped"] == 1
    del content["answer_vocab"]
    file.write_text(json.dumps(content))
    env, _ = make("eqa", *EQA, episodes=file)
    assert "answer plaid" in env.own and len(env.own) == 2


def test_a_pose_brings_depth_back_to_where_the_agent_began(make):
    env, _ = make("pointnav")
    env.reset(seed=1)
    for action in ("turn_left", "turn_left", "move_forward", "turn_right"):
        observation = env.step([env.embodiment.action.names.index(action)])[0]
    pose, start, now = observation["observation.pose"], env.episode.start, env.sim.state
    assert pose[2, 3] == pytest.approx(1.25)
    ahead = now.position[:2] - start.position[:2]
    c, s = math.cos(start.heading), math.sin(start.heading)
    np.testing.assert_allclose(pose[:2, 3], [c * ahead[0] + s * ahead[1], c * ahead[1] - s * ahead[0]], atol=1e-4)
    np.testing.assert_allclose(pose[:2, 3], observation["observation.state"][:2], atol=1e-4)


FAULTS = {
    "off the navigation mesh": lambda row: row | {"start_position": [-5.0, 0.0, 5.0]},
    "its goal cannot be reached": lambda row: row | {"goals": [{"position": [3.0, 40.0, -3.0], "radius": 0.2}]},
    "there is no scene made/other.glb": lambda row: row | {"scene_id": "made/other.glb"},
}


@pytest.mark.parametrize("says", FAULTS)
def test_an_episode_that_cannot_be_run_is_one_line_or_skipped_and_counted(make, folder, tmp_path, says):
    rows = json.loads((folder / "pointnav.json").read_text())["episodes"]
    rows[0] = FAULTS[says](rows[0])
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({"episodes": rows}))
    env, _ = make("pointnav", episodes=file)
    with pytest.raises(ValueError, match=says) as problem:
        env.reset(seed=0)
    assert f"{file}, episode 0: " in str(problem.value) and "\n" not in str(problem.value)
    assert env.reset(seed=1)[1]["episode_id"] == "1"
    env.close()
    env, _ = make("pointnav", "env.make.on_fault=skip", episodes=file)
    info = env.reset(seed=0)[1]
    assert info["episode_id"] == "1" and info["skipped"] == 1 and env.skipped == [str(problem.value)]


def test_a_file_without_a_good_episode_is_refused(make, tmp_path):
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({"episodes": [{"episode_id": 1}]}))
    with pytest.raises(ValueError, match="episode 1: it has no scene_id"):
        make("pointnav", episodes=file)
    with pytest.raises(ValueError, match="has no episode of pointnav"):
        make("pointnav", "env.make.on_fault=skip", episodes=file)
