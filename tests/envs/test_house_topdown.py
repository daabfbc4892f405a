"""Maps of episodes in houses show walls, goals and the agent where they are, and nobody acts on them."""

import importlib.util
import math
import os

import numpy as np
import pytest

from embodied.drawing import AGENT, FLOOR, GOAL, PAPER, WALL, category_colours
from envs.house.simulator import Body
from envs.house.tasks.graph_vln import HouseGraph
from envs.house.tasks.multion import MultiON
from envs.house.tasks.objectnav import ObjectNav
from envs.house.tasks.pointnav import PointNav
from envs.house.topdown import HEIGHT, MARGIN

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true", reason="numba is not installed"
)
SMALL = Body(32, 32)


def pixels_of(house, places, shape):
    """Row and column from the house's bounds alone: north is up, `MARGIN` metres are around it."""
    x0, y0, x1, y1 = house.spec.bounds
    scale = HEIGHT / (y1 - y0 + 2 * MARGIN)
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    away = (np.atleast_2d(places) - middle) * scale
    return np.floor(np.stack([shape[0] / 2 - away[:, 1], shape[1] / 2 + away[:, 0]], 1)).astype(int)


def like(picture, colour, tolerance=6):
    return (np.abs(picture.astype(int) - np.array(colour)) <= tolerance).all(-1)


@pytest.fixture(scope="module")
def walked():
    env = PointNav(SMALL)
    env.reset(seed=3)
    before = env.drawings()["map"]
    while not env.walk.length > 2.0:
        env.step(env.oracle())
    return env, before, env.drawings()["map"]


def test_walls_floors_and_furniture_are_where_the_house_has_them(walked):
    env, before, _ = walked
    house, scene = env.sim.house, env.sim.house.scene
    assert before.dtype == np.uint8 and before.shape[0] == HEIGHT
    bounds = scene.bounds[: scene.walls]
    middles = (bounds[:, :2] + bounds[:, 3:5]) / 2
    rows, columns = pixels_of(house, middles, before.shape).T
    assert like(before, WALL, 30)[rows, columns].mean() > 0.95
    plan = env.sim.finder.top_down(0.2)
    rng = np.random.default_rng(0)
    names, right, tried = category_colours(), 0, 0
    for _ in range(600):
        place = rng.uniform(house.spec.bounds[:2], house.spec.bounds[2:])
        at = tuple(plan.to_pixels(place))
        near = plan.semantic[max(at[0] - 1, 0) : at[0] + 2, max(at[1] - 1, 0) : at[1] + 2]
        if (near == near.flat[0]).all() and plan.semantic[at] not in (0, 1):
            (row, column), *_ = pixels_of(house, place, before.shape)
            right += bool(like(before[row, column], names[plan.semantic[at]], 40))
            tried += 1
    assert tried > 200 and right / tried > 0.9  # the rest is words, marks and the way
    assert like(before, PAPER)[:4].all() and like(before, FLOOR).mean() > 0.2


def test_the_goal_the_agent_and_its_way_are_where_they_are(walked):
    env, before, after = walked
    house = env.sim.house
    for picture in (before, after):
        (row, column), *_ = pixels_of(house, env.episode.goals[0], picture.shape)
        assert like(picture, GOAL)[row - 2 : row + 3, column - 2 : column + 3].all()
    (row, column), *_ = pixels_of(house, env.sim.state.position, after.shape)
    near = np.argwhere(like(after, AGENT))
    assert len(near) and np.abs(near - (row, column)).max() < 20
    assert not like(before, AGENT)[row - 4 : row + 5, column - 4 : column + 5].any()
    way = np.array(env.walk.positions)[:, :2]
    away = np.minimum(*(np.linalg.norm(way - end, axis=1) for end in (way[0], way[-1])))
    assert (away > 0.5).sum() >= 3
    for row, column in pixels_of(house, way[away > 0.5], after.shape):
        red, _, blue = after[row, column].astype(int)
        assert blue > red + 40


def test_the_start_is_marked_once_it_is_left(walked):
    env, _, after = walked
    (row, column), *_ = pixels_of(env.sim.house, env.episode.start.position, after.shape)
    assert like(after, (255, 255, 255))[row - 2 : row + 3, column - 2 : column + 3].all()


def test_what_is_looked_for_is_outlined():
    env = ObjectNav(SMALL)
    env.reset(seed=5)
    category = env.episode.reference["object_category"]
    assert env.targets() == [k for k, o in enumerate(env.sim.house.spec.objects) if o.category == category]
    picture = env.drawings()["map"]
    for place in env.targets():
        x0, y0, x1, y1 = env.sim.house.spec.objects[place].footprint
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        for row, column in pixels_of(env.sim.house, corners, picture.shape):
            assert like(picture, GOAL, 40)[row - 2 : row + 3, column - 2 : column + 3].any()


def test_several_goals_are_reached_one_after_the_other():
    env = MultiON(SMALL)
    env.reset(seed=1)
    assert np.array_equal(np.concatenate(env.stops()), env.points) and len(env.stops()) == 3
    for row, column in pixels_of(env.sim.house, env.points, env.drawings()["map"].shape):
        assert like(env.drawings()["map"], GOAL)[row, column]


def test_episodes_from_viewpoint_to_viewpoint_are_drawn_in_their_house():
    env = HouseGraph(height=24, width=24)
    env.reset(seed=4)
    picture = env.drawings()["map"]
    (row, column), *_ = pixels_of(env.house, env.graph.positions[env.episode.goal, :2], picture.shape)
    assert like(picture, GOAL)[row, column] and like(picture, WALL, 30).mean() > 0.02
    env.step(env.oracle())
    assert (env.drawings()["map"] != picture).any() and np.array_equal(env.render(), env.drawings()["map"])


def test_drawing_changes_no_observation_and_no_episode():
    plain, drawn = PointNav(SMALL), PointNav(SMALL)
    seen, shown = plain.reset(seed=8)[0], drawn.reset(seed=8)[0]
    for _ in range(6):
        drawn.drawings()
        assert set(seen) == set(shown) == set(plain.observation_space.spaces)
        assert all(np.array_equal(seen[key], shown[key]) for key in seen)
        action = plain.oracle()
        seen, shown = plain.step(action)[0], drawn.step(action)[0]
    assert math.isclose(plain.walk.length, drawn.walk.length)
