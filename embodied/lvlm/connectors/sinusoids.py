"""Sine and cosine embeddings of positions on a line and on a grid (as in MAE's official code, arXiv 2111.06377)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def line(count: int, width: int, device: torch.device | None = None) -> Tensor:
    """(count, width): the sines of each position at width / 2 falling frequencies, then the cosines."""
    frequencies = 10000 ** -(torch.arange(width // 2, device=device) / (width / 2))
    angles = torch.arange(count, device=device).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def square(side: int, width: int, device: torch.device | None = None) -> Tensor:
    """(side x side, width), row by row: the column's embedding, then the row's; `width` is a multiple of 4."""
    one = line(side, width // 2, device)
    return torch.cat([one.repeat(side, 1), one.repeat_interleave(side, dim=0)], dim=1)


def stretched(side: int, width: int, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """(rows x columns, width): a square's embeddings, bicubically interpolated to another grid of the same extent."""
    embeddings = square(side, width, device)
    if (rows, columns) == (side, side):
        return embeddings
    maps = embeddings.T.reshape(1, width, side, side)
    return F.interpolate(maps, (rows, columns), mode="bicubic", align_corners=False)[0].flatten(1).T
