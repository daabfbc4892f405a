"""Resample, then rearrange: TextHawk's connection, which leaves one token of sixteen features.

TextHawk (Yu et al. 2024, arXiv 2404.09204), as far as the paper tells; its model was not released. Queries are proposed
by the features themselves: an MLP per feature, and the maximum over each block of 2 x 2. They attend to the features,
layer by layer to other levels of the encoder, with embeddings of places that scale to any grid: on each axis, points of
a great arc between two learned ends. At last four neighbours in a row are joined and go through an MLP.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import divides, grid_of, positive
from embodied.lvlm.connectors.maps import as_maps
from embodied.lvlm.connectors.projection import MLPConnector
from embodied.lvlm.connectors.stages import Join


class TextHawkConnector(Connector):
    """Proposed queries, cross-attention to several levels, joining of neighbours.

    Args:
        features, width: D_enc and D.
        hidden: width of the resampler.
        layers: its depth.
        heads: attention heads; they divide `hidden`.
        levels: of the encoder, whose features lie side by side as channels, the shallowest first, in equal shares; the
            first layers look at the deepest level, the last ones at the shallowest.
        block: side of the blocks that propose one query each; rows and columns are multiples of it.
        join: queries that make one token.

    Raises:
        ValueError: a size that does not fit; when used: the features make no grid that blocks and joins fill.
    """

    def __init__(
        self,
        features: int,
        width: int,
        hidden: int = 1024,
        layers: int = 4,
        heads: int = 16,
        levels: int = 1,
        block: int = 2,
        join: int = 4,
    ) -> None:
        super().__init__(features, width)
        divides("TextHawkConnector", "levels", levels, "features", features)
        divides("TextHawkConnector", "heads", heads, "hidden", hidden)
        positive("TextHawkConnector", layers=layers, block=block, join=join)
        self.levels, self.block = levels, block
        self.embed = nn.ModuleList(nn.Linear(features // levels, hidden) for _ in range(levels))
        self.propose = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.ends = nn.Parameter(torch.randn(2, 2, hidden) * 0.02)  # of rows and columns
        self.layers = nn.ModuleList(_Layer(hidden, heads) for _ in range(layers))
        self.project = MLPConnector(hidden, width, stage=Join(join))

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        self.tokens(features.shape[1], context)
        rows, columns = grid_of("TextHawkConnector", features.shape[1], context)
        shares = as_maps("TextHawkConnector", features, context).flatten(2).transpose(1, 2).chunk(self.levels, dim=-1)
        levels = [embed(share) for embed, share in zip(self.embed, shares, strict=True)]
        proposed = self.propose(levels[-1]).transpose(1, 2).unflatten(2, (rows, columns))
        queries = F.max_pool2d(proposed, self.block).flatten(2).transpose(1, 2)
        spots, places = self.places(rows // self.block, columns // self.block), self.places(rows, columns)
        for i, layer in enumerate(self.layers):
            level = levels[len(levels) - 1 - i * len(levels) // len(self.layers)]
            queries = layer(queries, level, spots, places)
        return self.project(queries).unflatten(0, (-1, context.frames)).flatten(1, 2)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        rows, columns = grid_of("TextHawkConnector", features, context)
        if rows % self.block or columns % self.block:
            raise ValueError(f"TextHawkConnector: blocks of {self.block} do not fill a grid of {rows} x {columns}")
        return context.frames * self.project.tokens(rows * columns // self.block**2)

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.project.grid((features[0] // self.block, features[1] // self.block))

    def places(self, rows: int, columns: int) -> Tensor:
        """(rows x columns, hidden): row embedding plus column embedding, row by row."""
        along = [_arc(ends, count) for ends, count in zip(self.ends, (rows, columns), strict=True)]
        return (along[0].unsqueeze(1) + along[1]).flatten(0, 1)


def _arc(ends: Tensor, count: int) -> Tensor:
    """Spherical interpolation between two ends (2, D), at the middles of `count` equal parts: (count, D)."""
    part = ((torch.arange(count, device=ends.device, dtype=ends.dtype) + 0.5) / count).unsqueeze(1)
    angle = F.cosine_similarity(ends[0], ends[1], dim=0).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    return (((1 - part) * angle).sin() * ends[0] + (part * angle).sin() * ends[1]) / angle.sin()


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_queries, self.norm_features, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, features: Tensor, spots: Tensor, places: Tensor) -> Tensor:
        values = self.norm_features(features)
        asking = self.norm_queries(queries) + spots
        queries = queries + self.attention(asking, values + places, values, need_weights=False)[0]
        return queries + self.mlp(self.norm_mlp(queries))
