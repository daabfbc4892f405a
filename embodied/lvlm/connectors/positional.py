"""Queries with places: one layer of attention in which each query asks from its own spot of the picture.

Qwen-VL's adapter (Bai et al. 2023, arXiv 2308.12966): a square of queries and the grid of features carry the same
two-dimensional sine embeddings, so that a query looks around its place, whatever the resolution. LLaVA-UHD (Xu et al.
2024, arXiv 2403.11703) uses it for slices of any shape, whose embeddings are interpolated to the slice's own grid.
Monkey and TextMonkey use it as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import divides, grid_of, positive, square
from embodied.lvlm.connectors.sinusoids import stretched


class PositionalResampler(Connector):
    """Qwen-VL's and LLaVA-UHD's resampler: each frame's features become the same number of tokens.

    Args:
        features, width: D_enc and D, the latter a multiple of 4.
        queries: tokens per picture, a square number; Qwen-VL: 256, LLaVA-UHD: 64.
        heads: attention heads; they divide D; None: heads of width 128 (Qwen-VL).
        projection: whether a norm and a matrix follow, as in the official code.
        epsilon: of the norms.

    Raises:
        ValueError: a size that does not fit; when used: the features make no such grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 256,
        heads: int | None = None,
        projection: bool = True,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(features, width)
        self.side = square("PositionalResampler", "queries", queries)
        heads = max(1, width // 128) if heads is None else heads
        divides("PositionalResampler", "heads", heads, "width", width)
        divides("PositionalResampler", "quarters", 4, "width", width)
        positive("PositionalResampler", features=features)
        self.query = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.kv_proj = nn.Identity() if features == width else nn.Linear(features, width, bias=False)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_q, self.ln_kv = nn.LayerNorm(width, eps=epsilon), nn.LayerNorm(width, eps=epsilon)
        self.ln_post = nn.LayerNorm(width, eps=epsilon) if projection else None
        self.proj = nn.Parameter(torch.randn(width, width) * width**-0.5) if projection else None

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        rows, columns = grid_of("PositionalResampler", features.shape[1], context)
        pictures = features.unflatten(1, (context.frames, -1)).flatten(0, 1)
        values = self.ln_kv(self.kv_proj(pictures))
        places = stretched(self.side, self.width, rows, columns, values.device).to(values.dtype)
        spots = stretched(self.side, self.width, self.side, self.side, values.device).to(values.dtype)
        asking = (self.ln_q(self.query) + spots).expand(len(pictures), -1, -1)
        hidden = None if context.present is None else ~context.present.unflatten(1, (context.frames, -1)).flatten(0, 1)
        tokens, _ = self.attn(asking, values + places, values, key_padding_mask=hidden, need_weights=False)
        if self.ln_post is not None and self.proj is not None:
            tokens = self.ln_post(tokens) @ self.proj
        return tokens.unflatten(0, (-1, context.frames)).flatten(1, 2)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        grid_of("PositionalResampler", features, context)
        return context.frames * self.side**2

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side
