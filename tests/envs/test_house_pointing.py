"""Pointing at remote objects: the oracle does it rightly, and the scorers find what the environment measured."""

import importlib
import importlib.util
import itertools
import json
import math
import os

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.building import build
from embodied.cli import score as module
from embodied.cli.app import command
from embodied.cli.configs import compose
from embodied.evaluation.policies import ExpertPolicy
from embodied.evaluation.results import write_rows
from embodied.evaluation.rollout import rollout
from embodied.spec import STATE

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)
pointing = importlib.import_module("envs.house.pointing")
houses = importlib.import_module("envs.house.houses")
remote = importlib.import_module("envs.house.tasks.remote")

SMALL = ["env.make.body.height=16", "env.make.body.width=16"]
FIGURES = {"reverie": ("rgs", "rgspl"), "soon": ("grounding", "grounding_spl")}


def config(task, *words):
    return compose("collect", ["out=unused", f"env=house/{task}", *SMALL, *words]).env


@pytest.fixture(scope="module", params=FIGURES)
def env(request):
    return build(config(request.param, "env.make.houses=2", "env.make.grounding=true").make)


def finish(env):
    """The last info of the oracle's episode from here."""
    while True:
        *_, terminated, truncated, info = env.step(env.oracle())
        if terminated or truncated:
            return info


def act(env, name):
    return env.step(env.embodiment.action.names.index(name))


@pytest.fixture
def score(monkeypatch, tmp_path, capsys):
    """Runs `embodied-score` on rows; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def go(profile):
        words = [f"profile={profile}", "predictions=predictions.json", "references=references.json"]
        monkeypatch.setattr("sys.argv", ["embodied-score", *words, "out=scores"])
        status = 0
        try:
            command("score", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return go


def test_names_around_a_direction_begin_with_the_nearest():
    rng = np.random.default_rng(0)
    for _ in range(50):
        direction, facing = (rng.uniform(-3, 3), rng.uniform(-1.3, 1.3)), rng.uniform(-3, 3)
        off = []
        for heading, elevation in pointing.nearest_names(direction, facing):
            assert heading in pointing.HEADINGS and elevation in pointing.ELEVATIONS
            told = facing + math.radians(int(heading.split()[1])), math.radians(int(elevation.split()[1]))
            off.append(pointing.between(told, direction))
        assert off == sorted(off) and off[0] <= math.radians(math.hypot(5, 5))


def test_a_box_holds_every_point_of_the_object_and_no_more():
    house = houses.load(1_000_000)
    at = np.array([house.spec.bounds[0] + 2.0, house.spec.bounds[1] + 2.0])
    for item in house.spec.objects[:12]:
        x0, y0, x1, y1 = item.footprint
        low, high = min(part.bounds[2] for part in item.parts), max(part.bounds[5] for part in item.parts)
        if x0 - 0.1 < at[0] < x1 + 0.1 and y0 - 0.1 < at[1] < y1 + 0.1:
            continue
        box = pointing.box_of(item, at)["target"]
        left, top = box["left_top"]["heading"], box["left_top"]["elevation"]
        right, bottom = box["right_bottom"]["heading"], box["right_bottom"]["elevation"]
        share = np.linspace(0, 1, 41)
        turned, ups = [], []
        for a, b, c in itertools.product(share, share, (0, 1)):
            dx, dy = x0 + a * (x1 - x0) - at[0], y0 + b * (y1 - y0) - at[1]
            turned.append((math.atan2(dx, dy) - left + 0.1) % (2 * math.pi) - 0.1)  # clockwise from +y
            ups.append(math.atan2(low + c * (high - low) - 1.25, math.hypot(dx, dy)))
        assert min(turned) == pytest.approx(0, abs=1e-9) and max(turned) == pytest.approx(right - left)
        assert bottom - 1e-9 <= min(ups) < bottom + 0.02 and top - 0.02 < max(ups) <= top + 1e-9


def test_the_oracle_points_at_the_object_and_the_record_says_so(env):
    for seed in range(2):
        env.reset(seed=seed)
        info = finish(env)
        row, target = info["prediction"], env.sim.house.spec.objects[env.target]
        right, weighted = (info["measures"][name] for name in FIGURES[env.name])
        assert info["success"] and right == 1 and weighted == pytest.approx(info["measures"]["spl"])
        assert env.walk.actions[-1] == "stop" and len(env.walk.actions) == len(row["positions"]) + 2
        if env.name == "reverie":
            assert row["predObjId"] == info["reference"]["objId"] == str(env.target) and row["seen"][-1]
            assert len(row["seen"]) == len(row["positions"])
        else:
            away = np.array(target.centre) - [*row["positions"][-1][:2], 1.25]
            heading, up = row["obj_heading"] * 2 * math.pi, row["obj_elevation"] * 2 * math.pi - math.pi
            pointed = [math.cos(up) * math.sin(heading), math.cos(up) * math.cos(heading), math.sin(up)]
            assert pointed @ away / np.linalg.norm(away) > math.cos(math.radians(8))


def test_a_later_direction_replaces_an_earlier_one_and_a_movement_takes_it_back(env):
    env.reset(seed=0)
    before = env.sim.state
    observation, _, terminated, _, _ = act(env, "heading 90")
    assert env.sim.state == before and not terminated and observation[STATE][-2:].tolist() == [1, 0]
    observation, *_ = act(env, "elevation -20")
    assert observation[STATE][-2:].tolist() == [1, 1]
    assert env.direction == pytest.approx((before.heading + math.pi / 2, math.radians(-20)))
    act(env, "heading 180")
    assert env.direction == pytest.approx((before.heading + math.pi, math.radians(-20)))
    observation, *_ = act(env, "turn_left")
    assert env.direction is None and observation[STATE][-2:].tolist() == [0, 0]
    assert finish(env)["measures"][FIGURES[env.name][0]] == 1


def test_who_stops_without_pointing_has_named_nothing_and_who_points_elsewhere_is_wrong(env):
    env.reset(seed=0)
    while env.embodiment.action.names[int(env.oracle()[0])] in env.body.moves:
        env.step(env.oracle())
    if env.name == "reverie":
        assert set(env.candidates()) >= {env.target}
    *_, info = act(env, "stop")
    assert info["success"] and info["measures"][FIGURES[env.name][0]] == 0
    assert env.name != "reverie" or info["prediction"]["predObjId"] == ""
    env.reset(seed=0)
    while not env.told:
        env.step(env.oracle())
    turned = (pointing.degrees_of(env.walk.actions[-1]) + 180) % 360
    act(env, f"heading {turned}")
    act(env, "elevation 0")
    *_, info = act(env, "stop")
    assert info["success"]
    if env.name == "soon":
        assert info["measures"]["grounding"] == 0
    elif len(env.candidates()) > 1:
        assert info["prediction"]["predObjId"] not in ("", str(env.target))


def test_without_grounding_the_actions_are_those_of_other_tasks():
    env = build(config("reverie", "env.make.houses=2").make)
    assert env.embodiment.action.names == ("stop", "move_forward", "turn_left", "turn_right")
    env.reset(seed=0)
    info = finish(env)
    assert info["prediction"]["predObjId"] is None and "rgs" not in info["measures"]


def test_the_oracle_stops_where_the_object_is_seen_though_a_view_point_beside_it_is_behind_a_corner():
    """A house in which one view point sees the towel past a corner that hides it a hand's breadth away."""
    env = build(config("reverie", "env.make.split=val").make)
    env.reset(seed=10022)
    house, goals = env.sim.house, env.episode.goals
    every = house.views(env.target, env.sim.finder)
    assert 0 < len(goals) < len(every)
    rng = np.random.default_rng(0)
    away = 0.75 * env.body.forward * np.sqrt(rng.random((400, 1)))
    angle = rng.uniform(0, 2 * math.pi, 400)
    near = goals[rng.integers(len(goals), size=400)] + away * np.stack([np.cos(angle), np.sin(angle)], 1)
    near = near[env.sim.finder.is_navigable(near)]
    assert pointing.seen_from(house, env.target, near).mean() > 0.995
    assert finish(env)["success"]


