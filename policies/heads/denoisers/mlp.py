"""Octo's residual MLP over the flattened chunk: the smallest denoiser, and the fastest on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.heads.denoisers.base import PooledDenoiser, Sizes, spread
from policies.heads.pooling import Pooling


class MLPDenoiser(PooledDenoiser):
    """Octo's score network: learned Fourier features of the noise level, then a residual MLP with layer norm.

    Ghosh et al. 2024, arXiv 2405.12213, `octo/model/components/diffusion.py`.

    Args:
        hidden: its width.
        blocks: residual blocks.
        time_width: size of the embedding of the noise level (even).
        dropout: share of units dropped in training.
        pooling: `mean` or `flatten` (`policies.heads.pooling`).
    """

    def __init__(
        self,
        hidden: int = 256,
        blocks: int = 3,
        time_width: int = 32,
        dropout: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(pooling)
        self.hidden, self.depth, self.time_width, self.dropout = hidden, blocks, time_width, dropout

    def create(self, sizes: Sizes) -> None:
        super().create(sizes)
        size, time_width = sizes.horizon * sizes.action_dim, self.time_width
        self.frequencies = nn.Parameter(torch.randn(time_width // 2) * 0.2)
        self.time = nn.Sequential(
            nn.Linear(time_width // 2 * 2, 2 * time_width), nn.SiLU(), nn.Linear(2 * time_width, time_width)
        )
        self.enter = nn.Linear(time_width + self.pool.width + size, self.hidden)
        self.blocks = nn.ModuleList(Block(self.hidden, self.dropout) for _ in range(self.depth))
        self.leave = nn.Linear(self.hidden, size)
        for layer in (*self.time, self.enter, self.leave):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, noisy: Tensor, levels: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        angle = 2 * math.pi * levels.unsqueeze(-1) * self.frequencies
        time = self.time(torch.cat([angle.cos(), angle.sin()], dim=-1))
        flat, condition = noisy.flatten(1), spread(condition, len(noisy))
        x = self.enter(torch.cat([time, condition.to(time.dtype), flat.to(time.dtype)], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.leave(F.silu(x)).float().view_as(noisy)


class Block(nn.Module):
    """Layer norm, a fourfold wider hidden layer, and around it."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Dropout(dropout),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 4 * hidden),
            nn.SiLU(),
            nn.Linear(4 * hidden, hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)
