"""From where an object is seen: the view points of Habitat's ObjectNav, to which its distances are measured."""

from __future__ import annotations

import numpy as np

from envs.house.pathfinder import PathFinder
from envs.house.renderer import Renderer
from envs.house.scene import Scene
from envs.house.spec import HouseSpec

SPACING = 0.1
"""Metres between view points: wherever an object is seen from, one of them is within 7.1 cm."""
PIXELS, SIDE = 4, 24
"""An object is seen where at least so many pixels of a picture of `SIDE` squared, 90 degrees wide and aimed at its
middle, are its own."""
CAMERA_HEIGHT = 1.25


def view_points(
    spec: HouseSpec, scene: Scene, finder: PathFinder, place: int, instance: int, reach: float = 1.0
) -> np.ndarray:
    """(K, 2) navigable points, at most `reach` metres from an object's footprint in the plan, from which it is seen.

    Args:
        spec, scene, finder: the house, and the navigator of the body that is to stand there.
        place: the object's, in `spec.objects`.
        instance: its id in instance pictures.
        reach: metres.
    """
    x0, y0, x1, y1 = spec.objects[place].footprint
    low = np.floor(np.array([x0 - reach, y0 - reach]) / SPACING).astype(int)
    high = np.ceil(np.array([x1 + reach, y1 + reach]) / SPACING).astype(int)
    axes = [np.arange(a, b + 1) * SPACING for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    away = np.hypot(
        np.maximum(0, np.maximum(x0 - points[:, 0], points[:, 0] - x1)),
        np.maximum(0, np.maximum(y0 - points[:, 1], points[:, 1] - y1)),
    )
    points = points[away <= reach]
    points = points[finder.is_navigable(points)]
    return points[sees(scene, points, spec.objects[place].centre, instance)]


def sees(scene: Scene, points: np.ndarray, target: tuple[float, float, float], instance: int) -> np.ndarray:
    """Whether a camera at each of (P, 2) points that looks at `target` sees an instance."""
    if not len(points):
        return np.zeros(0, bool)
    away = np.asarray(target[:2]) - points
    heading = np.arctan2(away[:, 1], away[:, 0])
    pitch = np.arctan2(target[2] - CAMERA_HEIGHT, np.maximum(np.hypot(*away.T), 0.05))
    height = np.full(len(points), CAMERA_HEIGHT)
    cameras = np.stack([points[:, 0], points[:, 1], height, heading, pitch], 1)
    seen = Renderer(scene, SIDE, SIDE, 90.0, ("instance",)).render(cameras)["instance"]
    return (seen == instance).sum((1, 2)) >= PIXELS
