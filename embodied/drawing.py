"""Plans as pictures: floors, furniture, maps, ways and marks in metres, drawn anti-aliased in one restrained palette.

What an environment draws of the truth and what a map draws of a belief look alike, because both are drawn with this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, ...]
"""Red, green, blue, and where it lets something through an opacity, in 0..255."""

PAPER, UNKNOWN, FLOOR, WALL, INK = (236, 234, 229), (222, 220, 215), (252, 251, 249), (74, 78, 87), (58, 62, 70)
EARLY, LATE, AGENT, GOAL = (150, 178, 236), (37, 84, 199), (214, 66, 52), (28, 140, 92)
FRONTIER, HALO = (235, 150, 30), (255, 255, 255)
SCALE = ((247, 243, 228), (188, 217, 190), (92, 169, 176), (52, 104, 156), (47, 43, 105))
"""From low to high, for numbers."""
OVERSAMPLING = 2
CATEGORIES = 41
"""Of Matterport3D (mpcat40), whose ids houses and Habitat use: 0 void, 1 wall, 2 floor, 4 door, 17 ceiling."""


class Canvas:
    """A picture of a part of the plan. Points are x, y in metres; widths and radii are in 256ths of the height.

    Args:
        middle: what lies in the middle of the picture.
        across: metres from left to right and from bottom to top.
        height: pixels; the width follows.
        up: the direction that points up in the picture, radians counter-clockwise from +x; the default is north up.
        ground: the colour of what is not drawn on.

    Raises:
        ValueError: a part of the plan without extent.
    """

    def __init__(
        self,
        middle: Sequence[float] | np.ndarray,
        across: Sequence[float] | np.ndarray,
        height: int = 512,
        up: float = math.pi / 2,
        ground: Colour = PAPER,
    ) -> None:
        if min(across) <= 0 or height < 1:
            raise ValueError(f"a picture of {tuple(across)} metres and {height} pixels has no extent")
        self.size = max(1, round(height * across[0] / across[1])), height
        self.scale = height * OVERSAMPLING / across[1]
        self.unit = height * OVERSAMPLING / 256
        self.middle = np.asarray(middle, float)[:2]
        cosine, sine = math.cos(up), math.sin(up)
        self._turn = np.array([[sine, -cosine], [-cosine, -sine]])  # metres to right and down
        self._image = Image.new("RGB", (self.size[0] * OVERSAMPLING, self.size[1] * OVERSAMPLING), ground[:3])
        self._pen = ImageDraw.Draw(self._image, "RGBA")

    def copy(self) -> Self:
        """The same picture, to draw on further."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._image = self._image.copy()
        twin._pen = ImageDraw.Draw(twin._image, "RGBA")
        return twin

    def picture(self) -> np.ndarray:
        """What was drawn, uint8 (H, W, 3)."""
        return np.array(self._image.reduce(OVERSAMPLING))

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) column and row in the finished picture, fractions of pixels from its corner, of points (..., 2)."""
        return self._at(points) / OVERSAMPLING

    # what can be drawn

    def cells(self, colours: np.ndarray, resolution: float, middle: Sequence[float] = (0.0, 0.0)) -> None:
        """A grid of the plan, drawn over what is there.

        Args:
            colours: (I, J, 4) uint8, i along x and j along y; the last is the opacity.
            resolution: metres per cell.
            middle: where the grid's is.
        """
        back = self._turn.T / (self.scale * resolution)  # pixels to cells
        corner = (self.middle - np.asarray(middle)) / resolution + np.array(colours.shape[:2]) / 2
        corner = corner - back @ (np.array(self._image.size) / 2)
        rows = np.column_stack([back, corner])[::-1]  # a grid's y runs along its columns
        layer = Image.fromarray(np.ascontiguousarray(colours))
        affine = tuple(rows.ravel().tolist())
        layer = layer.transform(self._image.size, Image.Transform.AFFINE, affine, Image.Resampling.NEAREST)
        self._image.paste(layer, mask=layer)

    def area(self, corners: np.ndarray, colour: Colour, edge: Colour | None = None, width: float = 1.0) -> None:
        """A polygon, (K, 2)."""
        points = self._pairs(corners)
        self._pen.polygon(points, fill=colour)
        if edge is not None:
            self._pen.line([*points, points[0], points[1]], fill=edge, width=self._wide(width), joint="curve")

    def rectangle(
        self, bounds: Sequence[float], colour: Colour, edge: Colour | None = None, width: float = 1.0
    ) -> None:
        """x0, y0, x1, y1."""
        x0, y0, x1, y1 = bounds
        self.area(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), colour, edge, width)

    def disc(self, place: np.ndarray, metres: float, colour: Colour, edge: Colour | None = None) -> None:
        """A disc of some metres' radius."""
        self._ellipse(place, metres * self.scale, colour, edge)

    def mark(self, place: np.ndarray, radius: float, colour: Colour, edge: Colour | None = HALO) -> None:
        """A disc of the same size whatever the scale."""
        self._ellipse(place, radius * self.unit, colour, edge)

    def line(self, points: np.ndarray, colour: Colour, width: float = 2.0) -> None:
        """Through (K, 2) points, with round ends."""
        if len(points) == 0:
            return
        wide = self._wide(width)
        self._pen.line(self._pairs(points), fill=colour, width=wide, joint="curve")
        for x, y in (self._at(points[0]), self._at(points[-1])):
            self._pen.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), fill=colour)

    def dashes(self, points: np.ndarray, colour: Colour, width: float = 2.0, dash: float = 5.0) -> None:
        """The same as a broken line."""
        at = self._at(np.asarray(points, float))
        lengths = np.linalg.norm(np.diff(at, axis=0), axis=1)
        along = np.concatenate([[0.0], lengths.cumsum()])
        step = dash * self.unit
        for start in np.arange(0, along[-1], 2 * step):
            ends = [start, *along[(along > start) & (along < start + step)], min(start + step, along[-1])]
            piece = [tuple(np.interp(end, along, at[:, axis]) for axis in (0, 1)) for end in ends]
            self._pen.line(piece, fill=colour, width=self._wide(width), joint="curve")

    def walk(self, points: np.ndarray, width: float = 2.6) -> None:
        """A way (K, 2) that was gone: pale where it is long ago."""
        points = np.asarray(points, float)[:, :2]
        if len(points):
            self.line(points, HALO, width + 1.6)
        early, late = np.array(EARLY, float), np.array(LATE, float)
        for k in range(len(points) - 1):
            shade = early + (late - early) * (k + 1) / max(len(points) - 1, 1)
            self.line(points[k : k + 2], tuple(int(value) for value in shade), width)

    def agent(self, place: np.ndarray, heading: float, size: float = 7.0, view: float | None = None) -> None:
        """Who is where, and looks along `heading` (radians counter-clockwise from +x).

        Args:
            place, heading: of the agent.
            size: from its middle to its tip.
            view: degrees across its camera, shown as a faint wedge.
        """
        place, metres = np.asarray(place, float)[:2], self.unit / self.scale
        if view:
            angles = heading + np.radians(np.linspace(-view / 2, view / 2, 24))
            rim = place + 26 * metres * np.stack([np.cos(angles), np.sin(angles)], 1)
            self.area(np.concatenate([place[None], rim]), (*AGENT, 34))
        for grown, colour in ((1.45, HALO), (1.0, AGENT)):
            shape = np.array([(1.0, 0.0), (-0.7, 0.66), (-0.35, 0.0), (-0.7, -0.66)]) * grown - [
                0.12 * (grown - 1),
                0,
            ]
            turn = np.array([[math.cos(heading), -math.sin(heading)], [math.sin(heading), math.cos(heading)]])
            self.area(place + size * metres * shape @ turn.T, colour)

    def words(self, place: np.ndarray, text: str, colour: Colour = INK, size: float = 9.0) -> None:
        """Text with its middle at a place."""
        font = ImageFont.load_default(size * self.unit)
        self._pen.text(tuple(self._at(np.asarray(place, float))), text, fill=colour, font=font, anchor="mm")

    def _ellipse(self, place: np.ndarray, radius: float, colour: Colour, edge: Colour | None) -> None:
        x, y = self._at(np.asarray(place, float)[:2])
        if edge is not None:
            rim = radius + 1.2 * self.unit
            self._pen.ellipse((x - rim, y - rim, x + rim, y + rim), fill=edge)
        self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def _at(self, points: np.ndarray) -> np.ndarray:
        """Column and row before the picture is reduced."""
        away = (np.asarray(points, float)[..., :2] - self.middle) @ self._turn.T
        return away * self.scale + np.array(self._image.size) / 2

    def _pairs(self, points: np.ndarray) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in self._at(points)]

    def _wide(self, width: float) -> int:
        return max(1, round(width * self.unit))


