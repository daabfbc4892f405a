"""habitat-sim does in an exported house what the house simulator does there: poses, ways, pictures.

On a stand-in for habitat_sim always, here and behind another process; on habitat-sim itself where this interpreter has
it, or where EMBODIED_HABITAT_PYTHON names one that has.
"""

import ast
import importlib.util
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from test_house_export import off_edges

from envs.habitat import engine
from envs.habitat import simulator as module
from envs.habitat.engine import from_habitat, heading_of, rotation_of, to_habitat
from envs.habitat.simulator import FloorState, HabitatSimulator, open_engine
from envs.house.follower import GreedyGeodesicFollower
from envs.house.generate import generate
from envs.house.gltf import write_habitat
from envs.house.houses import House
from envs.house.simulator import AgentState, Body, Simulator

pytestmark = pytest.mark.simulator("numba")

DOUBLE = Path(__file__).parent / "habitat_double"
REAL = importlib.util.find_spec("habitat_sim") is not None
ELSEWHERE = os.environ.get("EMBODIED_HABITAT_PYTHON")
BODY = Body(
    height=64, width=64, outputs=("rgb", "depth", "semantic", "instance"), radius=0.2, turn=30, look=True, tilt=20
)
HOUSE = generate(3)
KINDS = ["real"] if REAL else ["double", "double elsewhere"]
KINDS += ["real elsewhere"] if ELSEWHERE else []


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    HOUSE.save(folder / "house.json")
    write_habitat(HOUSE, folder / "house.glb")
    return folder / "house.glb"


@pytest.fixture(scope="module", params=KINDS)
def habitat(request, scene):
    with pytest.MonkeyPatch.context() as patch:
        if "double" in request.param:
            patch.syspath_prepend(str(DOUBLE))
            patch.setenv("PYTHONPATH", os.pathsep.join([str(DOUBLE), str(Path(__file__).parents[2])]))
            patch.delitem(sys.modules, "habitat_sim", raising=False)
        python = ELSEWHERE if request.param == "real elsewhere" else sys.executable
        where = {"python": python} if "elsewhere" in request.param else {}
        simulator = HabitatSimulator(open_engine(scene, BODY, navmesh="compute", cell=0.02, **where), BODY)
        yield simulator
        simulator.close()


@pytest.fixture(scope="module")
def house():
    return Simulator(House(HOUSE), BODY)


def test_frames_turn_into_each_other():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 3))
    np.testing.assert_allclose(from_habitat(to_habitat(points)), points, atol=1e-6)
    np.testing.assert_allclose(to_habitat([1, 2, 3]), [1, 3, -2])
    assert heading_of([0, 0, 0, 1]) == pytest.approx(math.pi / 2)  # -z of theirs is +y here
    for heading in rng.uniform(-3.1, 3.1, 20):
        for pitch in (0, -0.5, 0.9):
            assert heading_of(rotation_of(heading, pitch)) == pytest.approx(heading)


def far_points(house, count, seed=1, least=0.15):
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        point = house.finder.random_point(rng)
        if house.finder.clearance(point) > least:
            found.append(point)
    return np.array(found)


def test_equal_actions_give_equal_poses(habitat, house):
    rng = np.random.default_rng(2)
    x, y = far_points(house, 1)[0]
    house.place(AgentState(x, y, 0.3))
    habitat.place(FloorState(x, y, 0.3))
    walked = 0
    for _ in range(60):
        action = str(rng.choice(["move_forward", "move_forward", "turn_left", "turn_right", "look_up", "look_down"]))
        ahead, hit = house.after(house.state, action)
        if hit or house.finder.clearance(ahead.position) < 0.15:
            action = "turn_left"
        walked += action == "move_forward"
        house.step(action)
        assert habitat.step(action) is False and not habitat.collided
        np.testing.assert_allclose(habitat.state.position[:2], house.state.position, atol=1e-3)
        turned = (habitat.state.heading - house.state.heading + math.pi) % (2 * math.pi) - math.pi
        assert abs(turned) < 1e-3 and habitat.state.pitch == pytest.approx(house.state.pitch)
    assert walked > 10


def test_a_wall_stops_and_says_so(habitat, house):
    x, y = far_points(house, 1)[0]
    habitat.place(FloorState(x, y, 0.0))
    hits = [habitat.step("move_forward") for _ in range(80)]
    assert hits[-1] and habitat.collided
    assert habitat.finder.is_navigable(habitat.state.position)


