"""Project first, then pool over space and time: PLLaVA's connection.

PLLaVA (Xu et al. 2024, arXiv 2404.16994) keeps LLaVA's projection and takes means of its tokens over a coarser grid of
frames, rows and columns. (Pooling first, as DeCo does, is `MLPConnector` with the stage `Pool`.)
"""

from __future__ import annotations

from torch import Tensor

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.projection import MLPConnector
from embodied.lvlm.connectors.stages import Pool


class PooledConnector(Connector):
    """LLaVA's MLP, and adaptive average pooling of what it gives.

    Args:
        features, width: D_enc and D.
        rows, columns: of the tokens of a frame; PLLaVA: 12 x 12.
        frames: that a video's frames are pooled to; None: each frame is pooled by itself.
        layers, activation: of the MLP.

    Raises:
        ValueError: a size is not positive; when used: the features make no grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        rows: int = 12,
        columns: int = 12,
        frames: int | None = None,
        layers: int = 2,
        activation: str = "gelu",
    ) -> None:
        super().__init__(features, width)
        self.mlp = MLPConnector(features, width, layers=layers, activation=activation)
        self.pool = Pool(rows, columns, frames)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        return self.pool(self.mlp(features), context)[0]

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return self.pool.tokens(features, context)

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.pool.grid(features)
