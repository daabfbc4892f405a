"""A scene: things on a table, a camera, a light; drawn at random from a seed.

World frame: metres, z up, the table is the plane z = 0. A scene's numbers depend on (data set's seed, its own number)
alone, so that any process may draw any scene.

Scenes have what pictures of the real world have: some things are common and some rare, and some occur together. That is
what popular and adversarial probes are about. Half of the scenes take their things from a few shapes and colours, so
that larger counts occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.scenes.meshes import HALF_HEIGHTS, hull_points
from envs.scenes.vocabulary import SIZES, TABLES, UNSEEN, Pair, Vocabulary

REACH, GAP = 0.32, 0.02
"""Things stand within `REACH` metres of the middle, in both directions, and at least `GAP` metres apart."""
CLEAR = 0.78
"""Least distance of two things in the picture, as a part of the sum of their radii there: few hide one another."""
FRAME = 0.02
"""Margin of the picture, as a part of its side, that no thing reaches into."""
COMPANY = 0.35
"""How often a thing is followed by the one that it is usually seen with."""
TRIES = 60
PICTURE, FILM = 0, 1
"""Which stream of random numbers a scene is drawn from."""


@dataclass(frozen=True)
class Thing:
    """One thing on the table.

    Attributes:
        shape, colour, size, texture: words of the vocabulary.
        place: x, y of its middle, metres.
        turn: about the vertical, radians.
    """

    shape: str
    colour: str
    size: str
    texture: str
    place: tuple[float, float]
    turn: float

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    @property
    def middle(self) -> tuple[float, float, float]:
        return (*self.place, HALF_HEIGHTS[self.shape] * self.radius)

    def at(self, place: tuple[float, float]) -> Thing:
        """The same thing elsewhere."""
        return Thing(self.shape, self.colour, self.size, self.texture, place, self.turn)

    def corners(self) -> np.ndarray:
        """Points (P, 3) in the world whose convex hull is that of the thing."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        turned = hull_points(self.shape) @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        return turned * self.radius + np.array(self.middle)


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from.

    Attributes:
        eye, at: where it is and what it looks at, metres, world.
        fov: the angle that the picture spans in height and width, degrees.
    """

    eye: tuple[float, float, float]
    at: tuple[float, float, float]
    fov: float

    @cached_property
    def axes(self) -> np.ndarray:
        """Rows are the camera's right, up and forward directions in the world, (3, 3)."""
        forward = np.subtract(self.at, self.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(right, forward), forward])

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (P, 3) -> (P, 2): column and row as parts of the picture's side, (0, 0) is its upper left."""
        seen = (points - np.array(self.eye)) @ self.axes.T
        half = np.tan(np.radians(self.fov) / 2)
        flat = seen[:, :2] / (seen[:, 2:] * half)
        return np.stack([(1 + flat[:, 0]) / 2, (1 - flat[:, 1]) / 2], 1)

    def ground(self) -> np.ndarray:
        """Rows are the horizontal directions that are right and away as the camera sees them, (2, 2)."""
        right, _, forward = self.axes
        away = forward[:2] / np.linalg.norm(forward[:2])
        return np.stack([right[:2], away])


@dataclass(frozen=True)
class Light:
    """A distant light: where it comes from, its RGB colour in [0, 1], and how much of it is ambient and diffuse."""

    towards: tuple[float, float, float]
    colour: tuple[float, float, float]
    ambient: float
    diffuse: float


@dataclass(frozen=True)
class Scene:
    """All that a renderer needs to know."""

    things: tuple[Thing, ...]
    camera: Camera
    light: Light
    table: tuple[float, float, float]


