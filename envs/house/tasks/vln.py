"""Following instructions in a continuous house, as VLN-CE's R2R: walk where the sentences lead, and stop there."""

from __future__ import annotations

import numpy as np

from envs.house.houses import House
from envs.house.instructions import instruct
from envs.house.naming import BIG, told_apart
from envs.house.routes import dense, legs_of
from envs.house.tasks.base import Episode, HouseTask, start_in

LEAST, MOST = 5.0, 25.0
"""Metres of the way; Room-to-Room's are 5 to about 20."""
REACH = 0.8
"""How close to the thing one stops, metres from its footprint."""


class VLN(HouseTask):
    """Success is to stop where the way to the goal is shorter than 3 m (R2R, VLN-CE).

    The way is the shortest one and leads into another room; it ends at an object. `measures` also has nDTW to it and
    SDTW. `reference` is an episode in VLN-CE's format, with `locations` every 0.25 m.
    """

    name, near = "vln", 3.0

    def draw(self, house: House, rng: np.random.Generator) -> Episode | None:
        spec, finder = house.spec, self.sim.finder
        start = start_in(self.sim, rng)
        targets = [
            place
            for place, item in enumerate(spec.objects)
            if item.on < 0 and item.category in BIG and item.room != house.room_at(start.position)
        ]
        if not targets:
            return None
        target = targets[int(rng.integers(len(targets)))]
        room = spec.objects[target].room
        views = house.views(target, finder, REACH)
        views = views[[house.room_at(view) == room for view in views]]
        if told_apart(spec, target) is None or not len(views):
            return None
        ways = finder.geodesics(start.position[None], views)[0]
        goal = views[int(ways.argmin())]
        if not LEAST <= ways.min() <= MOST:
            return None
        path = finder.path(start.position, goal)
        text = instruct(spec, legs_of(spec, path, start.heading), target, rng, self.reworded)
        self.locations = dense(path, 0.25)
        reference = {
            "goals": [{"position": [*goal.tolist(), 0.0], "radius": self.near}],
            "geodesic_distance": float(ways.min()),
            "instruction": {"instruction_text": text},
            "locations": [[*point, 0.0] for point in self.locations.tolist()],
            "target": target,
        }
        return Episode(start, goal[None], text, reference)

    def measures(self) -> dict[str, float]:
        likeness = self.walk.likeness(self.locations, self.near)
        return super().measures() | {"ndtw": likeness, "sdtw": self.success * likeness}
