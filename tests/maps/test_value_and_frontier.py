"""Values follow VLFM's rules of confidence, and frontiers are the edges of what is known."""

import math

import numpy as np
import pytest
import torch

from maps.frontier import FrontierFinder, frontier_mask
from maps.geometry import camera_pose
from maps.occupancy import OccupancyMap
from maps.value import ValueMap

AROUND = {"size": 21, "resolution": 0.5, "far": 4.0, "window": 8, "patch": 4}


def look(value, heading=0.0, depth=10.0, x=0.0):
    pose = camera_pose(*(torch.tensor([v]) for v in (x, 0.0, 1.25, heading)))
    return {
        "observation.depth.front": torch.full((1, 9, 33), depth),
        "observation.pose": pose,
        "observation.value": torch.tensor([[value]]),
    }


def confidence(i, j, heading=0.0):
    """Of the cell (i, j) from the middle, by the formula; None outside the cone."""
    x, y = i * 0.5, j * 0.5
    angle = math.atan2(y, x) - heading
    if math.hypot(x, y) > 4.0 or abs(angle) > math.pi / 4:
        return None
    return math.cos(angle / (math.pi / 4) * math.pi / 2) ** 2 * 0.75 + 0.25


def test_confidence_falls_from_the_middle_of_the_cone_to_its_edge():
    grid = ValueMap(8, surroundings=AROUND)
    memory = grid.begin(1)
    grid.update(memory, look(0.7))
    found = grid.picture(memory["confidence"])[0]
    inside = 0
    for i in range(-9, 10):
        for j in range(-9, 10):
            expected = confidence(i, j) if i > 0 else None
            if expected is not None and abs(abs(math.atan2(j, i)) - math.pi / 4) > 0.05:
                assert found[10 + i, 10 + j] == pytest.approx(expected, abs=1e-4)
                assert grid.values(memory)[0, 0, 10 + i, 10 + j] == pytest.approx(0.7)
                inside += 1
            elif expected is None:
                assert found[10 + i, 10 + j] == 0
    assert inside > 20


def test_a_wall_hides_what_is_behind_it():
    grid = ValueMap(8, surroundings=AROUND)
    memory = grid.begin(1)
    grid.update(memory, look(0.7, depth=2.1))
    found = grid.picture(memory["confidence"])[0]
    assert found[12, 10] > 0 and found[14, 10] > 0 and not found[15:].any()


@pytest.mark.parametrize("fusion", ["weighted", "surest"])
def test_two_looks_are_fused_by_their_confidence(fusion):
    grid = ValueMap(8, fusion=fusion, surroundings=AROUND)
    memory = grid.begin(1)
    looks = [(0.2, 0.0), (0.9, 0.5), (0.4, -0.3)]
    for value, heading in looks:
        grid.update(memory, look(value, heading))
    for i, j in ((4, 0), (5, 1), (3, 1), (4, -1), (6, 2), (4, 3)):
        v = c = 0.0
        for value, heading in looks:
            new = confidence(i, j, heading) or 0.0
            if new < 0.35 and new < c:
                new = 0.0
            if fusion == "surest":
                v, c = (value, new) if new > c else (v, c)
            elif c + new > 0:
                v, c = (c * v + new * value) / (c + new), (c * c + new * new) / (c + new)
        assert grid.values(memory)[0, 0, 10 + i, 10 + j] == pytest.approx(v, abs=1e-4), (i, j)
        assert grid.picture(memory["confidence"])[0, 10 + i, 10 + j] == pytest.approx(c, abs=1e-4)


def test_values_become_tokens():
    grid = ValueMap(8, scores=2, surroundings=AROUND)
    memory = grid.begin(1)
    observation = look(0.5) | {"observation.value": torch.tensor([[0.5, -0.5]])}
    grid.update(memory, observation)
    tokens, present = grid(memory)
    assert tokens.shape == (1, 4, 8) and present.tolist() == [[True, True, False, False]]
    places = torch.tensor([[2.0, 0.0], [-3.0, 0.0]])
    assert grid.best_within(memory, 0, places, score=0).tolist() == pytest.approx([0.5, 0.0])
    assert grid.best_within(memory, 0, places, score=1).tolist() == pytest.approx([-0.5, 0.0])
    with pytest.raises(ValueError, match=r"should be \(1, 1, 2\)"):
        grid.update(memory, look(0.5))
    with pytest.raises(ValueError, match=r"needs observation\.value"):
        grid.update(memory, {k: v for k, v in observation.items() if k != "observation.value"})
    with pytest.raises(ValueError, match="did you mean 'surest'"):
        ValueMap(8, fusion="sure")
    with pytest.raises(ValueError, match="least=0"):
        ValueMap(8, least=0)


