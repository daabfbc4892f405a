"""Pixels land where a hand-made scene says, frames invert, and reductions equal loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maps.geometry import (
    OPTICAL,
    Grid,
    bilinear,
    camera_pose,
    heading_of,
    highest,
    rays,
    scatter_max,
    scatter_mean,
    scatter_softmax,
    to_allocentric,
    to_egocentric,
    unproject,
)


def at(x, y, z, heading, pitch=0.0):
    return camera_pose(*(torch.tensor([float(v)]) for v in (x, y, z, heading, pitch)))


def test_the_middle_of_the_picture_is_straight_ahead():
    for heading, expected in ((0.0, (4.0, 2.0)), (math.pi / 2, (1.0, 5.0)), (math.pi, (-2.0, 2.0))):
        points = unproject(torch.full((1, 3, 3), 3.0), at(1, 2, 1.25, heading), 90)
        assert points[0, 1, 1].tolist() == pytest.approx([*expected, 1.25], abs=1e-5)


def test_rows_go_down_and_columns_go_right():
    points = unproject(torch.full((1, 2, 2), 2.0), at(0, 0, 0, 0), 90)[0]
    # focal length 1 pixel: half a pixel is half a depth, and +y is to the left of +x
    assert points[0, 0].tolist() == pytest.approx([2.0, 1.0, 1.0])
    assert points[1, 1].tolist() == pytest.approx([2.0, -1.0, -1.0])


def test_looking_up_sees_higher():
    point = unproject(torch.full((1, 1, 1), 2.0), at(0, 0, 1, 0, math.pi / 6), 90)[0, 0, 0]
    assert point.tolist() == pytest.approx([2 * math.cos(math.pi / 6), 0, 1 + 1.0], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(heading=st.floats(-3.0, 3.0), pitch=st.floats(-1.0, 1.0))
def test_a_pose_is_a_rotation_that_tells_its_heading(heading, pitch):
    pose = at(1, 2, 3, heading, pitch)[0]
    turn = pose[:3, :3]
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.det(turn) == pytest.approx(1, abs=1e-5)
    assert heading_of(pose) == pytest.approx(heading, abs=1e-5)


def test_a_robots_base_becomes_a_camera():
    base = torch.eye(4)
    base[:3, 3] = torch.tensor([1.0, 2.0, 3.0])  # looks along +x, its left is +y
    torch.testing.assert_close(base @ OPTICAL, at(1, 2, 3, 0.0)[0])


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(-5, 5)] * 3), st.tuples(*[st.floats(-5, 5)] * 2))
def test_egocentric_and_allocentric_undo_each_other(agent, place):
    agent, place = torch.tensor([agent]), torch.tensor([[place]])
    torch.testing.assert_close(to_allocentric(to_egocentric(place, agent), agent), place, atol=1e-4, rtol=0)


def test_left_of_an_agent_that_looks_north_is_west():
    ego = to_egocentric(torch.tensor([[-1.0, 2.0]]), torch.tensor([0.0, 0.0, math.pi / 2]))
    assert ego[0].tolist() == pytest.approx([2.0, 1.0], abs=1e-6)


def test_a_cells_centre_is_in_the_cell_and_far_places_are_in_none():
    grid = Grid(7, 0.25)
    index = torch.arange(grid.cells)
    back, inside = grid.index(grid.centres(index))
    assert torch.equal(back, index) and inside.all()
    index, inside = grid.index(torch.tensor([[0.0, 0.0], [0.88, 0.0], [0.0, -0.88]]))
    assert inside.tolist() == [True, False, False] and index[0] == 3 * 7 + 3


def test_features_at_pixels_are_those_of_the_upsampled_picture():
    torch.manual_seed(0)
    features = torch.randn(2, 5, 3, 4)
    whole = torch.nn.functional.interpolate(features, (12, 16), mode="bilinear", align_corners=True)
    rows, columns = torch.randint(12, (2, 9)), torch.randint(16, (2, 9))
    found = bilinear(features, rows, columns, 12, 16)
    for image in range(2):
        torch.testing.assert_close(found[image], whole[image, :, rows[image], columns[image]].T)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=1, max_size=20))
def test_reductions_are_those_of_a_loop(entries):
    index = torch.tensor([i for i, _ in entries])
    values = torch.tensor([float(v) for _, v in entries])
    groups, winners = highest(values, index)
    by_cell: dict[int, list[int]] = {}
    for n, (i, _) in enumerate(entries):
        by_cell.setdefault(i, []).append(n)
    assert groups.tolist() == sorted(by_cell)
    for cell, winner in zip(groups.tolist(), winners.tolist(), strict=True):
        assert winner == max(by_cell[cell], key=lambda n: (entries[n][1], -n))
    shares, best, mean = (
        scatter_softmax(values, index, 6),
        scatter_max(values, index, 6),
        scatter_mean(values, index, 6),
    )
    for cell, members in by_cell.items():
        expected = torch.softmax(values[members], 0)
        torch.testing.assert_close(shares[members], expected)
        assert best[cell] == values[members].max()
        torch.testing.assert_close(mean[cell], values[members].mean())
    assert best[5] == -math.inf and mean[5] == 0


def test_gradients_of_the_scatter_softmax_are_those_of_the_softmax():
    torch.manual_seed(0)
    scores = torch.randn(6, dtype=torch.double, requires_grad=True)
    index = torch.tensor([0, 1, 0, 2, 1, 0])
    assert torch.autograd.gradcheck(lambda s: scatter_softmax(s, index, 3), scores)


def test_rays_are_one_deep():
    assert (rays(4, 6, 70)[..., 2] == 1).all()
    assert rays(4, 6, 90)[0, 0].tolist() == pytest.approx([-5 / 6, -3 / 6, 1])