class SceneDrawer:
    """Draws the scenes of one data set.

    Args:
        vocabulary: the words.
        seed: the data set's.
        least, most: how many things a scene has.
    """

    def __init__(self, vocabulary: Vocabulary, seed: int, least: int, most: int) -> None:
        self.vocabulary, self.seed, self.least, self.most = vocabulary, seed, least, most
        self._usual: dict[bool, tuple[list[Pair], np.ndarray, np.ndarray]] = {}
        for unseen in (False, True):
            random = np.random.default_rng([seed, 7, int(unseen)])
            pairs = vocabulary.pairs(UNSEEN if unseen else "")
            common = random.permutation(np.linspace(0.6, 1.4, len(pairs)))
            order = random.permutation(len(pairs))
            company = np.empty(len(pairs), int)
            company[order] = np.roll(order, 1)  # one circle: everything has a companion other than itself
            self._usual[unseen] = (pairs, common, company)

    def draw(self, number: int, split: str, stream: int = PICTURE, most: int | None = None) -> Scene:
        """The scene of that number; its things are of the split's pairs, and at most `most` where given."""
        random = np.random.default_rng([self.seed, stream, number])
        camera, light = self._camera(random), self._light(random)
        table = tuple(min(1.0, float(c + random.uniform(-0.04, 0.04))) for c in TABLES[random.integers(len(TABLES))])
        most = self.most if most is None else max(self.least, min(most, self.most))
        wanted = int(random.integers(self.least, most + 1))
        while True:
            things = self._things(random, camera, self._looks(random, split, wanted))
            if len(things) >= min(self.least, wanted):
                return Scene(tuple(things), camera, light, (table[0], table[1], table[2]))

    def _looks(self, random: np.random.Generator, split: str, count: int) -> list[tuple[str, str, str, str]]:
        pairs, common, company = self._usual[split == UNSEEN]
        weights = common.copy()
        if random.random() < 0.5:
            shapes = random.choice(self.vocabulary.words["shape"], min(2, len(self.vocabulary.words["shape"])), False)
            colours = random.choice(self.vocabulary.words["colour"], 4, False)
            few = np.array([shape in shapes and colour in colours for shape, colour in pairs])
            weights = weights * few if few.any() else weights
        looks, last = [], -1
        for _ in range(count):
            if last >= 0 and random.random() < COMPANY:
                last = int(company[last])
            else:
                last = int(random.choice(len(pairs), p=weights / weights.sum()))
            size = str(random.choice(self.vocabulary.words["size"]))
            textures = self.vocabulary.words["texture"]
            texture = textures[0] if random.random() < 0.2 else str(random.choice(textures))
            looks.append((*pairs[last], size, texture))
        return looks

    @staticmethod
    def _things(random: np.random.Generator, camera: Camera, looks: Sequence[tuple[str, str, str, str]]) -> list[Thing]:
        placed: list[Thing] = []
        for look in looks:
            for _ in range(TRIES):
                place = random.uniform(-REACH, REACH, 2) @ camera.ground()
                thing = Thing(*look, (float(place[0]), float(place[1])), float(random.uniform(0, 2 * np.pi)))
                if fits(thing, placed, camera):
                    placed.append(thing)
                    break
        return placed

    @staticmethod
    def _camera(random: np.random.Generator) -> Camera:
        at = np.array([*random.uniform(-0.02, 0.02, 2), 0.02])
        around, above = random.uniform(0, 2 * np.pi), np.radians(random.uniform(34, 52))
        away = random.uniform(0.86, 0.98)
        eye = at + away * np.array([np.cos(above) * np.cos(around), np.cos(above) * np.sin(around), np.sin(above)])
        return Camera((*map(float, eye),), (*map(float, at),), float(random.uniform(38, 42)))  # type: ignore[arg-type]

    @staticmethod
    def _light(random: np.random.Generator) -> Light:
        around, above = random.uniform(0, 2 * np.pi), np.radians(random.uniform(48, 75))
        towards = (np.cos(above) * np.cos(around), np.cos(above) * np.sin(around), np.sin(above))
        colour = random.uniform(0.93, 1.0, 3)
        return Light(
            (*map(float, towards),),  # type: ignore[arg-type]
            (*map(float, colour),),  # type: ignore[arg-type]
            float(random.uniform(0.42, 0.52)),
            float(random.uniform(0.5, 0.65)),
        )


def fits(thing: Thing, others: Sequence[Thing], camera: Camera) -> bool:
    """Whether a thing is whole in the picture, apart from the others, and hides none of them by much."""
    flat = camera.project(thing.corners())
    if flat.min() < FRAME or flat.max() > 1 - FRAME:
        return False
    middle, reach = _disc(flat)
    for other in others:
        apart = float(np.hypot(thing.place[0] - other.place[0], thing.place[1] - other.place[1]))
        if apart < 1.1 * (thing.radius + other.radius) + GAP:
            return False
        there, extent = _disc(camera.project(other.corners()))
        if np.linalg.norm(middle - there) < CLEAR * (reach + extent):
            return False
    return True


def _disc(flat: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle of a flat shape's box, and half the mean of its sides."""
    low, high = flat.min(0), flat.max(0)
    return (low + high) / 2, float((high - low).mean() / 2)