def drawn(picture):
    """An occupancy map from a drawing: `.` free, `#` occupied, `?` unknown, `A` free and the agent."""
    rows = [list(row) for row in picture.split()]
    grid = OccupancyMap(8, surroundings={"size": len(rows), "resolution": 1.0, "window": 8, "patch": 4})
    memory = grid.begin(1)
    cells = np.array(rows)
    memory["points"][0] = torch.from_numpy((cells == "#").ravel().astype(np.int32))
    memory["looked"][0] = torch.from_numpy(np.isin(cells, [".", "A"]).ravel())
    at = int(np.flatnonzero(cells.ravel() == "A")[0])
    memory["agent"][0, :2] = grid.grid.centres(torch.tensor(at))
    return grid, memory


HOUSE = """
#########
#...#..??
#.A.#..??
#...#..??
##.###.##
#........
#........
#######.#
????????#
"""


def test_frontiers_are_free_cells_next_to_the_unknown():
    grid, memory = drawn(HOUSE)
    free, explored = grid.free(memory)[0], grid.explored(memory)[0]
    mask = frontier_mask(free, explored)
    for i in range(9):
        for j in range(9):
            near = explored[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            assert mask[i, j] == (free[i, j] and not near.all())
    found = FrontierFinder(least=1, radius=0.0).find(grid, memory)
    assert sorted(len(f.cells) for f in found) == [1, 4]
    room, exit_ = found
    assert {tuple(c) for c in room.cells} == {(1, 6), (2, 6), (3, 6), (4, 6)}
    assert {tuple(c) for c in exit_.cells} == {(7, 7)}
    assert [len(f.cells) for f in FrontierFinder(least=2, radius=0.0).find(grid, memory)] == [4]


def test_the_nearest_is_nearest_on_foot():
    grid, memory = drawn(HOUSE)
    finder = FrontierFinder(least=1, radius=0.0)
    found = finder.find(grid, memory)
    by_air = [float(np.linalg.norm(f.middle - memory["agent"][0, :2].numpy())) for f in found]
    assert by_air[0] < by_air[1] and found[0].distance > by_air[0]
    # down through the door at column 2, one step diagonally, along row 6, and down: corners are not cut
    root = math.sqrt(2)
    assert found[1].distance == pytest.approx(3 + root + 4 + 1, abs=1e-4)
    assert finder.nearest(found) is min(found, key=lambda f: f.distance)
    way = finder.way(grid, memory, found[1].middle)
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    assert steps.sum() == pytest.approx(found[1].distance) and steps.max() <= root + 1e-6
    cells, _ = grid.grid.index(torch.from_numpy(way))
    assert grid.free(memory)[0].flatten()[cells].all()


def test_walls_keep_a_wide_agent_in():
    grid, memory = drawn(HOUSE)
    finder = FrontierFinder(least=1, radius=1.0)
    found = finder.find(grid, memory)
    assert finder.nearest(found) is None
    with pytest.raises(ValueError, match="no way through free cells"):
        finder.way(grid, memory, found[0].middle)


def test_an_agent_close_to_a_wall_can_step_away_from_it():
    grid, memory = drawn("####### #A....? #.....? #.....? #.....? #.....? #######")
    finder = FrontierFinder(least=1, radius=1.0)
    frontier = finder.nearest(finder.find(grid, memory))
    assert frontier is not None and 4.0 <= frontier.distance < 6.0


def test_the_most_promising_frontier_is_chosen():
    grid, memory = drawn(HOUSE)
    finder = FrontierFinder(least=1, radius=0.0)
    found = finder.find(grid, memory)
    values = ValueMap(8, surroundings={"size": 9, "resolution": 1.0, "window": 8, "patch": 4})
    promising = values.begin(1)
    for frontier in found:
        promising["value"].zero_()
        promising["confidence"].fill_(1.0)
        i, j = frontier.cells[0]
        promising["value"][0, i * 9 + j] = 0.8
        assert finder.best(found, values, promising, around=1.5) is frontier
    assert finder.best([], values, promising) is None


def test_nowhere_to_go_when_all_is_known():
    grid, memory = drawn("### #A# ###")
    assert FrontierFinder().find(grid, memory) == []
    with pytest.raises(ValueError, match="least=0"):
        FrontierFinder(least=0)
