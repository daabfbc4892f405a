"""The contract of a resolution strategy: which views of a picture are encoded, and how their tokens line up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """What became of one picture, in numbers alone, so that its tokens can be counted before anything is encoded.

    Attributes:
        size: (height, width) of the picture.
        views: (height, width) of each view, in the order they are encoded.
        tiles: rows and columns of the tiles among the views; (0, 0): none, only an overview.
        overview: index of the view that shows the whole picture; None: none does.
    """

    size: tuple[int, int]
    views: tuple[tuple[int, int], ...]
    tiles: tuple[int, int] = (0, 0)
    overview: int | None = 0


class Resolution(nn.Module, ABC):
    """Which views of a picture the encoder reads, and how their tokens become one sequence.

    `plan` is the only place where the number and size of views is decided; `cut`, `count` and `arrange` follow its
    layout, so that the processor's placeholders and the model's tokens cannot disagree. A strategy may own parameters
    (a newline token), hence a module.

    Args:
        width: D of the tokens that `arrange` is given; for strategies with tokens of their own.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def plan(self, height: int, width: int) -> Layout:
        """The layout of a picture of this size.

        Raises:
            ValueError: no view of such a picture makes sense (a side of 0 pixels, an aspect ratio out of bounds).
        """

    @abstractmethod
    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        """The views of an RGB picture, each of the size that the layout says."""

    @abstractmethod
    def count(self, layout: Layout, grids: Sequence[tuple[int, int]]) -> int:
        """Length of what `arrange` gives, for views whose tokens make these grids (rows, columns)."""

    def runs(self, layout: Layout, grids: Sequence[tuple[int, int]]) -> list[int]:
        """`count` as the lengths of runs between which a chat template may put text (row and column of a tile).

        Strategies whose tokens are one indivisible sequence have a single run.
        """
        return [self.count(layout, grids)]

    @abstractmethod
    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[tuple[int, int]]) -> Tensor:
        """Tokens of each view, (rows x columns, D) row by row, as one sequence (N, D)."""

    def film_grid(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        """Times, rows and columns of what `arrange_film` makes of tokens with these; (1, 1, N) where it is no grid."""
        return grid

    def arrange_film(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Tokens of films that are read as a whole, (B, times x rows x columns, D), as sequences (B, N, D)."""
        return tokens
