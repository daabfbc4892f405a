"""Features as maps, for what looks at neighbours: convolutions, pooling, merging."""

from __future__ import annotations

from torch import Tensor, nn

from embodied.lvlm.connectors.base import Context
from embodied.lvlm.connectors.checks import grid_of


def as_maps(owner: str, features: Tensor, context: Context) -> Tensor:
    """Features (B, T x N, D), frame by frame and row by row, as maps (B x T, D, rows, columns).

    Raises:
        ValueError: they make no such grid, or some are padding, which a grid has no place for.
    """
    rows, columns = grid_of(owner, features.shape[1], context)
    if context.present is not None and not context.present.all():
        raise ValueError(f"{owner}: pictures of different sizes must come one by one, for padding is no part of a grid")
    return features.unflatten(1, (context.frames, rows, columns)).flatten(0, 1).permute(0, 3, 1, 2)


def as_features(maps: Tensor, context: Context) -> Tensor:
    """Maps (B x T, D, rows, columns) as features (B, T x N, D): what `as_maps` undoes."""
    return maps.flatten(2).transpose(1, 2).unflatten(0, (-1, context.frames)).flatten(1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps (B, C, rows, columns)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
