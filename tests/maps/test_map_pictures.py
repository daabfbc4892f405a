"""Pictures of maps show each cell where it lies, in what the map says of it."""

import numpy as np
import pytest
import torch

from embodied.drawing import FLOOR, FRONTIER, UNKNOWN, category_colours
from maps.frontier import FrontierFinder
from maps.objects import ObjectMap
from maps.occupancy import OccupancyMap
from maps.pictures import BLOCKED, MapPicture, cell_colours, cloud_of, feature_colours, from_above
from maps.smnet import SMNet
from maps.value import ValueMap
from maps.voxels import VoxelMap

AROUND = {"size": 60, "window": 16, "patch": 8}


def a_memory(grid, agent=(0.0, 0.0, 0.0)):
    memory = grid.begin(2)
    memory["agent"][1] = torch.tensor(agent)
    return memory


def an_occupancy(classes=0, agent=(0.0, 0.0, 0.0)):
    """Slot 1: free from x -1 to 2 and y -1 to 1, a wall at x 2; slot 0 knows nothing."""
    grid = OccupancyMap(8, classes=classes, surroundings=AROUND)
    memory = a_memory(grid, agent)
    looked, points = torch.zeros(60, 60, dtype=torch.bool), torch.zeros(60, 60, dtype=torch.int32)
    looked[20:51, 20:40] = True
    points[50, 20:40] = 3
    memory["looked"][1], memory["points"][1] = looked.flatten(), points.flatten()
    return grid, memory


def pixel(picture, place, across=8.0, middle=(0.0, 0.0)):
    """The plan's x axis points up and its y axis to the left."""
    side = len(picture)
    row = int(side / 2 - (place[0] - middle[0]) / across * side)
    column = int(side / 2 - (place[1] - middle[1]) / across * side)
    return tuple(picture[row, column])


def test_free_occupied_and_unknown_cells_are_where_they_lie():
    grid, memory = an_occupancy(agent=(-0.5, -0.5, 0.0))
    picture = MapPicture(256, least=8).draw(grid, memory, 1)
    middle = (1.0, 0.0)  # of what is known, -1 to 2.1 and -1 to 1, widened to steps of 2 metres: -2 to 4, -2 to 2
    assert pixel(picture, (1.55, 0.55), middle=middle) == FLOOR
    assert pixel(picture, (2.05, 0.55), middle=middle) == BLOCKED
    for nowhere in ((2.35, 0.5), (1.5, 1.3), (1.5, -1.3), (-1.3, 0.5)):
        assert pixel(picture, nowhere, middle=middle) == UNKNOWN
    empty = MapPicture(64).draw(grid, memory, 0)
    assert pixel(empty, (2.0, 2.0)) == UNKNOWN


def test_an_egocentric_picture_has_the_agent_in_its_middle_looking_up():
    grid, memory = an_occupancy(agent=(1.0, 0.0, 0.0))
    picture = MapPicture(256, least=4, egocentric=True).draw(grid, memory, 1)
    assert pixel(picture, (1.05, 0.3), across=4) == BLOCKED  # the wall is a metre ahead
    memory["agent"][1] = torch.tensor([1.0, 0.0, np.pi / 2])
    turned = MapPicture(256, least=4, egocentric=True).draw(grid, memory, 1)
    assert pixel(turned, (0.3, -1.05), across=4) == BLOCKED  # and now to the right
    assert pixel(turned, (1.3, 0.0), across=4) == UNKNOWN


def test_categories_have_the_palettes_colours():
    grid, memory = an_occupancy(classes=41)
    labels = memory["labels"].view(2, 60, 60, 41)
    labels[1, 50, 20:30, 10] = 2
    colours = cell_colours(grid, memory, 1)
    assert (colours[50, 20:30, :3] == category_colours()[10]).all() and (colours[50, 30:40, :3] == BLOCKED).all()
    assert (colours[20:50, 20:40, :3] == FLOOR).all() and (colours[..., 3] > 0).sum() == 31 * 20


def test_frontiers_are_outlined_and_the_way_walked_is_blue():
    grid, memory = an_occupancy(agent=(1.0, 0.0, 0.0))
    frontiers = FrontierFinder().find(grid, memory, 1)
    walked = np.array([[-0.5, 0.0], [0.0, 0.0], [1.0, 0.0]])
    plain = MapPicture(256).draw(grid, memory, 1)
    picture = MapPicture(256).draw(grid, memory, 1, walked=walked, frontiers=frontiers)
    assert frontiers and (plain == FRONTIER).all(-1).sum() == 0 < (picture == FRONTIER).all(-1).sum()
    for cell in frontiers[0].cells[::7]:
        x, y = (cell + 0.5 - 30) * 0.1
        red, green, blue = (int(v) for v in pixel(picture, (x, y), middle=(1.0, 0.0)))
        assert red > green > blue
    red, green, blue = (int(v) for v in pixel(picture, (0.5, 0.0), middle=(1.0, 0.0)))
    assert blue > red + 60