@lru_cache
def category_colours(count: int = CATEGORIES) -> np.ndarray:
    """(count, 3) uint8: a quiet colour for each category of Matterport3D's numbering, neutral for walls and floors."""
    colours = np.empty((count, 3), np.uint8)
    for k in range(count):
        hue = k * 2.399963  # the golden angle: neighbours in number are far apart in colour
        lightness, chroma = (0.86, 0.79, 0.83)[k % 3], (0.065, 0.075, 0.055)[k % 3]
        colours[k] = _oklch(lightness, chroma, hue)
    for k, fixed in {0: UNKNOWN, 1: WALL, 2: FLOOR, 4: (190, 178, 160), 17: FLOOR}.items():
        if k < count:
            colours[k] = fixed
    colours.setflags(write=False)
    return colours


def shades(values: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """(..., 3) uint8 from pale to deep, for numbers from `low` to `high`."""
    share = np.clip((np.asarray(values, float) - low) / max(high - low, 1e-12), 0, 1) * (len(SCALE) - 1)
    steps = np.arange(len(SCALE))
    return np.stack([np.interp(share, steps, [c[k] for c in SCALE]) for k in range(3)], -1).astype(np.uint8)


def _oklch(lightness: float, chroma: float, hue: float) -> tuple[int, ...]:
    """A colour of Ottosson's Oklab (2020), where equal steps look equal, in sRGB."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    cones = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    mixing = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(mixing @ cones**3, 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(round(255 * float(value)) for value in coded)
