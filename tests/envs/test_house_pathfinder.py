"""Walking in a house: geodesics are shortest, sliding stays out of obstacles, snapping finds the nearest free point."""

import importlib
import importlib.util
import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from envs.house.generate import generate

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)
pathfinder = importlib.import_module("envs.house.pathfinder")
plane = importlib.import_module("envs.house.plane")

SMALL = generate(4, width=(7, 8), depth=(5.5, 6.5), room_area=10)
FINDERS = [pathfinder.PathFinder(house) for house in (SMALL, generate(2))]


def gaps(finder, points):
    """Distances from points to the nearest raw part of the house, independent of octagons."""
    bounds = finder.scene.bounds.astype(float)
    obstacle = (bounds[:, 2] < 1.5) & (bounds[:, 5] > 0.02)
    bounds, is_round = bounds[obstacle], finder.scene.round[obstacle] == 1
    x, y = points[..., 0, None], points[..., 1, None]
    dx = np.maximum(0, np.maximum(bounds[:, 0] - x, x - bounds[:, 3]))
    dy = np.maximum(0, np.maximum(bounds[:, 1] - y, y - bounds[:, 4]))
    middle = np.hypot(x - (bounds[:, 0] + bounds[:, 3]) / 2, y - (bounds[:, 1] + bounds[:, 4]) / 2)
    return np.where(is_round, middle - (bounds[:, 3] - bounds[:, 0]) / 2, np.hypot(dx, dy)).min(-1)


def some_points(finder, count, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([finder.random_point(rng) for _ in range(count)])


@pytest.mark.parametrize("finder", FINDERS)
def test_geodesics_are_a_metric(finder):
    points = some_points(finder, 25)
    lengths = finder.geodesics(points, points)
    assert np.isfinite(lengths).all()
    assert np.abs(lengths - lengths.T).max() < 1e-9 and np.abs(np.diag(lengths)).max() < 1e-9
    assert (lengths[:, None, :] <= lengths[:, :, None] + lengths[None] + 1e-9).all()
    straight = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    assert (lengths >= straight - 1e-9).all()


@pytest.mark.parametrize("finder", FINDERS)
def test_a_path_is_as_long_as_the_geodesic_and_keeps_the_radius_from_everything(finder):
    points = some_points(finder, 12, 1)
    for a, b in itertools.pairwise(points):
        path = finder.path(a, b)
        assert (path[0] == a).all() and (path[-1] == b).all()
        assert np.hypot(*np.diff(path, axis=0).T).sum() == pytest.approx(finder.geodesic(a, b), abs=1e-9)
        along = np.concatenate([np.linspace(p, q, 60) for p, q in itertools.pairwise(path)])
        assert gaps(finder, along).min() > finder.radius - 2e-5
        if (gaps(finder, np.linspace(a, b, 400)) > finder.radius * 1.09).all():
            assert finder.geodesic(a, b) == pytest.approx(np.hypot(*(a - b)), abs=1e-9)


def test_geodesics_match_a_grid_on_the_true_disc_within_one_percent():
    """A 2 cm grid with 48 directions (at most 0.4 % too long), obstacles grown by the disc itself, not the octagon."""
    finder, cell = FINDERS[0], 0.02
    x1, y1 = finder.house.bounds[2:]
    shape = (int(x1 / cell), int(y1 / cell))
    centres = (np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) + 0.5) * cell
    free = disc_free(finder, centres)
    moves = [
        (a, b) for a in range(-5, 6) for b in range(6) if np.gcd(a, b) == 1 and (b > 0 or a > 0) and a * a + b * b < 36
    ]
    number = np.arange(free.size).reshape(shape)
    rows, columns, weights = [], [], []
    for a, b in moves:
        here = (slice(max(0, -a), shape[0] - max(0, a)), slice(0, shape[1] - b))
        there = (slice(max(0, a), shape[0] + min(0, a)), slice(b, shape[1]))
        good = free[here] & free[there]
        for share in (0.25, 0.5, 0.75) if max(abs(a), b) > 1 else ():
            i, j = round(a * share), round(b * share)
            middle = (
                slice(here[0].start + i, here[0].stop + i),
                slice(here[1].start + j, here[1].stop + j),
            )
            good &= free[middle]
        rows.append(number[here][good])
        columns.append(number[there][good])
        weights.append(np.full(good.sum(), np.hypot(a, b) * cell))
    graph = csr_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(free.size,) * 2
    )
    points = some_points(finder, 40, 2)
    cells = (points / cell).astype(int)
    good = free[cells[:, 0], cells[:, 1]]
    points, index = points[good], number[cells[good, 0], cells[good, 1]]
    reference = dijkstra(graph, directed=False, indices=index[:3])[:, index]
    snapped = (cells[good] + 0.5) * cell
    snapped = np.array([finder.snap(p) for p in snapped])
    exact = finder.geodesics(snapped[:3], snapped)
    far = reference > 1.5
    assert far.sum() > 30
    error = exact[far] / reference[far] - 1
    assert np.abs(error).max() < 0.01, (error.min(), error.max())