def test_geodesics_are_within_two_percent(habitat, house):
    points = far_points(house, 10)
    ours = house.finder.geodesics(points, points)
    theirs = habitat.finder.geodesics(points, points)
    far = ours > 1
    assert far.any() and np.abs(theirs[far] / ours[far] - 1).max() < 0.02
    nearest = habitat.finder.distances_to(points[5:])(points[:5])
    np.testing.assert_allclose(nearest, theirs[:5, 5:].min(1), rtol=1e-3, atol=1e-3)
    path = habitat.finder.path(points[0], points[1])
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() == pytest.approx(theirs[0, 1], rel=0.01)
    assert math.isinf(habitat.finder.geodesic([*points[0], 0.0], [*points[1], 30.0]))
    with pytest.raises(ValueError, match="there is no way from"):
        habitat.finder.path([*points[0], 0.0], [*points[1], 30.0])


def test_depth_is_within_two_centimetres_and_things_are_the_same(habitat, house):
    checked = 0
    for place, (x, y) in enumerate(far_points(house, 4, seed=5)):
        heading, pitch = place * 1.3 - 2, (0.0, 0.35, -0.35, 0.7)[place]
        ours = house.observe_at([AgentState(x, y, heading, pitch)])
        theirs = habitat.observe_at([FloorState(x, y, heading, pitch)])
        assert theirs["rgb"].shape == (1, 64, 64, 3) and theirs["rgb"].dtype == np.uint8
        depth, ids = ours["depth"][0], ours["instance"][0]
        good = off_edges(depth, ids)
        assert np.abs(theirs["depth"][0] - depth)[good].max() < 0.02
        assert (theirs["instance"][0] == ids)[good].all()
        assert (theirs["semantic"][0] == ours["semantic"][0])[good].all()
        checked += good.sum()
    assert checked > 4000


def test_snapping_clearance_random_points_and_the_map(habitat, house):
    points = np.array([habitat.finder.random_point(np.random.default_rng(seed)) for seed in range(8)])
    assert habitat.finder.is_navigable(points).all() and len(np.unique(points, axis=0)) == 8
    again = habitat.finder.random_point(np.random.default_rng(3))
    np.testing.assert_array_equal(again, points[3])
    outside = np.array([-1.0, -1.0])
    assert not habitat.finder.is_navigable(outside)
    found = habitat.finder.snap(outside)
    assert np.linalg.norm(found[:2] - house.finder.snap(outside)) < 0.1
    with pytest.raises(ValueError, match="nowhere to stand near"):
        habitat.finder.snap(np.array([5000.0, 0.0, 0.0]))
    for point in far_points(house, 4):
        assert habitat.finder.clearance(point) == pytest.approx(min(2, house.finder.clearance(point)), abs=0.08)
    plan = habitat.finder.top_down(0.05)
    inside = plan.to_pixels(points[:, :2])
    assert plan.free[inside[:, 0], inside[:, 1]].mean() >= 0.75
    with pytest.raises(ValueError, match="is off the navigation mesh"):
        habitat.place(FloorState(-1.0, -1.0))
    with pytest.raises(ValueError, match="no action 'jump'"):
        habitat.step("jump")


@pytest.mark.parametrize("own", [False, True])
def test_either_greedy_follower_reaches_the_goal(habitat, house, own):
    start, goal = far_points(house, 2, seed=9, least=0.3)
    habitat.place(FloorState(*start))
    field = habitat.finder.distances_to(goal)
    follower, actions = GreedyGeodesicFollower(habitat), []
    for _ in range(200):
        action = habitat.follow(goal) if own else follower.next_action(habitat.state, field, actions)
        if action == "stop":
            break
        actions.append(action)
        habitat.step(action)
    assert action == "stop" and field(habitat.state.position[None])[0] < 0.75 * 0.25


def test_without_habitat_one_line_says_how_to_get_it(scene, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"conda create -n habitat .* habitat-sim") as problem:
        open_engine(scene, BODY)
    assert "\n" not in str(problem.value)


@pytest.mark.skipif(REAL, reason="this interpreter has habitat-sim")
def test_another_interpreter_without_it_is_one_line(scene, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # where another test has put the stand-in
    with pytest.raises(ValueError, match=f"{sys.executable} has no habitat-sim; .*conda create"):
        open_engine(scene, BODY, python=sys.executable)


def test_the_engine_is_one_file_for_python_3_9():
    tree = ast.parse(Path(engine.__file__).read_text(), feature_version=(3, 9))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    assert {name for name in modules if name not in sys.stdlib_module_names} == {"numpy"}
    assert all(callable(getattr(engine.Engine, name)) for name in engine.Engine.remote_methods)


@pytest.mark.skipif(REAL, reason="a stand-in is what is asked")
def test_a_scene_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOUBLE))
    with pytest.raises(ValueError, match=r"there is no scene .*nothing\.glb"):
        open_engine(tmp_path / "nothing.glb", BODY)
