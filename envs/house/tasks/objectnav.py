"""ObjectNav: find any object of a category, and stop where it is seen from near by."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.spec import SEMANTIC
from envs.house.categories import MP3D_ID, OBJECTNAV, OBJECTNAV_ID, WANTED
from envs.house.houses import House
from envs.house.naming import called
from envs.house.simulator import AgentState, Body
from envs.house.tasks.base import CAMERA, Episode, HouseTask, start_in

LEAST, MOST = 1.0, 30.0
"""Metres of the shortest way from the start to the nearest view point."""
WORDS = {
    False: ("find a {}", "go to a {} and stop", "look for a {}", "walk to any {}"),
    True: ("search the house for a {}", "locate a {} and halt next to it", "i need a {}, bring yourself to one"),
}


class ObjectNav(HouseTask):
    """Success is to stop where the way to a view point of any such object is shorter than 0.1 m (Habitat's challenge).

    View points are those of `envs.house.views`: at most 1 m from the object and seeing it. Categories are Habitat's 21
    of Matterport3D, as far as the house has them.

    Args:
        body, split, houses, max_steps, success_distance, wander, perturb: see `HouseTask`.
        prompted: what is of the wanted category has the id 41, `WANTED`, in semantic images, as from a detector that
            is prompted with words (VLFM's GroundingDINO). All else keeps its own.

    Raises:
        ValueError: `prompted`, and a body without semantic images; or an unknown option.
    """

    name, near = "objectnav", 0.1

    def __init__(
        self,
        body: Body | None = None,
        split: str = "train",
        houses: int | None = None,
        max_steps: int = 500,
        success_distance: float | None = None,
        wander: float = 0.0,
        perturb: dict[str, float] | None = None,
        prompted: bool = False,
    ) -> None:
        super().__init__(body, split, houses, max_steps, success_distance, wander, perturb)
        if prompted and "semantic" not in self.body.outputs:
            raise ValueError("ObjectNav: prompted needs env.make.body.outputs=[rgb,depth,semantic]")
        self.prompted = prompted

    def observation(self) -> dict[str, Any]:
        found = super().observation()
        if self.prompted:
            seen, wanted = found[SEMANTIC + CAMERA], MP3D_ID[self.episode.reference["object_category"]]
            found[SEMANTIC + CAMERA] = np.where(seen == wanted, WANTED, seen)
        return found

    def draw(self, house: House, rng: np.random.Generator) -> Episode | None:
        there = sorted({item.category for item in house.spec.objects} & set(OBJECTNAV))
        category = there[int(rng.integers(len(there)))]
        goals = self.goals_of(house, category)
        if goals is None:
            return None
        start = self.far_start(goals, rng)
        if start is None:
            return None
        words = WORDS[self.reworded]
        text = words[int(rng.integers(len(words)))].format(called(category))
        return Episode(start, goals, text.replace(" a a", " an a"), self.describe(house, category))

    def goals_of(self, house: House, category: str) -> np.ndarray | None:
        """(G, 2) view points of all objects of a category; None where one cannot be seen from anywhere near."""
        places = [place for place, item in enumerate(house.spec.objects) if item.category == category]
        views = [house.views(place, self.sim.finder) for place in places]
        points = np.concatenate([view for view in views if len(view)] or [np.zeros((0, 2))])
        return points if len(points) else None

    def far_start(self, goals: np.ndarray, rng: np.random.Generator) -> AgentState | None:
        """A start from which the goals are neither too near nor too far."""
        field = self.sim.finder.distances_to(goals)
        for _ in range(20):
            start = start_in(self.sim, rng)
            if LEAST <= field(start.position[None])[0] <= MOST:
                return start
        return None

    def describe(self, house: House, category: str) -> dict[str, Any]:
        goals = [
            {"object_id": place, "position": list(item.centre), "room": house.spec.rooms[item.room].kind}
            for place, item in enumerate(house.spec.objects)
            if item.category == category
        ]
        return {"object_category": category, "object_category_id": OBJECTNAV_ID[category], "goals": goals}
