"""The occupancy grid says what a wall, a table and a hand-made scene are, and nothing of what wasn't seen."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from maps.geometry import camera_pose, rays
from maps.occupancy import OccupancyMap

WALL = 3.05


def wall_ahead(heading=0.0, x=0.0, y=0.0, side=9, wall=WALL, eye=1.25):
    """What a camera in front of a flat wall sees: the wall, or the floor or ceiling (2.5 m) before it."""
    up = -rays(side, side, 90)[..., 1]
    plane = torch.where(up < 0, -eye / up.clamp(max=-1e-6), 1.25 / up.clamp(min=1e-6))
    depth = torch.minimum(plane, torch.tensor(wall))
    pose = camera_pose(*(torch.tensor(float(v)) for v in (x, y, eye, heading)))
    return {"observation.depth.front": depth[None], "observation.pose": pose[None]}


def benchmark():
    script = Path(__file__).parents[2] / "benchmarks/map_update.py"
    spec = importlib.util.spec_from_file_location("map_update", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_map(**settings):
    torch.manual_seed(0)
    own = {key: settings.pop(key) for key in ("classes", "hits") if key in settings}
    around = {"size": 80, "resolution": 0.1, "window": 32, "patch": 8} | settings
    return OccupancyMap(16, **own, surroundings=around)


def test_a_wall_is_where_it_stands_and_before_it_is_free():
    grid = a_map()
    memory = grid.begin(1)
    grid.update(memory, wall_ahead(side=65))
    occupied, free = grid.occupied(memory)[0], grid.free(memory)[0]
    xs = occupied.nonzero()[:, 0].unique().tolist()
    assert xs == [40 + 30]  # 3.05 m ahead of the middle, in cells of 0.1 m
    assert occupied[70, 20:60].all()
    assert free[41:70, 40].all() and not free[71:].any()
    assert not grid.explored(memory)[0, :39].any()  # behind the camera


def test_turning_turns_the_wall():
    grid = a_map()
    memory = grid.begin(1)
    grid.update(memory, wall_ahead(math.pi / 2, side=65))
    assert grid.occupied(memory)[0].nonzero()[:, 1].unique().tolist() == [70]


def test_the_floor_is_no_obstacle_and_neither_is_the_ceiling():
    grid = a_map(far=20.0)
    memory = grid.begin(1)
    grid.update(memory, wall_ahead(wall=50.0, side=33))
    assert not grid.occupied(memory).any() and grid.free(memory).any()


def test_it_is_what_a_loop_over_pixels_and_cells_finds():
    torch.manual_seed(1)
    grid = a_map(classes=5, size=40, far=3.0, hits=2)
    memory = grid.begin(2)
    depth, labels = torch.rand(2, 6, 7) * 4, torch.randint(5, (2, 6, 7))
    pose = camera_pose(*torch.tensor([[0.3, 9.0], [0.1, 2.0], [1.25, 1.25], [0.5, -2.0]]))
    observation = {
        "observation.depth.front": depth, "observation.pose": pose, "observation.semantic.front": labels,
    }  # fmt: skip
    grid.update(memory, observation)
    grid.update(memory, observation)
    for row in range(2):
        loop = benchmark().CellByCell(grid)
        for _ in range(2):
            loop.update(depth[row].tolist(), pose[row].tolist(), labels[row].tolist())
        assert loop.occupied == {tuple(cell) for cell in grid.occupied(memory)[row].nonzero().tolist()}
        assert loop.free == {tuple(cell) for cell in grid.free(memory)[row].nonzero().tolist()}
        for (i, j), counts in loop.labels.items():
            assert memory["labels"][row, i * 40 + j].tolist() == counts


def test_the_category_of_a_cell_is_what_most_points_say():
    grid = a_map(classes=3)
    memory = grid.begin(1)
    seen = wall_ahead(side=65)
    labels = torch.full((1, 65, 65), 2)
    labels[:, ::5] = 1
    grid.update(memory, seen | {"observation.semantic.front": labels})
    categories = grid.categories(memory)[0]
    assert (categories[70, 25:55] == 2).all() and (categories[:70] == -1).all()


def test_slots_are_episodes_of_their_own():
    grid = a_map()
    both, one = grid.begin(2), grid.begin(1)
    grid.update(both, wall_ahead(), [1])
    assert not grid.explored(both)[0].any()
    grid.update(one, wall_ahead())
    assert torch.equal(grid.explored(both)[1], grid.explored(one)[0])
    grid.update(both, wall_ahead(1.0), [0])
    both.reset([1])
    assert grid.explored(both)[0].any() and not grid.explored(both)[1].any()
    grid.update(both, wall_ahead(x=7.0), [1])  # a new episode has a new middle
    assert torch.equal(grid.explored(both)[1], grid.explored(one)[0])


def test_where_the_house_stands_changes_nothing():
    grid = a_map()
    here, there = grid.begin(1), grid.begin(1)
    for turn in (0.0, 0.4):
        grid.update(here, wall_ahead(turn))
        grid.update(there, wall_ahead(turn, x=128.0, y=-64.0))
    assert torch.equal(here["points"], there["points"])
    torch.testing.assert_close(grid(here).tokens, grid(there).tokens)


def test_the_window_turns_with_the_agent():
    """A wall ahead is ahead in the window whatever the agent's heading."""
    torch.manual_seed(0)
    grid = a_map()
    pictures = []
    for heading in (0.0, math.pi / 2, math.pi, -math.pi / 2):
        memory = grid.begin(1)
        grid.update(memory, wall_ahead(heading, side=65, wall=1.26))
        index, _ = grid.window.cells_of(memory["agent"])
        occupied = grid.cells(memory, memory.rows(), index)[0][..., 1].view(32, 32)
        rows = occupied.nonzero()[:, 0]
        pictures.append(occupied)
        assert 2 <= 15 - rows.float().mean() - 10 <= 3.5  # 1.26 m ahead are 12.6 cells above the middle
    assert pictures[0].sum() > 10


