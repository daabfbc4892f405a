"""The truth of an episode from above, in the manner of habitat-lab's `TopDownMap`.

Walls, furniture in the colour of its category, the start (white), the goal (green; what is looked for is outlined), the
shortest way (broken line), and the agent (red, with what is in front of its camera) with the way it came, pale where it
was long ago. North (high y) is up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from embodied.drawing import FLOOR, GOAL, HALO, INK, WALL, Canvas, category_colours
from envs.house.houses import House
from envs.house.pathfinder import PathFinder
from envs.house.simulator import AgentState
from envs.house.viewpoints import ViewpointGraph

HEIGHT = 512
MARGIN = 0.35
"""Metres around the house."""
HUNG = 2.0
"""What begins above so many metres is left out."""
SOFT, QUIET = (168, 168, 164), (116, 120, 128)
FEW = 3
"""More goals than these are many places to see one thing from, and are drawn small."""


@lru_cache(maxsize=8)
def floor_plan(house: House, names: bool = True) -> Canvas:
    """The house without anybody in it; to be copied before it is drawn on.

    Args:
        house: the house.
        names: whether rooms are named.
    """
    scene, spec = house.scene, house.spec
    x0, y0, x1, y1 = spec.bounds
    across = (x1 - x0 + 2 * MARGIN, y1 - y0 + 2 * MARGIN)
    canvas = Canvas(((x0 + x1) / 2, (y0 + y1) / 2), across, HEIGHT)
    for room in spec.rooms:
        canvas.rectangle(room.bounds, FLOOR)
    colours = category_colours()
    for row in np.argsort(scene.bounds[:, 5], kind="stable"):
        a, b, low, c, d, _ = (float(value) for value in scene.bounds[row])
        if low >= HUNG or scene.instances[scene.instance[row]].category == "wall":
            continue
        colour = colours[scene.semantic[row]]
        edge = tuple(int(0.86 * value) for value in colour)
        if scene.round[row]:
            canvas.disc(np.array([(a + c) / 2, (b + d) / 2]), (c - a) / 2, tuple(colour), None)
        else:
            canvas.rectangle((a, b, c, d), tuple(colour), edge, 0.5)
    for a, b, low, c, d, _ in scene.bounds[: scene.walls]:
        if low < HUNG:
            canvas.rectangle((a, b, c, d), WALL)
    for place, room in enumerate(spec.rooms if names else ()):
        canvas.words(_roomy(house, place), room.kind, QUIET, 7.5)
    return canvas


def episode_plan(
    house: House, finder: PathFinder, start: AgentState, stops: Sequence[np.ndarray], targets: Iterable[int] = ()
) -> Canvas:
    """What stays throughout an episode in a house.

    Args:
        house: where.
        finder: of the agent's size.
        start: where the agent begins.
        stops: one after the other, (G, 2) points of which it is to reach one.
        targets: places in `HouseSpec.objects` of what it is looking for.
    """
    canvas = floor_plan(house).copy()
    for place in targets:
        canvas.rectangle(house.spec.objects[place].footprint, (*GOAL, 60), GOAL, 1.6)
    at = start.position
    for goals in stops:
        ways = finder.geodesics(at[None], goals)[0]
        if not np.isfinite(ways.min()):
            break
        nearest = goals[int(ways.argmin())]
        canvas.dashes(finder.path(at, nearest), GOAL, 1.8)
        at = nearest
    for goals in stops:
        for goal in goals:
            canvas.mark(goal, *((4.0, GOAL) if len(goals) <= FEW else (1.0, (*GOAL, 120), None)))
    return canvas


def draw_walk(plan: Canvas, walked: np.ndarray, state: AgentState, view: float | None = None) -> np.ndarray:
    """An episode as it stands.

    Args:
        plan: what stays.
        walked: (K, 2) where the agent was, in metres.
        state: where it is.
        view: degrees across its camera.

    Returns:
        uint8 (512, W, 3).
    """
    canvas = plan.copy()
    canvas.walk(walked)
    canvas.mark(walked[0], 3.4, HALO, INK)
    canvas.agent(state.position, state.heading, view=view)
    return canvas.picture()


def graph_plan(canvas: Canvas, graph: ViewpointGraph, path: Sequence[int]) -> Canvas:
    """What stays throughout an episode from viewpoint to viewpoint.

    Args:
        canvas: what lies below; it is drawn on.
        graph: the viewpoints.
        path: the shortest way from the start to the goal, row by row.
    """
    points = graph.positions[:, :2]
    for a, b in zip(*np.nonzero(np.triu(graph.joined)), strict=True):
        canvas.line(points[[a, b]], SOFT, 0.7)
    for point in points:
        canvas.mark(point, 1.6, SOFT, None)
    canvas.dashes(points[list(path)], GOAL, 1.8)
    canvas.mark(points[path[-1]], 4.0, GOAL)
    return canvas


def blank_for(graph: ViewpointGraph) -> Canvas:
    """Paper for a graph of which no house is known."""
    low, high = graph.positions[:, :2].min(0), graph.positions[:, :2].max(0)
    across = np.maximum(high - low + 2 * max(MARGIN, 0.06 * float((high - low).max())), 1.0)
    across = np.maximum(across, across[::-1] / 2)  # no strip
    return Canvas((low + high) / 2, across, HEIGHT, ground=FLOOR)


def _roomy(house: House, place: int) -> np.ndarray:
    """Where in a room a word covers the least furniture; of equals nearest to the middle."""
    spec = house.spec
    x0, y0, x1, y1 = spec.rooms[place].inside
    half = np.array([min(0.9, (x1 - x0) / 2.2), 0.25])  # about half of a word's extent, metres
    xs, ys = (np.linspace(low + side, high - side, 25) for low, high, side in ((x0, x1, half[0]), (y0, y1, half[1])))
    spots = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    covered = np.zeros(len(spots))
    for item in spec.objects:
        if item.room == place:
            a, b, c, d = item.footprint
            wide = np.minimum(spots[:, 0] + half[0], c) - np.maximum(spots[:, 0] - half[0], a)
            high = np.minimum(spots[:, 1] + half[1], d) - np.maximum(spots[:, 1] - half[1], b)
            covered += np.clip(wide, 0, None) * np.clip(high, 0, None)
    away = np.linalg.norm(spots - [(x0 + x1) / 2, (y0 + y1) / 2], axis=1)
    return spots[int(np.argmin(covered + 0.02 * away))]
