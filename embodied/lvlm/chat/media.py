"""How many tokens a picture or film takes, which the model's own resolution strategy says, and how they are grouped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embodied.lvlm.resolution.base import Layout, Resolution


@dataclass(frozen=True)
class Measured:
    """One picture in numbers.

    Attributes:
        runs: tokens of each run between which a template may put text (`Resolution.runs`).
        tiles: rows and columns of the tiles among the runs; (0, 0): none.
        overview: which run shows the whole picture; None: none does.
    """

    runs: tuple[int, ...]
    tiles: tuple[int, int] = (0, 0)
    overview: int | None = 0

    @property
    def count(self) -> int:
        return sum(self.runs)


@dataclass(frozen=True)
class Film:
    """Frames of a film, in order, and when they are seen, seconds."""

    frames: tuple[Measured, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.seconds):
            raise ValueError(f"a film of {len(self.frames)} frames has {len(self.seconds)} times")


def measure(resolution: Resolution, layout: Layout, grids: Sequence[tuple[int, int]]) -> Measured:
    """What a strategy says of a picture whose views' tokens make these grids; the model counts by the same."""
    return Measured(tuple(resolution.runs(layout, grids)), layout.tiles, layout.overview)