def disc_free(finder, centres):
    bounds = finder.scene.bounds.astype(float)
    free = np.ones(centres.shape[:2], bool)
    x, y = centres[..., 0], centres[..., 1]
    for k in np.flatnonzero((bounds[:, 2] < 1.5) & (bounds[:, 5] > 0.02)):
        a, b, _, c, d, _ = bounds[k]
        if finder.scene.round[k]:
            gap = np.hypot(x - (a + c) / 2, y - (b + d) / 2) - (c - a) / 2
        else:
            gap = np.hypot(np.maximum(0, np.maximum(a - x, x - c)), np.maximum(0, np.maximum(b - y, y - d)))
        free &= gap >= finder.radius
    return free


def test_a_distance_field_agrees_with_geodesics_to_the_nearest_goal():
    finder = FINDERS[1]
    points, goals = some_points(finder, 20, 3), some_points(finder, 3, 4)
    field = finder.distances_to(goals)(points)
    assert field == pytest.approx(finder.geodesics(points, goals).min(1), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(-np.pi, np.pi), min_size=1, max_size=12), st.floats(0.01, 1.5))
def test_walking_never_enters_an_obstacle_and_never_goes_further_than_asked(seed, headings, stride):
    finder = FINDERS[1]
    here = finder.random_point(np.random.default_rng(seed))
    for heading in headings:
        target = here + stride * np.array([np.cos(heading), np.sin(heading)])
        for sliding in (False, True):
            there, hit = finder.step(here, target, sliding)
            assert plane.depths(there[None], finder.planes, plane.NORMALS)[0] <= 1e-6
            assert np.hypot(*(there - here)) <= stride + 1e-6
            assert hit or np.allclose(there, target)
            assert np.isfinite(finder.geodesic(here, there)), "the walk went through a wall"
        here = there


def test_sliding_goes_on_along_a_wall_and_stopping_does_not():
    finder = FINDERS[1]
    rng = np.random.default_rng(5)
    further = 0
    for _ in range(60):
        here = finder.random_point(rng)
        heading = rng.uniform(-np.pi, np.pi)
        target = here + 0.5 * np.array([np.cos(heading), np.sin(heading)])
        slid, hit = finder.step(here, target)
        stopped, _ = finder.step(here, target, sliding=False)
        if hit:
            further += np.hypot(*(slid - here)) > np.hypot(*(stopped - here)) + 0.01
    assert further > 5


def test_snapping_moves_a_point_no_further_than_to_the_nearest_free_place():
    finder = FINDERS[0]
    plan = finder.top_down(0.05)
    free = plan.to_metres(np.argwhere(plan.free))
    rng = np.random.default_rng(6)
    x1, y1 = finder.house.bounds[2:]
    for point in rng.uniform((0, 0), (x1, y1), (40, 2)):
        snapped = finder.snap(point)
        assert finder.is_navigable(snapped)
        nearest = np.hypot(*(free - point).T).min()
        assert np.hypot(*(snapped - point)) <= nearest + 1e-9
        if finder.is_navigable(point):
            assert (snapped == point).all()


def test_a_top_down_map_turns_metres_into_pixels_and_back():
    finder = FINDERS[1]
    plan = finder.top_down(0.1)
    for point in some_points(finder, 20, 7):
        row, column = plan.to_pixels(point)
        assert np.abs(plan.to_metres(np.array([row, column])) - point).max() <= 0.05 + 1e-9
        assert plan.room[row, column] >= 0
    north = plan.to_pixels(np.array([1.0, 5.0])), plan.to_pixels(np.array([1.0, 1.0]))
    assert north[0][0] < north[1][0]


def test_what_is_off_the_floor_is_said():
    finder = FINDERS[0]
    outside = np.array([-1.0, -1.0])
    inside = some_points(finder, 1)[0]
    assert not finder.is_navigable(outside)
    assert finder.geodesic(outside, inside) == np.inf
    with pytest.raises(ValueError, match="start"):
        finder.path(outside, inside)
    with pytest.raises(ValueError, match="goal"):
        finder.path(inside, outside)
    with pytest.raises(ValueError, match="finite"):
        finder.geodesic(np.array([np.nan, 0]), inside)
    with pytest.raises(ValueError, match="radius"):
        pathfinder.PathFinder(finder.house, radius=-1)
    with pytest.raises(ValueError, match="door"):
        pathfinder.PathFinder(finder.house, radius=0.7)
