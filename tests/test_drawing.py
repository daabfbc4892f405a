"""What is drawn lies where it should, at any turn of the plan, and edges are smooth."""

import math

import numpy as np
import pytest

from embodied.drawing import AGENT, Canvas, category_colours, shades

RED, BLUE, WHITE = (200, 0, 0), (0, 0, 200), (255, 255, 255)


def at(canvas: Canvas, picture: np.ndarray, place) -> tuple[int, ...]:
    column, row = np.floor(canvas.to_pixels(np.array(place))).astype(int)
    return tuple(picture[row, column])


@pytest.mark.parametrize("up", [math.pi / 2, 0.0, -2.2])
def test_places_are_where_geometry_puts_them(up):
    """The picture's axes from the definition of `up`: right is up turned clockwise by a quarter."""
    canvas = Canvas((3.0, -1.0), (6.0, 4.0), height=200, up=up, ground=WHITE)
    assert canvas.size == (300, 200)
    ahead, right = np.array([math.cos(up), math.sin(up)]), np.array([math.sin(up), -math.cos(up)])
    for forward, aside in ((0, 0), (1.5, 0), (0, 2.5), (-1.2, -2.0)):
        place = np.array([3.0, -1.0]) + forward * ahead + aside * right
        np.testing.assert_allclose(canvas.to_pixels(place), [150 + 50 * aside, 100 - 50 * forward], atol=1e-9)
        canvas.disc(place, 0.1, RED)
    picture = canvas.picture()
    assert picture.shape == (200, 300, 3) and picture.dtype == np.uint8
    for forward, aside in ((1.5, 0), (0, 2.5), (-1.2, -2.0)):
        assert tuple(picture[int(100 - 50 * forward), int(150 + 50 * aside)]) == RED
    red = (picture == RED).all(-1).sum()
    assert red == pytest.approx(4 * math.pi * 5**2, rel=0.25)  # four discs of 0.1 m = 5 pixels


@pytest.mark.parametrize("up", [math.pi / 2, 0.0, 0.7])
def test_cells_of_a_grid_lie_under_their_places(up):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (12, 10, 4)).astype(np.uint8)
    colours[..., 3] = np.where(rng.random((12, 10)) < 0.7, 255, 0)
    canvas = Canvas((1.0, 2.0), (5.0, 5.0), height=250, up=up, ground=WHITE)
    canvas.cells(colours, 0.5, middle=(1.5, 1.0))
    picture = canvas.picture()
    seen = 0
    for i in range(12):
        for j in range(10):
            place = np.array([1.5 + (i + 0.5 - 6) * 0.5, 1.0 + (j + 0.5 - 5) * 0.5])
            column, row = canvas.to_pixels(place)
            if 0 <= column < 250 and 0 <= row < 250:
                assert at(canvas, picture, place) == (tuple(colours[i, j, :3]) if colours[i, j, 3] else WHITE)
                seen += 1
    assert seen > 50
    assert at(canvas, picture, (1.0, 4.0)) == WHITE  # beyond the grid's edge at 3.5


def test_edges_are_smooth():
    canvas = Canvas((0, 0), (2, 2), 64, ground=WHITE)
    canvas.disc(np.zeros(2), 0.5, (0, 0, 0))
    levels = np.unique(canvas.picture()[..., 0])
    assert len(levels) > 3 and levels[0] == 0 and levels[-1] == 255


def test_a_copy_is_drawn_on_apart():
    canvas = Canvas((0, 0), (2, 2), 32, ground=WHITE)
    twin = canvas.copy()
    twin.rectangle((-1, -1, 1, 1), BLUE)
    assert (canvas.picture() == 255).all() and (twin.picture() == BLUE).all()


def test_the_agent_points_where_it_looks():
    for heading in (0.0, 2.0, -1.0):
        canvas = Canvas((0, 0), (2, 2), 128, ground=WHITE)
        canvas.agent(np.zeros(2), heading, size=30)
        red = np.argwhere((np.abs(canvas.picture().astype(int) - AGENT) < 8).all(-1)) - 63.5
        ahead = red[:, 1] * math.cos(heading) - red[:, 0] * math.sin(heading)  # rows run down, north is up
        aside = red[:, 1] * math.sin(heading) + red[:, 0] * math.cos(heading)
        assert 12 < ahead.max() < 16 and -12 < ahead.min() < -8
        assert np.abs(aside[ahead > 10]).max() < 2.5 and abs(aside.mean()) < 0.5 and np.ptp(aside) > 14


def test_a_broken_line_covers_about_half_of_its_way():
    canvas = Canvas((0, 0), (2, 2), 256, ground=WHITE)
    canvas.dashes(np.array([[-0.9, 0.0], [0.0, 0.0], [0.9, 0.0]]), BLUE, width=4, dash=6)
    row = (canvas.picture()[128, 14:242] == BLUE).all(-1)
    assert 0.35 < row.mean() < 0.65 and np.abs(np.diff(row.astype(int))).sum() > 10


def test_categories_are_told_apart_and_walls_are_dark():
    colours = category_colours(41).astype(int)
    furniture = [k for k in range(41) if k not in (0, 1, 2, 17)]
    gaps = np.abs(colours[furniture][:, None] - colours[furniture][None]).sum(-1)
    assert gaps[~np.eye(len(furniture), dtype=bool)].min() > 0
    assert colours[1].mean() < 100 < colours[furniture].mean(1).min() and colours[2].mean() > 240


def test_shades_go_from_pale_to_deep():
    light = shades(np.linspace(-1, 3, 20), 0, 2).astype(int).sum(-1)
    assert (np.diff(light) <= 0).all() and light[0] > 600 > 250 > light[-1]


def test_a_picture_without_extent_is_refused():
    with pytest.raises(ValueError, match=r"a picture of \(0, 1\) metres and 64 pixels has no extent"):
        Canvas((0, 0), (0, 1), 64)
