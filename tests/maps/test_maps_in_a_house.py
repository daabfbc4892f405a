"""Maps made in a generated house agree with it: obstacles, free space, categories, boxes of objects, where one is."""

import importlib.util
import math
import os

import numpy as np
import pytest
import torch

from embodied.interaction import stack
from envs.house.generate import generate
from envs.house.renderer import Renderer
from envs.house.simulator import AgentState, Body, camera_pose
from envs.house.tasks.pointnav import PointNav
from maps.geometry import camera_pose as our_pose
from maps.geometry import unproject
from maps.objects import ObjectMap
from maps.occupancy import OccupancyMap

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true", reason="numba is not installed"
)
EYE = 1.25


@pytest.fixture(scope="module")
def tour():
    """A house's scene, and what a camera sees that turns around in the middle of three rooms."""
    house = generate(3)
    renderer = Renderer(house, 48, 64, 90)
    states = [
        AgentState((room.bounds[0] + room.bounds[2]) / 2, (room.bounds[1] + room.bounds[3]) / 2, turn * math.pi / 4)
        for room in house.rooms[:3]
        for turn in range(8)
    ]
    seen = renderer.render(np.array([[s.x, s.y, EYE, s.heading, s.pitch] for s in states], np.float32))
    steps = {
        "observation.depth.front": seen["depth"],
        "observation.pose": np.stack([camera_pose(state, EYE) for state in states]),
        "observation.semantic.front": seen["semantic"].astype(np.int64),
        "observation.instance.front": seen["instance"].astype(np.int64),
        "observation.images.front": seen["rgb"],
    }
    return renderer.scene, {key: torch.from_numpy(value)[None] for key, value in steps.items()}


def test_poses_are_the_simulators():
    for x, y, heading, pitch in ((1.0, 2.0, 0.7, 0.0), (-3.0, 0.5, -2.0, 0.4)):
        ours = our_pose(*(torch.tensor(v) for v in (x, y, EYE, heading, pitch)))
        torch.testing.assert_close(ours, torch.from_numpy(camera_pose(AgentState(x, y, heading, pitch), EYE)))


def test_every_pixel_lies_on_a_surface():
    """Whatever the simulator's depth shows, unprojected, lies on the floor, the ceiling or some part of the house."""
    house = generate(3)
    renderer = Renderer(house, 24, 32, 90, ("depth",))
    boxes = torch.from_numpy(renderer.scene.bounds)
    x0, y0, x1, y1 = house.rooms[0].bounds
    for heading, pitch in ((0.7, 0.0), (2.5, -0.5), (-2.0, 0.4)):
        camera = np.array([[(x0 + x1) / 2, (y0 + y1) / 2, 1.25, heading, pitch]], np.float32)
        depth = torch.from_numpy(renderer.render(camera)["depth"])
        points = unproject(depth, our_pose(*torch.from_numpy(camera).unbind(1)), 90).view(-1, 1, 3)
        to_box = (torch.maximum(boxes[:, :3] - points, points - boxes[:, 3:])).clamp(min=0).norm(dim=-1).amin(1)
        to_plane = torch.minimum(points[:, 0, 2].abs(), (points[:, 0, 2] - house.height).abs())
        assert torch.minimum(to_box, to_plane).max() < 2e-3
        assert (to_plane > 0.1).any()


def away_from(boxes, places):
    """(N, K) metres in the plan from places to boxes; negative inside."""
    low, high = boxes[:, :2] - places[:, None], places[:, None] - boxes[:, 3:5]
    gap = torch.maximum(low, high)
    return torch.where((gap > 0).any(-1), gap.clamp(min=0).norm(dim=-1), gap.amax(-1))


def test_obstacles_free_space_and_categories_are_the_houses(tour):
    scene, steps = tour
    grid = OccupancyMap(8, classes=42, surroundings={"size": 300})
    memory = grid.read(steps)
    boxes = torch.from_numpy(scene.bounds)
    solid = (boxes[:, 5] > 0.15) & (boxes[:, 2] < 1.75)
    occupied = grid.occupied(memory)[0].flatten().nonzero().squeeze(1)
    away = away_from(boxes[solid], grid.to_world(memory, 0, grid.grid.centres(occupied)))
    half_a_cell = 0.1 * math.sqrt(0.5) + 2e-3
    assert len(occupied) > 500 and away.amin(1).max() < half_a_cell
    category = grid.categories(memory)[0].flatten()[occupied]
    semantic = torch.from_numpy(scene.semantic[: scene.parts].astype(np.int64))[solid]
    assert ((away < half_a_cell) & (semantic == category.unsqueeze(1))).any(1).float().mean() > 0.999
    free = grid.free(memory)[0].flatten().nonzero().squeeze(1)
    inside = away_from(boxes[: scene.walls], grid.to_world(memory, 0, grid.grid.centres(free))).amin(1)
    assert len(free) > 2000 and (inside < -0.05).float().mean() < 0.01


def test_boxes_of_objects_lie_in_the_houses_objects(tour):
    scene, steps = tour
    map_ = ObjectMap(8, objects=200, points=8, new_points=4, surroundings={"size": 300, "far": 20.0, "ceiling": 9.0})
    memory = map_.read(steps)
    boxes, present = map_.boxes(memory, memory.rows())
    bounds, instance = torch.from_numpy(scene.bounds), torch.from_numpy(scene.instance[: scene.parts].astype(np.int64))
    compared = 0
    for place in present[0].nonzero().squeeze(1).tolist():
        parts = bounds[instance == memory["name"][0, place]]
        if not len(parts):
            continue  # a floor or a ceiling
        middle, size = boxes[0, place, :3], boxes[0, place, 3:]
        middle = torch.cat([map_.to_world(memory, 0, middle[:2]), middle[2:]])
        assert (middle - size / 2 >= parts[:, :3].amin(0) - 5e-3).all()
        assert (middle + size / 2 <= parts[:, 3:].amax(0) + 5e-3).all()
        compared += 1
    assert compared > 10


def test_an_environments_observations_are_read_as_they_come():
    env = PointNav(Body(height=32, width=32, outputs=("rgb", "depth", "semantic", "instance")))
    observation, _ = env.reset(seed=4)
    grid = OccupancyMap(8, classes=42)
    memory, explored = grid.begin(1), []
    turn = env.embodiment.action.names.index("turn_left")
    ahead = env.embodiment.action.names.index("move_forward")
    for action in [ahead] + [turn] * 4 + [ahead] * 3:
        grid.update(memory, stack([observation]))
        explored.append(int(grid.explored(memory).sum()))
        # the pose is relative to the start, and so is the state's GPS: metres ahead and to the left
        assert memory["agent"][0, :2].tolist() == pytest.approx(observation["observation.state"][:2].tolist(), abs=1e-4)
        cosine, sine = observation["observation.state"][2:4]
        assert memory["agent"][0, 2].item() == pytest.approx(math.atan2(sine, cosine), abs=1e-4)
        observation, *_ = env.step(np.array([action]))
    assert explored == sorted(explored) and explored[-1] > explored[0]