def test_tokens_have_gradients_and_say_where_nothing_is_known():
    grid = a_map()
    memory = grid.begin(2)
    grid.update(memory, wall_ahead(), [0])
    tokens, present = grid(memory)
    assert tokens.shape == (2, 16, 16) and present.shape == (2, 16)
    assert present[0].any() and not present[1].any()
    tokens[present].sum().backward()
    assert all(parameter.grad is not None for parameter in grid.parameters())


def test_a_history_is_read_as_its_steps_are():
    grid = a_map()
    steps = [wall_ahead(heading, x=x) for heading, x in ((0.0, 0.0), (0.5, 0.2), (1.0, 0.3))]
    batch = {key: torch.stack([step[key][0] for step in steps])[None] for key in steps[0]}
    batch |= {"observation_is_pad": torch.tensor([[True, False, False]]), "task": ["go"]}
    read, fed = grid.read(batch), grid.begin(1)
    for step in steps[1:]:
        grid.update(fed, step)
    assert torch.equal(read["points"], fed["points"]) and torch.equal(read["looked"], fed["looked"])


def test_several_views_at_once_are_the_same_as_one_after_the_other():
    grid = a_map()
    at_once, in_turn = grid.begin(1), grid.begin(1)
    views = [wall_ahead(heading) for heading in (0.0, 1.0, 2.0)]
    grid.update(at_once, {key: torch.stack([view[key][0] for view in views])[None] for key in views[0]})
    for view in views:
        grid.update(in_turn, view)
    assert torch.equal(at_once["points"], in_turn["points"]) and torch.equal(at_once["looked"], in_turn["looked"])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"observation.pose": None}, r"needs observation\.pose"),
        ({"observation.pose": torch.zeros(1, 3, 3)}, "matrices of 4 x 4"),
        ({"observation.pose": torch.zeros(2, 4, 4)}, r"of \(2, 1\) episodes and views"),
        ({"observation.depth.front": torch.zeros(1)}, "should have 4 axes"),
        ({"observation.semantic.front": torch.zeros(1, 2, 2)}, "but observation.depth.front"),
        ({"observation.semantic.front": None}, r"needs observation\.semantic\.front"),
    ],
)
def test_a_wrong_observation_is_one_clear_line(change, says):
    grid = a_map(classes=3)
    whole = wall_ahead() | {"observation.semantic.front": torch.zeros(1, 9, 9, dtype=torch.long)}
    observation = {key: value for key, value in (whole | change).items() if value is not None}
    with pytest.raises(ValueError, match=says):
        grid.update(grid.begin(1), observation)


def test_an_observation_for_other_slots_is_refused():
    grid = a_map()
    with pytest.raises(ValueError, match="1 episodes was given for 2 slots"):
        grid.update(grid.begin(2), wall_ahead())


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"surroundings": {"window": 30}}, "whole number of patches"),
        ({"surroundings": {"size": 0}}, "at least one cell"),
        ({"surroundings": {"near": 6.0}}, "the nearer first"),
        ({"surroundings": {"field_of_view": 200}}, "1 to 179"),
        ({"surroundings": {"camra": "front"}}, "takes no 'camra'; did you mean 'camera'"),
        ({"hits": 0}, "hits=0"),
        ({"width": 0}, "width must be at least 1"),
    ],
)
def test_a_wrong_size_is_one_clear_line(settings, says):
    with pytest.raises(ValueError, match=says):
        OccupancyMap(**{"width": 8} | settings)


def test_the_benchmark_runs(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["map_update.py", "--side", "16", "--steps", "4", "--repeats", "2"])
    benchmark().main()
    assert "cell by cell" in capsys.readouterr().out
