"""The plan of a house: an outline split into rooms, a use for each room, and doors that join all of them."""

from __future__ import annotations

import numpy as np

from envs.house.spec import Rectangle

GRID = 10
"""Cells per metre: rooms end on whole cells, so that a small table says which room a point lies in."""
OPENING = 1.0
"""Width of a door's opening in metres, its frame included."""
FRAME = 0.04
MARGIN = 0.25
"""From a door's opening to the end of the stretch of wall that two rooms share."""

Cells = tuple[int, int, int, int]
"""x0, y0, x1, y1 in cells."""


def split(rng: np.random.Generator, outline: Cells, target: float, shortest: int) -> list[Cells]:
    """Split a rectangle in two, again and again, until each is below about `target` square metres."""
    done: list[Cells] = []
    waiting = [outline]
    while waiting:
        x0, y0, x1, y1 = waiting.pop()
        width, depth = x1 - x0, y1 - y0
        area = width * depth / GRID**2
        axis = 0 if width > depth else 1
        long = max(width, depth)
        enough = area < target * (0.6 + 0.9 * rng.random())
        if long < 2 * shortest or (enough and long < 2.2 * min(width, depth)):
            done.append((x0, y0, x1, y1))
            continue
        low = max(shortest, int(0.32 * long))
        cut = int(rng.integers(low, max(low, long - low) + 1))
        if axis == 0:
            waiting += [(x0, y0, x0 + cut, y1), (x0 + cut, y0, x1, y1)]
        else:
            waiting += [(x0, y0, x1, y0 + cut), (x0, y0 + cut, x1, y1)]
    return sorted(done)


def shared(a: Cells, b: Cells) -> tuple[int, int, int, int] | None:
    """The wall between two rooms as axis, position, low, high in cells; None where no door would fit."""
    need = int((OPENING + 2 * MARGIN) * GRID)
    for axis in (0, 1):
        other = 1 - axis
        for first, second in ((a, b), (b, a)):
            if first[axis + 2] == second[axis]:
                low, high = max(a[other], b[other]), min(a[other + 2], b[other + 2])
                if high - low >= need:
                    return axis, first[axis + 2], low, high
    return None


def connected(count: int, edges: list[tuple[int, int]], without: int = -1) -> bool:
    """Whether edges join all of `count` rooms, leaving one out."""
    rooms = [room for room in range(count) if room != without]
    seen, waiting = {rooms[0]}, [rooms[0]]
    while waiting:
        here = waiting.pop()
        for a, b in edges:
            for one, two in ((a, b), (b, a)):
                if one == here and two != without and two not in seen:
                    seen.add(two)
                    waiting.append(two)
    return len(seen) == len(rooms)


def choose_uses(
    rng: np.random.Generator, rooms: list[Cells], neighbours: list[tuple[int, int]]
) -> tuple[list[str], list[tuple[int, int]]] | None:
    """A use for each room and the pairs joined by doors; None when the plan does not allow them.

    The living room is the largest, the kitchen opens on it, bathrooms are small and never the way to another room, the
    dining room opens on the kitchen where it can.
    """
    count = len(rooms)
    areas = [(r[2] - r[0]) * (r[3] - r[1]) / GRID**2 for r in rooms]
    uses = [""] * count
    living = int(np.argmax(areas))
    uses[living] = "living room"
    small = [r for r in sorted(range(count), key=lambda r: areas[r]) if r != living and areas[r] <= 9]
    baths = 0
    inner: list[tuple[int, int]] = list(neighbours)
    for room in small:
        rest = [edge for edge in inner if room not in edge]
        if baths < (2 if count >= 8 else 1) and _joined(
            count, rest, [i for i, u in enumerate(uses) if u == "bathroom"] + [room]
        ):
            uses[room] = "bathroom"
            inner = rest
            baths += 1
    if not baths:
        return None
    beside = [b if a == living else a for a, b in inner if living in (a, b)]
    beside = [r for r in beside if not uses[r]]
    if not beside:
        return None
    kitchen = min(beside, key=lambda r: abs(areas[r] - 11))
    if areas[kitchen] < 5:
        return None
    uses[kitchen] = "kitchen"
    doors = [(min(living, kitchen), max(living, kitchen))]
    near_kitchen = [b if a == kitchen else a for a, b in inner if kitchen in (a, b)]
    for room in near_kitchen:
        if not uses[room] and count >= 6 and areas[room] >= 9:
            uses[room] = "dining room"
            doors.append((min(room, kitchen), max(room, kitchen)))
            break
    left = [r for r in range(count) if not uses[r]]
    if not left:
        return None
    bedroom = max(left, key=lambda r: areas[r])
    if areas[bedroom] < 8:
        return None
    for room in left:
        if room == bedroom:
            uses[room] = "bedroom"
        elif areas[room] < 7:
            uses[room] = "office" if rng.random() < 0.5 else "hallway"
        else:
            uses[room] = ("bedroom", "bedroom", "office")[int(rng.integers(3))]
    order = [inner[i] for i in rng.permutation(len(inner))]
    group = list(range(count))

    def join(a: int, b: int) -> bool:
        old, new = group[a], group[b]
        if old == new:
            return False
        for room in range(count):
            if group[room] == old:
                group[room] = new
        return True

    for a, b in doors:
        join(a, b)
    for a, b in order:
        if join(a, b) or (rng.random() < 0.3 and (a, b) not in doors):
            doors.append((a, b))
    for room in range(count):
        if uses[room] == "bathroom":
            options = [e for e in neighbours if room in e and uses[e[0] if e[1] == room else e[1]] != "bathroom"]
            if not options:
                return None
            liked = [e for e in options if uses[e[0] if e[1] == room else e[1]] in ("hallway", "bedroom")] or options
            doors.append(liked[int(rng.integers(len(liked)))])
    doors = sorted(set(doors))
    return (uses, doors) if connected(count, doors) else None


def _joined(count: int, edges: list[tuple[int, int]], without: list[int]) -> bool:
    left = [room for room in range(count) if room not in without]
    place = {room: i for i, room in enumerate(left)}
    return connected(len(left), [(place[a], place[b]) for a, b in edges if a in place and b in place])


def metres(cells: Cells) -> Rectangle:
    x0, y0, x1, y1 = (round(value / GRID, 3) for value in cells)
    return x0, y0, x1, y1