@pytest.mark.parametrize("task", FIGURES)
def test_what_an_evaluation_writes_is_scored_as_the_environment_measured_it(task, tmp_path, score):
    plain = OmegaConf.to_container(config(task, "env.make.houses=2", "env.make.grounding=true"), resolve=True)
    records = rollout(ExpertPolicy(), plain, [(task, seed) for seed in range(2)])
    assert write_rows(tmp_path, records)
    status, said, _ = score(f"{task}-ce")
    assert status == 0, said
    scores = json.loads((tmp_path / "scores/eval_info.json").read_text())["scores"]
    for name in ("success", "spl", "oracle_success", *FIGURES[task]):
        assert scores[name]["value"] == pytest.approx(np.mean([record.measures[name] for record in records])), name
    assert scores[FIGURES[task][0]]["value"] == 1
    rows = json.loads((tmp_path / "predictions.json").read_text())
    spoiled, says = {
        "reverie": ({"seen": [True]}, "needs 'seen', true or false for each of its positions"),
        "soon": ({"bbox": {"target": {}}}, "has a box without the corners"),
    }[task]
    (tmp_path / "predictions.json").write_text(json.dumps([rows[0], rows[1] | spoiled]))
    status, _, error = score(f"{task}-ce")
    assert status == 2 and says in error and rows[1]["episode_id"] in error and len(error.strip().splitlines()) == 1
    unsaid = {"predObjId": None, "obj_heading": None}
    (tmp_path / "predictions.json").write_text(json.dumps([row | unsaid for row in rows]))
    status, said, _ = score(f"{task}-ce")
    assert status == 0 and f"{task}-ce success: 100.0 %" in said and FIGURES[task][1] not in said
