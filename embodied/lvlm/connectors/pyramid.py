"""From coarse to fine: maxima over the whole picture, over its quarters and so on, then the features themselves.

Spatial pyramid pooling (He et al. 2014, arXiv 1406.4729) in front of LLaVA's MLP. A maximum over the picture tells what
is in it from the first steps of training on, where a language model that still attends everywhere alike would see the
mean of many features, nearly all of them background. So models that learn to see from nothing learn it sooner.
Keypoints may follow: where things are, more finely than the grid says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.building import check_arguments
from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import grid_of, positive
from embodied.lvlm.connectors.keypoints import Keypoints
from embodied.lvlm.connectors.maps import as_maps
from embodied.lvlm.connectors.projection import MLPConnector


class PyramidConnector(Connector):
    """One token per cell of each level, the coarsest level first, then one per feature, then keypoints; frame by frame.

    Args:
        features, width: D_enc and D.
        levels: rows and columns of each level's grid, at most the features' own.
        layers, activation: of the MLP.
        points: arguments of `embodied.lvlm.connectors.keypoints.Keypoints`; None: no keypoints.

    Raises:
        ValueError: no levels, or one that is not positive; whatever `Keypoints` objects to; when used: the features
            make no grid, or one that is coarser than a level.
    """

    def __init__(
        self,
        features: int,
        width: int,
        levels: Sequence[int] = (1, 2, 4),
        layers: int = 2,
        activation: str = "gelu",
        points: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(features, width)
        if not levels:
            raise ValueError("PyramidConnector: levels are the sides of grids, such as [1, 2, 4]; there is none")
        positive("PyramidConnector", **{f"levels[{i}]": level for i, level in enumerate(levels)})
        self.levels = tuple(levels)
        self.mlp = MLPConnector(features, width, layers=layers, activation=activation)
        self.level = nn.Embedding(len(self.levels) + 1, features)
        check_arguments(Keypoints, {"features": features, "width": width, **(points or {})})
        self.points = Keypoints(features, width, **points) if points is not None else None

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        maps = as_maps("PyramidConnector", features, context)
        self._check(maps.shape[2], maps.shape[3])
        pooled = [*(F.adaptive_max_pool2d(maps, level) for level in self.levels), maps]
        cells = [level.flatten(2).transpose(1, 2) + self.level.weight[i] for i, level in enumerate(pooled)]
        tokens = self.mlp(torch.cat(cells, dim=1))
        if self.points is not None:
            where = self.points(maps.flatten(2).transpose(1, 2), Context(grid=(maps.shape[2], maps.shape[3])))
            tokens = torch.cat([tokens, where], dim=1)
        return tokens.unflatten(0, (-1, context.frames)).flatten(1, 2)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        rows, columns = grid_of("PyramidConnector", features, context)
        self._check(rows, columns)
        points = 0 if self.points is None else self.points.count
        return features + context.frames * (sum(level * level for level in self.levels) + points)

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return 1, self.tokens(features[0] * features[1], Context(grid=features))

    def _check(self, rows: int, columns: int) -> None:
        if max(self.levels) > min(rows, columns):
            raise ValueError(
                f"PyramidConnector: a level of {max(self.levels)} is finer than the grid of {rows} x {columns} features"
            )
