"""A house from a seed: the plan, the paint, then furniture that never blocks a door or cuts a room in two.

Everything is drawn from one NumPy PCG64 stream and rounded to millimetres, so a seed gives the same bytes anywhere.
"""

from __future__ import annotations

import numpy as np

from envs.house.furnish import Furnisher
from envs.house.furniture import shade
from envs.house.plan import GRID, MARGIN, OPENING, Cells, choose_uses, connected, metres, shared, split
from envs.house.spec import Door, HouseSpec, Material, Room

WALLS = (
    (226, 216, 198), (206, 216, 208), (208, 214, 226), (232, 222, 206), (222, 204, 196), (214, 208, 222),
    (198, 210, 214), (230, 226, 212), (212, 218, 192), (228, 208, 176),
)  # fmt: skip
WOODS = ((168, 122, 78), (140, 98, 62), (190, 150, 104), (118, 84, 58), (176, 140, 110))
TILES = ((206, 204, 198), (182, 192, 194), (196, 184, 166), (160, 172, 178))
CARPETS = ((150, 138, 128), (120, 132, 148), (152, 124, 118), (128, 142, 120), (168, 156, 132))


def generate(
    seed: int,
    width: tuple[float, float] = (9.0, 14.0),
    depth: tuple[float, float] = (7.0, 11.0),
    room_area: float = 16.0,
    agent_radius: float = 0.2,
    height: float = 2.6,
    attempts: int = 200,
) -> HouseSpec:
    """Make the house of a seed.

    Args:
        seed: any integer from 0.
        width, depth: the outline's size is drawn from these ranges in metres.
        room_area: about how many square metres a room has.
        agent_radius: every room stays reachable for an agent this wide, in metres.
        height: of the ceiling, in metres.
        attempts: plans drawn before giving up.

    Raises:
        ValueError: an argument no house can have, or no plan met the constraints.
    """
    if seed < 0:
        raise ValueError(f"a house's seed of {seed} should be 0 or more")
    if min(width[0], depth[0]) < 5:
        raise ValueError(f"a house of {width[0]} by {depth[0]} m is too small: 5 m at least")
    if not 0.05 <= agent_radius <= 0.35:
        raise ValueError(f"agent_radius {agent_radius} should be from 0.05 to 0.35 m: doors are {OPENING} m wide")
    if not 2.4 <= height <= 5:
        raise ValueError(f"height {height} should be from 2.4 to 5 m")
    for attempt in range(attempts):
        rng = np.random.Generator(np.random.PCG64([seed, attempt]))
        spec = _attempt(rng, seed, attempt, width, depth, room_area, agent_radius, height)
        if spec is not None:
            return spec
    raise ValueError(f"no plan of {attempts} met the constraints for seed {seed}: make the outline larger")


def _attempt(
    rng: np.random.Generator,
    seed: int,
    attempt: int,
    width: tuple[float, float],
    depth: tuple[float, float],
    room_area: float,
    agent_radius: float,
    height: float,
) -> HouseSpec | None:
    size = [round(rng.uniform(*limits) * GRID) for limits in (width, depth)]
    cells = split(rng, (0, 0, size[0], size[1]), room_area, int(1.8 * GRID))
    cells = _cut_corner(rng, cells)
    if not 4 <= len(cells) <= 14:
        return None
    walls = {(a, b): shared(cells[a], cells[b]) for a in range(len(cells)) for b in range(a + 1, len(cells))}
    neighbours = [pair for pair, wall in walls.items() if wall is not None]
    if not connected(len(cells), neighbours):
        return None
    chosen = choose_uses(rng, cells, neighbours)
    if chosen is None:
        return None
    uses, pairs = chosen
    rooms = tuple(_paint(rng, use, room) for use, room in zip(uses, cells, strict=True))
    frame = Material((238, 236, 230), (224, 222, 216), "plain", 0.5)
    doors = []
    for pair in pairs:
        axis, position, low, high = walls[pair]  # type: ignore[misc]
        first, last = low + MARGIN * GRID, high - (MARGIN + OPENING) * GRID
        start = round(float(rng.integers(int(np.ceil(first * 10)), int(last * 10) + 1)) / (10 * GRID), 3)
        doors.append(Door(pair, axis, round(position / GRID, 3), start, round(start + OPENING, 3), frame))
    spec = HouseSpec(seed, rooms, tuple(doors), (), height, 2.05, agent_radius, attempt)
    return Furnisher(spec, rng).furnish()


def _cut_corner(rng: np.random.Generator, cells: list[Cells]) -> list[Cells]:
    """Half of the houses lose a corner room, which makes the outline an L, where the rest stays joined."""
    if len(cells) < 6 or rng.random() < 0.5:
        return cells
    right, top = max(c[2] for c in cells), max(c[3] for c in cells)
    corners = [c for c in cells if (c[0] == 0 or c[2] == right) and (c[1] == 0 or c[3] == top)]
    gone = corners[int(rng.integers(len(corners)))]
    left = [c for c in cells if c != gone]
    pairs = [(a, b) for a in range(len(left)) for b in range(a + 1, len(left)) if shared(left[a], left[b])]
    return left if connected(len(left), pairs) else cells


def _paint(rng: np.random.Generator, use: str, room: Cells) -> Room:
    paint = WALLS[int(rng.integers(len(WALLS)))]
    ceiling = Material((240, 239, 235), (234, 233, 229), "plain", 1.0)
    if use in ("bathroom", "kitchen"):
        base = TILES[int(rng.integers(len(TILES)))]
        pattern = ("tiles", "checker")[int(rng.integers(2))]
        floor = Material(base, shade(base, 0.72), pattern, 0.3)
        wall = Material(paint, shade(paint, 0.9), "tiles" if use == "bathroom" else "plain", 0.2)
    else:
        if use == "bedroom" and rng.random() < 0.6:
            base = CARPETS[int(rng.integers(len(CARPETS)))]
            floor = Material(base, shade(base, 0.9), "carpet", 0.04)
        else:
            base = WOODS[int(rng.integers(len(WOODS)))]
            floor = Material(base, shade(base, 0.84), "planks", 0.14)
        papered = rng.random() < 0.3
        wall = Material(paint, shade(paint, 0.93), "stripes" if papered else "plain", 0.3)
    return Room(use, metres(room), wall, floor, ceiling)
