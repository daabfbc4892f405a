"""Embodied questions: walk until the answer can be known, then give it. After EQA and IQUAD."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from envs.house.houses import House
from envs.house.inquiry import ANSWERS, EQA, IQUAD, ask
from envs.house.simulator import relative, wrap
from envs.house.tasks.base import Episode, HouseTask, start_in

AROUND = 36
"""Directions of ten degrees, of which a look around sees all."""
AT = 0.4
"""Metres from the middle of a room that count as there."""


class Questions(HouseTask):
    """An action of `answer <word>` ends the episode; success is that it is the right one, wherever the agent is.

    `reference` has `answer` and `question_type`, `prediction` is the word: `embodied-score profile=eqa` or `iquad`. The
    oracle goes where the answer is seen: to the object, which it faces; or to the middle of each room in question, to
    look all around. `distance` is the way to the next such place.
    """

    kinds: ClassVar[tuple[str, ...]]
    near: ClassVar[float] = 1.0

    def draw(self, house: House, rng: np.random.Generator) -> Episode | None:
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        question = next(filter(None, (ask(house.spec, kind, rng, self.reworded) for _ in range(20))), None)
        if question is None:
            return None
        start = start_in(self.sim, rng)
        finder = self.sim.finder
        if question.target is not None:
            goals = house.views(question.target, finder)
            goals = goals[[house.room_at(goal) in question.rooms for goal in goals]]
            if not len(goals) or house.room_at(start.position) in question.rooms:
                return None
            self.stations = [goals]
        else:
            self.stations = self.tour(house, question.rooms, start.position)
        self.question, self.seen = question, np.zeros(AROUND, bool)
        self.answered = ""
        numbered = str(IQUAD.index(kind)) if kind in IQUAD else kind  # as IQUAD's own tables have it
        said = {"question_text": question.text, "answer_text": question.answer, "question_type": numbered}
        reference = {"question": said, "answer": question.answer, "question_type": numbered}
        return Episode(start, self.stations[0], question.text, reference)

    def tour(self, house: House, rooms: tuple[int, ...], at: np.ndarray) -> list[np.ndarray]:
        """The middles of rooms, each time the nearest next: a list of (1, 2)."""
        finder, left = self.sim.finder, []
        for room in rooms:
            x0, y0, x1, y1 = house.spec.rooms[room].inside
            spots = np.stack(np.meshgrid(np.linspace(x0, x1, 9), np.linspace(y0, y1, 9)), -1).reshape(-1, 2)
            spots = spots[finder.is_navigable(spots)]
            middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
            spots = spots if len(spots) else finder.snap(middle)[None]
            left.append(spots[int(np.linalg.norm(spots - middle, axis=1).argmin())])
        order: list[np.ndarray] = []
        while left:
            nearest = int(finder.geodesics(at[None], np.array(left))[0].argmin())
            at = left.pop(nearest)
            order.append(at[None])
        return order

    def notice(self) -> None:
        """Look for the present station, and go on to the next one when enough was seen."""
        state = self.sim.state
        if self.question.target is not None or not self.stations or self.distance() > AT:
            return
        bins = (np.arange(AROUND) + 0.5) * 2 * math.pi / AROUND
        away = np.abs((bins - state.heading + math.pi) % (2 * math.pi) - math.pi)
        self.seen |= away <= math.radians(self.body.field_of_view / 2)
        if self.seen.all():
            self.stations.pop(0)
            self.seen[:] = False
            if self.stations:
                self.aim(self.stations[0])
                self.walk.distances[-1] = self.distance()

    def decide(self, action: str) -> tuple[bool, bool]:
        self.answered = action.removeprefix("answer ")
        return True, self.answered == self.question.answer

    def advise(self) -> str:
        if not self.stations:
            return f"answer {self.question.answer}"
        action = super().advise()
        return action if action in self.body.moves else self.look()

    def look(self) -> str:
        """What the oracle does at a station: face the object and answer, or look around."""
        if self.question.target is None:
            return "turn_left"
        centre = self.sim.house.spec.objects[self.question.target].centre
        ahead, left = relative(np.array(centre[:2]), self.sim.state)
        bearing = wrap(math.atan2(left, ahead))
        if abs(bearing) <= math.radians(self.body.turn) / 2 + 1e-6:
            return f"answer {self.question.answer}"
        return "turn_left" if bearing > 0 else "turn_right"

    def measures(self) -> dict[str, float]:
        return {"success": float(self.success), "path_length": self.walk.length, "answered": float(self.ended)}

    def record(self) -> dict[str, Any]:
        return {"episode_id": self.episode_id, "prediction": self.answered}


class EmbodiedQA(Questions):
    """What room, what colour, what is on it (EQA): the agent starts in another room than the object."""

    name, kinds = "eqa", EQA
    own = tuple(f"answer {word}" for word in ANSWERS["eqa"])


class InteractiveQA(Questions):
    """Is there one, how many, is it in there (IQUAD's questions, without its opening of cupboards)."""

    name, kinds = "iquad", IQUAD
    own = tuple(f"answer {word}" for word in ANSWERS["iquad"])
