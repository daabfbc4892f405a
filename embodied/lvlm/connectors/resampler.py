"""A fixed number of tokens from any number of features, by learned queries that attend to them.

Flamingo's perceiver resampler (Alayrac et al. 2022, arXiv 2204.14198): in each layer the queries attend to the
features and to themselves, then pass a feed-forward net. It costs M x (N + M) attention per layer and leaves the
backbone M tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import NOTHING, Connector, Context


class PerceiverResampler(Connector):
    """Learned queries attending to features.

    Args:
        features, width: D_enc and D.
        queries: M, tokens per image.
        layers: how often they attend.
        heads: attention heads.
        expansion: hidden width of the feed-forward net, in widths.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(
        self, features: int, width: int, queries: int = 8, layers: int = 2, heads: int = 4, expansion: int = 4
    ) -> None:
        super().__init__(features, width)
        if width % heads:
            raise ValueError(f"PerceiverResampler: {heads} heads do not divide width {width}")
        self.project = nn.Linear(features, width)
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.layers = nn.ModuleList(_Layer(width, heads, expansion) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        features = self.project(features)
        tokens = self.queries.expand(len(features), -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, features)
        return self.norm(tokens)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return len(self.queries)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_features, self.norm_tokens, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.to_q, self.to_kv = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        queries = self.norm_tokens(tokens)
        keys = torch.cat([self.norm_features(features), queries], dim=1)
        k, v = self.to_kv(keys).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_q(queries), k, v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(attended)
        return tokens + self.mlp(self.norm_mlp(tokens))
