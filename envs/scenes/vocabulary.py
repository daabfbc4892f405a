"""What things look like and what they are called; which looks are kept for the split `unseen`.

A quarter of all pairs of shape and colour never occurs outside `unseen`, and `unseen` shows nothing else (condition B
of CLEVR-CoGenT, Johnson et al. 2017, arXiv 1612.06890).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from embodied.building import nearest

SHAPES = {
    "cube": "cubes",
    "ball": "balls",
    "cylinder": "cylinders",
    "cone": "cones",
    "ring": "rings",
    "cross": "crosses",
}
"""Shape -> its plural."""
COLOURS = {
    "red": (0.86, 0.10, 0.10),
    "orange": (0.98, 0.50, 0.06),
    "yellow": (0.96, 0.88, 0.12),
    "green": (0.10, 0.60, 0.16),
    "cyan": (0.20, 0.82, 0.86),
    "blue": (0.12, 0.26, 0.88),
    "purple": (0.56, 0.16, 0.72),
    "gray": (0.45, 0.45, 0.47),
}
"""Colour -> RGB in [0, 1]."""
SIZES = {"small": 0.05, "large": 0.08}
"""Size -> half the width of a thing, metres. In ascending order."""
TEXTURES = ("plain", "striped", "checked")
TABLES = ((0.82, 0.74, 0.62), (0.86, 0.84, 0.80), (0.70, 0.62, 0.54), (0.74, 0.79, 0.74), (0.80, 0.75, 0.80))
"""Pale colours of tables, from which every thing's colour stands out."""
ATTRIBUTES = ("size", "texture", "colour", "shape")
"""In the order in which English puts them before a noun."""
UNSEEN = "unseen"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Pair = tuple[str, str]
"""A shape and a colour: what POPE calls an object."""


class Vocabulary:
    """Which shapes, colours, sizes and textures there are in a data set, and which pairs are kept for `unseen`.

    Args:
        shapes, colours, sizes, textures: of `SHAPES`, `COLOURS`, `SIZES` and `TEXTURES`; None for all.

    Attributes:
        words: attribute -> its values.

    Raises:
        ValueError: a word there is not, one named twice, or too few to keep some pairs unseen.
    """

    def __init__(
        self,
        shapes: Sequence[str] | None = None,
        colours: Sequence[str] | None = None,
        sizes: Sequence[str] | None = None,
        textures: Sequence[str] | None = None,
    ) -> None:
        self.words: dict[str, list[str]] = {}
        asked = {"size": (sizes, SIZES), "texture": (textures, TEXTURES), "colour": (colours, COLOURS)}
        for attribute, (chosen, known) in {**asked, "shape": (shapes, SHAPES)}.items():
            words = list(known) if chosen is None else list(chosen)
            for word in words:
                if word not in known:
                    raise ValueError(f"no {attribute} is called '{word}'{nearest(str(word), list(known))}")
            if len(set(words)) != len(words) or not words:
                raise ValueError(f"{attribute}s are at least one word, each named once, got {words}")
            self.words[attribute] = [word for word in known if word in words]
        if len(self.words["shape"]) < 3 or len(self.words["colour"]) < 4:
            raise ValueError(
                "at least 3 shapes and 4 colours are needed, so that some of their pairs can be kept unseen"
            )

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of shape and colour that occur in a split."""
        return [pair for pair in self._all() if self.is_unseen(pair) == (split == UNSEEN)]

    def is_unseen(self, pair: Pair) -> bool:
        """Whether a pair is kept for the split `unseen`."""
        shape, colour = pair
        return (self.words["shape"].index(shape) + self.words["colour"].index(colour)) % 4 == 0

    def _all(self) -> list[Pair]:
        return list(product(self.words["shape"], self.words["colour"]))


def plural(shape: str) -> str:
    """`cubes` of `cube`; also of `object`."""
    return SHAPES.get(shape, f"{shape}s")


def article(phrase: str) -> str:
    """`an orange ball`, `a red cube`."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
