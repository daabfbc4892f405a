"""Where things are: learned keypoints, each the mean position that one map of the image attends to.

Spatial softmax (Levine et al. 2016, arXiv 1504.00702; Finn et al. 2016, arXiv 1509.06113; robomimic's and Diffusion
Policy's `SpatialSoftmax`). A keypoint is the expectation of a position under a softmax over the grid, so it is finer
than a cell and follows a thing that moves, which a policy learns from few demonstrations. Here a keypoint also brings
what it looks at: a few numbers of the feature there, under the same softmax.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from embodied.lvlm.connectors.base import NOTHING, Context
from embodied.lvlm.connectors.queries import QueryConnector


class Keypoints(QueryConnector):
    """Keypoints of a feature grid, as a few tokens that carry a group of them each.

    Args:
        features, width: D_enc and D.
        keypoints: K, how many points.
        tokens: M, how many tokens they become; divides K.
        look: numbers of the attended feature that a point brings along; 0 for positions alone.
        hidden: width of the hidden layer from a group of points to its token.
        columns: columns of the grid, whose features come row by row; None: the context's, or those of a square.
        sharpness: what the softmax's logits are multiplied by at first; learned. A fresh map attends everywhere alike,
            and finds a thing of few pixels sooner where its softmax is sharp.

    Raises:
        ValueError: `tokens` does not divide `keypoints`; another size is not positive; when used: the features make no
            such grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        keypoints: int = 32,
        tokens: int = 4,
        look: int = 8,
        hidden: int = 128,
        columns: int | None = None,
        sharpness: float = 1.0,
    ) -> None:
        super().__init__(features, width)
        if keypoints < 1 or tokens < 1 or keypoints % tokens:
            raise ValueError(f"Keypoints: {tokens} tokens do not share {keypoints} keypoints evenly")
        if look < 0 or hidden < 1 or (columns is not None and columns < 1) or sharpness <= 0:
            sizes = f"look={look}, hidden={hidden}, columns={columns}, sharpness={sharpness}"
            raise ValueError(f"Keypoints: sizes are positive, got {sizes}")
        self.count, self.columns = tokens, columns
        self.maps = nn.Linear(features, keypoints)
        self.sharpness = nn.Parameter(torch.tensor(float(sharpness)))
        self.look = nn.Linear(features, keypoints // tokens * look) if look else None
        group = keypoints // tokens * (2 + look)
        self.speak = nn.ModuleList(
            nn.Sequential(nn.Linear(group, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(tokens)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        attention = (self.sharpness * self.maps(features)).softmax(dim=1)  # (B, N, K)
        points = [self.positions(attention, None if context.grid is None else context.grid[1])]
        if self.look is not None:
            # Point k of every group takes slice k of one projection, so that M groups cost no more than one.
            seen = self.look(features).unflatten(-1, (attention.shape[-1] // self.count, -1))  # (B, N, K / M, look)
            shares = attention.unflatten(-1, (self.count, -1))  # (B, N, M, K / M)
            points.append(torch.einsum("bnmk,bnkl->bmkl", shares, seen).flatten(1, 2))
        groups = torch.cat(points, dim=-1).unflatten(1, (self.count, -1)).flatten(2)
        tokens = [speak(group) for speak, group in zip(self.speak, groups.unbind(1), strict=True)]
        return self.norm(torch.stack(tokens, dim=1))

    def positions(self, attention: Tensor, columns: int | None = None) -> Tensor:
        """Attention over the grid (B, N, K), summing to 1 over N, to x, y in [-1, 1], (B, K, 2)."""
        cells = attention.shape[1]
        named = self.columns or columns
        columns = named or math.isqrt(cells)
        if cells % columns or (named is None and columns * columns != cells):
            raise ValueError(f"Keypoints: {cells} features are no grid of {columns} columns; set connector.columns")
        y, x = (
            (torch.arange(n, device=attention.device, dtype=attention.dtype) + 0.5) / n * 2 - 1
            for n in (cells // columns, columns)
        )
        grid = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=-1)
        return attention.transpose(1, 2) @ grid

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return self.count
