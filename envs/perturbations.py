"""Perturbed splits: the same episodes, except for what a policy should not mind.

A policy that was trained and tested in one scene can be blind, and still look good. Here each episode keeps its goal
and its objects where the seed puts them, and changes something else:

| kind | what changes |
|---|---|
| `camera` | each camera is up to 4 cm off its place along each of its axes, and up to 4 degrees turned about each |
| `lighting` | the light is 0.5 to 0.75 or 1.25 to 1.5 times as bright, tinted by up to 15 %, from elsewhere |
| `colour` | floor, table and walls have another colour; objects, goals and robot a somewhat different one |
| `distractors` | 3 small things that can be seen and not touched lie about, clear of objects and goals |
| `start` | the hand starts up to 3 cm off along each axis |
| `instruction` | the task is said in other words |

Figures are those of level 1; a level scales them. What is drawn depends on the kind, the task and the episode's seed
alone: a kind looks the same alone and among others, the same seed can be compared with and without it, and an episode
is perturbed in the same way whatever ran before.

This module draws the parameters and knows no simulator; an environment applies them, and says in `perturbable` which
kinds make sense there (`envs.base.SimulatedBody`); it refuses the others. It leaves its cameras' `renderer`
as they are without perturbation: the point is to run a policy where it was not trained. The results say what was
perturbed, in the environment's name and its arguments.
"""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from embodied.building import nearest

KINDS = ("camera", "lighting", "colour", "distractors", "start", "instruction")
MOST = 2.0
"""The highest level."""
SHAPES = ("box", "ball", "cylinder")


@dataclass(frozen=True)
class CameraShift:
    """How far a camera is off.

    Attributes:
        offset: (3,) metres along its right, up and backward axes.
        rotation: (3, 3), from the shifted camera's axes to those it should have.
    """

    offset: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True)
class Light:
    """How the light differs from the usual one.

    Attributes:
        brightness: a factor.
        colour: a factor for red, green and blue each.
        azimuth: the angle by which it comes from elsewhere, radians about the vertical.
    """

    brightness: float = 1.0
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    azimuth: float = 0.0

    def turn(self, direction: np.ndarray) -> np.ndarray:
        """A direction (3,), turned about the vertical."""
        c, s = np.cos(self.azimuth), np.sin(self.azimuth)
        return np.array([c * direction[0] - s * direction[1], s * direction[0] + c * direction[1], direction[2]])


@dataclass(frozen=True)
class Distractor:
    """A thing that lies about.

    Attributes:
        shape: of `SHAPES`.
        size: half its extent in every direction, metres.
        colour: red, green and blue, 0 to 1.
        place: x and y in the world, metres.
    """

    shape: str
    size: float
    colour: tuple[float, float, float]
    place: tuple[float, float]


@dataclass(frozen=True)
class Perturbations:
    """Which kinds are on, and how strongly.

    Attributes:
        levels: by kind, 0 (off) to 2; 1 is the level that results are quoted at.

    Raises:
        ValueError: an unknown kind, a level outside of 0 to 2.
    """

    levels: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, level in self.levels.items():
            if kind not in KINDS:
                raise ValueError(f"there is no perturbation '{kind}'{nearest(kind, KINDS)}")
            if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= MOST:
                raise ValueError(f"the level of perturbation '{kind}' is a number from 0 to {MOST:g}, got {level}")

    def of(self, task: str, seed: int) -> Drawn:
        """What changes in the episode that (task, seed) names."""
        return Drawn({kind: float(level) for kind, level in self.levels.items() if level > 0}, task, seed)


@dataclass(frozen=True)
class Drawn:
    """The perturbation of one episode; each method gives what an unperturbed episode has where its kind is off."""

    levels: Mapping[str, float]
    task: str
    seed: int

    def camera(self, name: str) -> CameraShift | None:
        """How far the camera of that name is off; None where it is in its place."""
        if "camera" not in self.levels:
            return None
        random, level = self._random("camera", name), self.levels["camera"]
        offset, turn = random.uniform(-0.04, 0.04, 3) * level, np.radians(random.uniform(-4, 4, 3) * level)
        return CameraShift(offset, Rotation.from_rotvec(turn).as_matrix())

    def light(self) -> Light:
        """How the light differs."""
        if "lighting" not in self.levels:
            return Light()
        random, level = self._random("lighting"), self.levels["lighting"]
        brightness = 1 + float(random.choice([-1, 1]) * random.uniform(0.25, 0.5)) * min(level, 1.8)
        red, green, blue = (float(x) for x in 1 + random.uniform(-0.15, 0.15, 3) * level)
        return Light(brightness, (red, green, blue), float(random.uniform(-np.pi, np.pi) * min(level, 1.0)))

    def colour(self, name: str, usual: Sequence[float], surroundings: bool = False) -> tuple[float, float, float]:
        """The colour of the thing of that name, red, green and blue from 0 to 1.

        Args:
            name: what it is; each has its own.
            usual: its colour without perturbation; what follows the first three numbers is ignored.
            surroundings: it is floor, table or wall, which may have any colour; other things remain recognisable.
        """
        before = np.array(usual[:3], float)
        if "colour" in self.levels:
            random, level = self._random("colour", name), self.levels["colour"]
            if surroundings:
                other = np.array(
                    colorsys.hsv_to_rgb(random.random(), random.uniform(0.2, 0.6), random.uniform(0.3, 0.9))
                )
                before = before + min(level, 1.0) * (other - before)
            else:
                before = before + level * random.uniform(-0.15, 0.15, 3)
        red, green, blue = (float(x) for x in np.clip(before, 0.0, 1.0))
        return red, green, blue

    def distractors(
        self, low: Sequence[float], high: Sequence[float], clear: Sequence[np.ndarray], gap: float = 0.08
    ) -> list[Distractor]:
        """The things that lie about.

        Args:
            low, high: the corners (x, y) of where they may be, metres.
            clear: places (x, y, ...) that they keep `gap` metres away from, as they do from each other. Where that
                cannot be had there are fewer.
        """
        if "distractors" not in self.levels:
            return []
        random = self._random("distractors")
        taken = [np.array(place[:2], float) for place in clear]
        things: list[Distractor] = []
        for _ in range(max(1, round(3 * self.levels["distractors"]))):
            shape, size = str(random.choice(SHAPES)), float(random.uniform(0.018, 0.03))
            red, green, blue = colorsys.hsv_to_rgb(random.random(), random.uniform(0.5, 1), random.uniform(0.4, 0.9))
            for place in random.uniform(low[:2], high[:2], (64, 2)):
                if all(np.linalg.norm(place - other) >= gap for other in taken):
                    taken.append(place)
                    things.append(Distractor(shape, size, (red, green, blue), (float(place[0]), float(place[1]))))
                    break
        return things

    def start(self) -> np.ndarray:
        """How far the hand starts off its place, (3,) metres in the world."""
        if "start" not in self.levels:
            return np.zeros(3)
        return self._random("start").uniform(-0.03, 0.03, 3) * self.levels["start"]

    def instruction(self, usual: str, others: Sequence[str]) -> str:
        """The task in words: `usual`, or one of `others`, whatever the level."""
        if "instruction" not in self.levels or not others:
            return usual
        return str(others[int(self._random("instruction").integers(len(others)))])

    def _random(self, kind: str, what: str = "") -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(f"{kind}/{self.task}/{what}".encode())])
