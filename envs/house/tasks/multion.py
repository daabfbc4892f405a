"""MultiON: find several objects in a given order, and say `found` at each."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from envs.house.houses import House
from envs.house.naming import BIG, told_apart
from envs.house.simulator import Body
from envs.house.tasks.base import Episode, HouseTask, start_in

LEAST = 2.0
"""Metres of the shortest way from each goal to the next one, and from the start to the first."""
REACH = 0.6
"""A goal is a point this near to the object, metres from its footprint, from which it is seen."""
WORDS = {
    False: (("find the {}", ", then the {}"), ("go to the {}", ", then to the {}")),
    True: (("locate the {}", ", after that the {}"), ("your first target is the {}", ", the next is the {}")),
}


class MultiON(HouseTask):
    """`found` at most 1.5 m from the object whose turn it is goes on to the next one; elsewhere it ends the episode.

    Success is to find all. The state ends with how many were found. `measures` has `progress` and `ppl` as the official
    benchmark (Wani et al. 2020) counts them; see `embodied-score profile=multion`. Objects can be told from all others
    in the house by colour and category.

    Args:
        body, split, houses, max_steps, success_distance, wander, perturb: see `HouseTask`.
        objects: how many are to be found.
    """

    name, near = "multion", 1.5
    own: ClassVar[tuple[str, ...]] = ("found",)
    senses: ClassVar[tuple[str, ...]] = ("found",)
    units: ClassVar[tuple[str, ...]] = ("1",)

    def __init__(
        self,
        body: Body | None = None,
        split: str = "train",
        houses: int | None = None,
        max_steps: int = 1000,
        success_distance: float | None = None,
        wander: float = 0.0,
        perturb: dict[str, float] | None = None,
        objects: int = 3,
    ) -> None:
        if not 1 <= objects <= 8:
            raise ValueError(f"MultiON: objects is from 1 to 8, got {objects}")
        self.objects = objects
        super().__init__(body, split, houses, max_steps, success_distance, wander, perturb)

    def draw(self, house: House, rng: np.random.Generator) -> Episode | None:
        spec, finder = house.spec, self.sim.finder
        start = start_in(self.sim, rng)
        at, goals, ways = start.position, [], []
        things: list[tuple[int, str]] = []
        places = [k for k, item in enumerate(spec.objects) if item.on < 0 and item.category in BIG]
        for place in rng.permutation(places):
            name = told_apart(spec, int(place), room=False)
            if name is None or name in [thing for _, thing in things]:
                continue
            views = house.views(int(place), finder, REACH)
            views = views[[house.room_at(view) == spec.objects[place].room for view in views]]
            if not len(views):
                continue
            goal = views[int(np.linalg.norm(views - spec.objects[place].centre[:2], axis=1).argmin())]
            way = finder.geodesic(at[None], goal[None])
            if way < LEAST:
                continue
            at = goal
            goals.append(goal)
            ways.append(way)
            things.append((int(place), name))
            if len(goals) == self.objects:
                break
        else:
            return None
        words = WORDS[self.reworded]
        first, more = words[int(rng.integers(len(words)))]
        text = first.format(things[0][1]) + "".join(more.format(name) for _, name in things[1:])
        self.turn, self.counted, self.ways = 0, 0, ways
        self.points, self.calls = np.array(goals), list[list[float]]()
        found = [
            {"object_id": place, "object_category": name, "position": [*goal.tolist(), 0.0]}
            for (place, name), goal in zip(things, goals, strict=True)
        ]
        return Episode(start, self.points[:1], text, {"goals": found, "goal_distances": ways})

    def decide(self, action: str) -> tuple[bool, bool]:
        distance = self.distance()
        self.calls.append([len(self.walk.positions) - 1, distance])
        if distance > self.success_distance:
            return True, False
        self.turn += 1
        self.counted += distance < self.success_distance
        if self.turn == len(self.points):
            return True, True
        self.aim(self.points[self.turn : self.turn + 1])
        self.walk.distances[-1] = self.distance()  # from here on to the next one
        return False, False

    def stops(self) -> list[np.ndarray]:
        return [self.points[k : k + 1] for k in range(len(self.points))]

    def sense(self) -> np.ndarray:
        return np.array([self.turn])

    def measures(self) -> dict[str, float]:
        taken, total = self.walk.length, sum(self.ways)
        shortest = sum(self.ways[: self.turn])
        until = int(self.calls[self.turn - 1][0]) if self.turn else 0
        positions = np.array(self.walk.positions)[: until + 1]
        walked = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
        progress = self.counted / len(self.points)
        return {
            "success": float(self.success),
            "spl": self.success * total / max(total, taken),
            "progress": progress,
            "ppl": progress * shortest / max(shortest, walked) if progress else 0.0,
            "distance_to_goal": self.walk.distances[-1],
            "path_length": taken,
        }

    def record(self) -> dict[str, Any]:
        whole = super().record()
        return {key: whole[key] for key in ("episode_id", "positions")} | {
            "found": [list(call) for call in self.calls],
            "goal_distances": list(self.ways),
        }
