"""Remaining metres are those of the shortest way, and steering by them leads to the goal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.navigation.steering import Steering
from policies.navigation.ways import descend, remaining, walking_cost


def at(size, *cells):
    found = np.zeros((size, size), bool)
    for cell in cells:
        found[cell] = True
    return found


def test_in_the_open_a_way_is_as_long_as_straight_and_diagonal_steps():
    goals = at(9, (4, 4))
    field = remaining(np.ones((9, 9)), goals, 0.5)
    rows, columns = np.indices((9, 9)) - 4
    long, short = np.maximum(abs(rows), abs(columns)), np.minimum(abs(rows), abs(columns))
    np.testing.assert_allclose(field, 0.5 * (long - short + math.sqrt(2) * short))


def test_a_wall_is_walked_around_and_its_corner_is_not_cut():
    cost = np.ones((5, 5))
    cost[:4, 2] = np.inf
    field = remaining(cost, at(5, (3, 3)), 1.0)
    assert field[3, 1] == pytest.approx(4.0)  # down, right, right, up: no diagonal step touches the wall
    assert np.isinf(field[0, 2])


def test_of_several_goals_the_nearest_counts_and_one_in_a_wall_never():
    cost = np.ones((3, 9))
    cost[0, 0] = np.inf
    goals = np.zeros((3, 9), bool)
    goals[0, 0] = goals[1, 8] = True
    field = remaining(cost, goals, 1.0)
    assert field[1, 0] == pytest.approx(8.0)
    assert np.isinf(remaining(cost, at(9, (0, 0))[:3], 1.0)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_remains_is_what_a_step_costs_and_what_remains_there(seed):
    """Bellman's equation, on random costs and obstacles, cell by cell."""
    rng = np.random.default_rng(seed)
    cost = np.where(rng.random((7, 8)) < 0.3, np.inf, rng.uniform(1, 3, (7, 8)))
    cost[2, 3] = 1.0
    goals = np.zeros(cost.shape, bool)
    goals[2, 3] = True
    field = remaining(cost, goals, 0.1)
    for i, j in np.argwhere(np.isfinite(cost)):
        if goals[i, j]:
            assert field[i, j] == 0
            continue
        options = [np.inf]
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                k, m = i + a, j + b
                if (a or b) and 0 <= k < 7 and 0 <= m < 8 and np.isfinite([cost[k, m], cost[i, m], cost[k, j]]).all():
                    options.append(field[k, m] + 0.1 * math.hypot(a, b) * (cost[i, j] + cost[k, m]) / 2)
        assert field[i, j] == pytest.approx(min(options))


def test_ways_keep_from_obstacles_and_cost_more_near_them():
    occupied, known = at(11, (5, 5)), np.ones((11, 11), bool)
    known[0] = False
    cost = walking_cost(occupied, known, 0.1, radius=0.2, comfort=0.4)
    away = np.hypot(*(np.indices((11, 11)) - 5)) * 0.1
    assert np.isinf(cost[(away <= 0.2 + 1e-9)]).all() and np.isinf(cost[0]).all()
    assert (cost[(away > 0.4) & known] == 1).all() and (cost[(away > 0.21) & (away < 0.39)] > 1).all()
    through = walking_cost(occupied, known, 0.1, radius=0.2, unknown=1.5)
    assert (through[0] == 1.5).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-3.1, 3.1), st.sampled_from([10, 15, 30, 45]))
def test_steering_by_a_field_leads_to_the_goal_past_a_wall(x, y, heading, turn):
    steering = Steering(0.25, math.radians(turn), 60, 0.1)
    occupied = np.zeros((60, 60), bool)
    occupied[30, 10:50] = True  # a wall along y at x = 0.05
    cost = walking_cost(occupied, np.ones((60, 60), bool), 0.1, 0.1)
    field = remaining(cost, at(60, (42, 30)), 0.1)
    agent = np.array([x, y, heading])
    if not np.isfinite(steering.left_over(field, agent[None, :2])[0]):
        return
    for _ in range(150):
        turns = steering.towards(field, agent)
        if turns is None:
            break
        if turns:
            agent[2] += math.copysign(steering.turn, turns)
        else:
            agent[:2] += 0.25 * np.array([math.cos(agent[2]), math.sin(agent[2])])
            assert not occupied[tuple(steering.cell(agent[:2]))]
    assert np.linalg.norm(agent[:2] - steering.centres(np.array([42, 30]))) < 0.3


@settings(max_examples=40, deadline=None)
@given(st.floats(0.15, 0.5), st.floats(-3.1, 3.1))
def test_a_near_point_is_reached_in_the_steps_that_were_planned(away, bearing):
    steering, near = Steering(0.25, math.radians(30), 60, 0.1), 0.18
    point, agent = away * np.array([math.cos(bearing), math.sin(bearing)]), np.zeros(3)
    forward = 0
    for _ in range(20):
        if np.linalg.norm(point - agent[:2]) < near:
            break
        turns = steering.to_point(point, agent, near)
        assert turns is not None
        if turns:
            agent[2] += math.copysign(steering.turn, turns)
        else:
            agent[:2] += 0.25 * np.array([math.cos(agent[2]), math.sin(agent[2])])
            forward += 1
    assert np.linalg.norm(point - agent[:2]) < near and forward <= 2
    assert steering.to_point(np.array([3.0, 0.0]), np.zeros(3), near) is None


def test_the_way_of_a_field_goes_down_to_the_goal_and_nowhere_from_where_there_is_none():
    cost = np.ones((6, 6))
    cost[:5, 3] = np.inf
    field = remaining(cost, at(6, (0, 5)), 1.0)
    way = descend(field, (0, 0))
    assert way[0].tolist() == [0, 0] and way[-1].tolist() == [0, 5]
    assert (np.abs(np.diff(way, axis=0)).max(1) == 1).all() and (np.diff(field[tuple(way.T)]) < 0).all()
    assert descend(field, (0, 3)).tolist() == [[0, 3]]