def test_values_are_deeper_where_they_are_higher_and_lie_below_obstacles():
    grid, memory = an_occupancy()
    values = ValueMap(8, surroundings=AROUND)
    worth = a_memory(values)
    worth["confidence"].view(2, 60, 60)[1, 20:40, 20:51] = 1.0
    worth["value"].view(2, 60, 60)[1] = torch.linspace(0, 1, 60)[:, None]
    colours = cell_colours(values, worth, 1)
    light = colours[20:40, 25, :3].astype(int).sum(-1)
    assert (np.diff(light) < 0).all() and (colours[..., 3] > 0).sum() == 20 * 31
    picture = MapPicture(256).draw(grid, memory, 1, values=(values, worth))
    assert pixel(picture, (2.05, 0.55), middle=(1.0, 1.0)) == BLOCKED
    assert pixel(picture, (0.55, 1.55), middle=(1.0, 1.0)) == tuple(colours[35, 45, :3])


def test_a_decoded_map_shows_the_likeliest_category_of_what_was_seen():
    torch.manual_seed(0)
    grid = SMNet(8, 4, classes=41, memory=6, surroundings=AROUND).eval()
    memory = a_memory(grid)
    memory["state"][1] = torch.randn_like(memory["state"][1])
    memory["seen"].view(2, 60, 60)[1, 10:30, 5:20] = True
    colours = cell_colours(grid, memory, 1)
    with torch.no_grad():
        told = grid.decode(memory["state"])[1].argmax(0)
    assert (colours[10:30, 5:20, :3] == category_colours()[told[10:30, 5:20]]).all()
    assert (colours[..., 3] > 0).sum() == 20 * 15


def test_the_highest_point_of_a_cell_is_seen_from_above():
    places = np.array([[0.05, 0.05, 0.2], [0.06, 0.04, 1.0], [0.05, 0.05, 0.5], [-0.35, 0.95, 0.1], [99.0, 0, 0]])
    colours = np.arange(15).reshape(5, 3).astype(np.uint8)
    picture = from_above(places, colours, 20, 0.1)
    assert tuple(picture[10, 10]) == (3, 4, 5, 255) and tuple(picture[6, 19]) == (9, 10, 11, 255)
    assert (picture[..., 3] > 0).sum() == 2


def test_a_cloud_lies_where_the_poses_are_and_keeps_colours():
    grid = VoxelMap(8, 3, surroundings=AROUND)
    memory = grid.begin(1)
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # looks along +x
    pose[:3, 3] = torch.tensor([7.0, -3.0, 5.0])
    colour = torch.tensor([0.2, 0.4, 1.0])
    grid.update(
        memory,
        {
            "observation.depth.front": torch.full((1, 9, 9), 2.0),
            "observation.pose": pose[None],
            "observation.features.front": colour.view(1, 3, 1, 1).expand(1, 3, 9, 9),
        },
    )
    places, colours = cloud_of(grid, memory)
    assert places.dtype == np.float32 and len(places) > 20
    np.testing.assert_allclose(places[:, 0], 9.0, atol=0.06)  # two metres ahead of x = 7
    np.testing.assert_allclose(places[:, 1], -3.0, atol=2.1)
    assert (np.abs(places[:, 2] - 5.0) < 2.1).all()
    assert (colours == [51, 102, 255]).all()
    picture = cell_colours(grid, memory, 0)
    assert (picture[picture[..., 3] > 0][:, :3] == [51, 102, 255]).all()


def test_alike_features_look_alike():
    rng = np.random.default_rng(0)
    two = rng.normal(size=(2, 16))
    features = np.concatenate(
        [two[[0]] + 0.01 * rng.normal(size=(30, 16)), two[[1]] + 0.01 * rng.normal(size=(30, 16))]
    )
    colours = feature_colours(features).astype(int)
    near = np.abs(colours[:30] - colours[:30].mean(0)).max()
    assert near < 15 < 40 < np.abs(colours[:30].mean(0) - colours[30:].mean(0)).max()


def test_what_is_no_plan_and_no_picture_is_refused():
    grid = ObjectMap(8, surroundings=AROUND)
    with pytest.raises(ValueError, match="ObjectMap is not drawn as cells of the plan"):
        MapPicture().draw(grid, grid.begin(1))
    with pytest.raises(ValueError, match="MapPicture: height=4, least=8"):
        MapPicture(4)
