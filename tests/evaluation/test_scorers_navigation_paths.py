"""Lengths, SPL, SoftSPL, warping and coverage are what their definitions say."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.evaluation.scorers.navigation import paths

coordinate = st.integers(-20, 20).map(lambda n: n / 4)
points = st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=1, max_size=7).map(np.array)
metres = st.floats(0, 100)
FASTDTW = 1177.2822439798356  # of fastdtw 0.3.4: fastdtw(one, other, radius=1, dist=euclidean)[0]


def alignments(costs):
    """The cheapest of all monotone alignments, each one followed to its end."""
    rows, columns = len(costs), len(costs[0])

    @cache
    def best(i, j):
        ways = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        before = [best(a, b) for a, b in ways if a >= 0 and b >= 0]
        return costs[i][j] + (min(before) if before else 0.0)

    return best(rows - 1, columns - 1)


def every_alignment(costs, i=0, j=0):
    """The same by listing them, without remembering anything."""
    if i == len(costs) - 1 and j == len(costs[0]) - 1:
        return costs[i][j]
    ways = [(i + 1, j), (i, j + 1), (i + 1, j + 1)]
    return costs[i][j] + min(every_alignment(costs, a, b) for a, b in ways if a < len(costs) and b < len(costs[0]))


@given(points, points)
@settings(max_examples=60, deadline=None)
def test_warping_is_the_cheapest_of_all_alignments(one, other):
    costs = paths.straight(one, other)
    assert paths.warping(costs) == pytest.approx(alignments(costs.tolist()))
    if len(one) * len(other) <= 20:
        assert paths.warping(costs) == pytest.approx(every_alignment(costs.tolist()))


@given(points, points)
@settings(max_examples=60, deadline=None)
def test_warping_is_symmetric_and_the_same_backwards_and_elsewhere(one, other):
    cost = paths.warping(paths.straight(one, other))
    assert paths.warping(paths.straight(other, one)) == pytest.approx(cost)
    assert paths.warping(paths.straight(one[::-1], other[::-1])) == pytest.approx(cost)
    moved = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert paths.warping(paths.straight(one @ moved + 3, other @ moved + 3)) == pytest.approx(cost)


@given(points, points)
@settings(max_examples=60, deadline=None)
def test_fast_warping_is_never_below_the_exact_one_and_equal_for_short_or_equal_paths(one, other):
    exact = paths.warping(paths.straight(one, other))
    assert paths.fast_warping(one, other) >= exact - 1e-9
    assert paths.fast_warping(one, one) == pytest.approx(0)
    if min(len(one), len(other)) < 3:
        assert paths.fast_warping(one, other) == pytest.approx(exact)
    assert paths.fast_warping(one, other, radius=9) == pytest.approx(exact)


def test_fast_warping_of_long_paths_is_close_and_as_the_package_has_it():
    draw = np.random.default_rng(0)
    one, other = (np.cumsum(draw.normal(size=(n, 3)), axis=0) for n in (157, 90))
    fast, exact = paths.fast_warping(one, other), paths.warping(paths.straight(one, other))
    assert exact <= fast < 1.5 * exact
    assert fast == pytest.approx(FASTDTW, abs=1e-6)


@given(points)
@settings(max_examples=40, deadline=None)
def test_a_path_is_like_itself(one):
    costs, long = paths.straight(one, one), paths.length(one)
    assert paths.similarity(paths.warping(costs), len(one), 3.0) == 1
    assert paths.coverage(costs, long, long, 3.0) == pytest.approx(1)


@given(points, points)
@settings(max_examples=40, deadline=None)
def test_similarity_and_coverage_are_fractions(one, other):
    costs = paths.straight(one, other)
    assert 0 <= paths.similarity(paths.warping(costs), len(other), 3.0) <= 1
    assert 0 <= paths.coverage(costs, paths.length(one), paths.length(other), 3.0) <= 1


def test_a_case_by_hand():
    # reference 0, 4, 8 m on a line; the path stops at 4 m: the end is 4 m away, alignment 0 + 0 + 4
    costs = np.array([[0.0, 4.0, 8.0], [4.0, 0.0, 4.0]])
    assert paths.warping(costs) == 4
    assert paths.similarity(4, 3, 3.0) == pytest.approx(math.exp(-4 / 9))
    covered = (1 + 1 + math.exp(-4 / 3)) / 3
    expected = 8 * covered
    score = expected / (expected + abs(expected - 4))
    assert paths.coverage(costs, 4, 8, 3.0) == pytest.approx(covered * score)


@given(metres, metres)
def test_efficiency_is_a_fraction_and_one_only_for_the_shortest_way(shortest, taken):
    value = paths.efficiency(shortest, taken)
    assert 0 <= value <= 1
    assert (value == 1) == (taken <= shortest)
    if shortest >= 0.01:
        assert paths.efficiency(shortest, taken, least=0.01) == value


def test_at_the_goal_already():
    assert paths.efficiency(0, 0) == 1 and paths.efficiency(0, 1) == 0
    assert paths.efficiency(0, 0, least=0.01) == 0  # as the scorers of DUET's family have it
    assert paths.soft_success(0, 0) == 1 and paths.soft_success(0, 1) == 0


def test_soft_success_is_the_share_of_the_way_that_is_gone_and_never_negative():
    assert paths.soft_success(10, 2.5) == 0.75
    assert paths.soft_success(10, 30) == 0


def test_lengths_and_repeats():
    track = np.array([[0, 0, 0], [3, 4, 0], [3, 4, 0], [3, 4, 12]], dtype=float)
    assert paths.length(track) == 17 and paths.length(track[:1]) == 0
    assert paths.without_repeats(track).tolist() == track[[0, 1, 3]].tolist()
    assert paths.walked(paths.straight(track, track), np.array([0, 1, 1, 3])) == 17
