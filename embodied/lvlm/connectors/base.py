"""The contract of a connector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """What a connector may know besides the features; a connector takes the part it needs.

    Attributes:
        grid: rows and columns of the features, which come row by row; None: they make no grid.
        frames: of a video, how many frames' features one row of the batch holds, one after the other.
        text: token ids of the instruction, (B, L), for instruction-aware connectors, in their own vocabulary.
        text_present: (B, L), bool; False on padding.
        present: (B, N), bool; False on features of padding (native resolutions in one batch); None: all are real.
    """

    grid: tuple[int, int] | None = None
    frames: int = 1
    text: Tensor | None = None
    text_present: Tensor | None = None
    present: Tensor | None = None


NOTHING = Context()


class Connector(nn.Module, ABC):
    """Features to tokens.

    Args:
        features: width D_enc of a feature.
        width: width D of a token.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features, self.width = features, width

    @abstractmethod
    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        """(B, N, D_enc) to (B, M, D)."""

    @abstractmethod
    def tokens(self, features: int, context: Context = NOTHING) -> int:
        """M for N features."""

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the tokens for features of this grid; (1, M) where they make none.

        Tokens that are as many as the features, or fewer by a whole factor on both sides, are taken for such a grid.
        """
        rows, columns = features
        count = self.tokens(rows * columns, Context(grid=features))
        factor = round((rows * columns / count) ** 0.5)
        if factor and rows % factor == 0 and columns % factor == 0 and (rows // factor) * (columns // factor) == count:
            return rows // factor, columns // factor
        return 1, count
