"""Houses by split: which seeds a split may use, and houses kept ready, since a reset wants one at once."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from embodied.building import nearest
from envs.house.generate import generate
from envs.house.pathfinder import PathFinder
from envs.house.scene import Scene, build_scene
from envs.house.spec import HouseSpec
from envs.house.views import view_points

SPLITS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""The first house of each split."""
SIZE = 1_000_000
"""How many houses a split has: those of one split are none of another's."""
KEPT = 64


class House:
    """A house with what is computed from it once, when it is first asked for."""

    def __init__(self, spec: HouseSpec) -> None:
        self.spec = spec
        self._finders: dict[tuple[float | None, float], PathFinder] = {}
        self._views: dict[tuple[int, PathFinder, float], np.ndarray] = {}

    @cached_property
    def scene(self) -> Scene:
        return build_scene(self.spec)

    @cached_property
    def instance_of(self) -> dict[int, int]:
        """From an object's place in `spec.objects` to its id in instance pictures."""
        return {item.object: number for number, item in enumerate(self.scene.instances) if item.object >= 0}

    def finder(self, radius: float | None = None, tall: float = 1.5) -> PathFinder:
        """The navigator for bodies of one size."""
        if (radius, tall) not in self._finders:
            self._finders[radius, tall] = PathFinder(self.spec, radius, tall)
        return self._finders[radius, tall]

    def views(self, place: int, finder: PathFinder, reach: float = 1.0) -> np.ndarray:
        """(K, 2) points from which an object is seen, see `envs.house.views`; K may be 0."""
        key = (place, finder, reach)
        if key not in self._views:
            self._views[key] = view_points(self.spec, self.scene, finder, place, self.instance_of[place], reach)
        return self._views[key]

    def room_at(self, point: np.ndarray) -> int:
        return self.spec.room_at(float(point[0]), float(point[1]))


@lru_cache(maxsize=KEPT)
def load(seed: int) -> House:
    """The house of a seed; the last 64 are kept."""
    return House(generate(seed))


def check_split(split: str, houses: int | None) -> None:
    """Stop at a split there is not.

    Raises:
        ValueError: no such split, or a number of houses that it does not have.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split '{split}' of houses{nearest(split, SPLITS)}")
    if houses is not None and not 1 <= houses <= SIZE:
        raise ValueError(f"houses is how many of a split's {SIZE} are used, got {houses}")


def draw(split: str, houses: int | None, rng: np.random.Generator) -> House:
    """A random house of a split, of its first `houses` or of all."""
    return load(SPLITS[split] + int(rng.integers(houses or SIZE)))
