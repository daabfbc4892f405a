"""mPLUG-Owl's visual abstractor: queries that gather what the features say, through gated feed-forward nets.

mPLUG-Owl (Ye et al. 2023, arXiv 2304.14178) and UReader use it as it is; mPLUG-Owl2 (arXiv 2311.04257) adds sine
embeddings of the queries' order and of the features' places to what is compared. Module names are the official code's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors import sinusoids
from embodied.lvlm.connectors.base import NOTHING, Context
from embodied.lvlm.connectors.checks import divides, positive
from embodied.lvlm.connectors.queries import QueryConnector


class Abstractor(QueryConnector):
    """Queries and layers of attention to queries and features; a linear map and an end token follow.

    Args:
        features, width: D_enc and D.
        queries: tokens per picture, not counting the end token.
        layers: depth.
        heads: attention heads; they divide D_enc.
        intermediate: width inside the feed-forward nets; None: 4 x D_enc. (mPLUG-Owl: 2816 for D_enc = 1024.)
        grid: rows and columns of square feature grids whose places are embedded (mPLUG-Owl2: 32); None: places are not.
        class_token: whether a class token comes ahead of the grid.
        end: whether a learned end token follows the answers.
        epsilon: of the norm inside the feed-forward nets.

    Raises:
        ValueError: a size that does not fit; when used with a grid: the features make another one.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 64,
        layers: int = 6,
        heads: int = 16,
        intermediate: int | None = None,
        grid: int | None = None,
        class_token: bool = False,
        end: bool = True,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(features, width)
        inside = 4 * features if intermediate is None else intermediate
        divides("Abstractor", "heads", heads, "features", features)
        positive("Abstractor", queries=queries, layers=layers, intermediate=inside, grid=1 if grid is None else grid)
        if grid is not None:
            divides("Abstractor", "quarters", 4, "features", features)
        self.trained, self.class_token = grid, class_token
        self.query_embeds = nn.Parameter(torch.randn(1, queries, features) * 0.02)
        self.layers = nn.ModuleList(_Layer(features, heads, inside, epsilon) for _ in range(layers))
        self.visual_fc = nn.Linear(features, width)
        self.vit_eos = nn.Parameter(torch.randn(1, 1, width) * 0.02) if end else None

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        rows, count = features.shape[:2]
        queries = self.query_embeds.expand(rows, -1, -1)
        places = self._places(count, features.device)
        places = None if places is None else places.to(features.dtype)
        mask = None
        if context.present is not None:
            real = torch.ones(queries.shape[:2], dtype=torch.bool, device=features.device)
            mask = torch.cat([real, context.present], dim=1)[:, None, None]
        for layer in self.layers:
            queries = layer(queries, features, places, mask)
        tokens = self.visual_fc(queries)
        return tokens if self.vit_eos is None else torch.cat([tokens, self.vit_eos.expand(rows, -1, -1)], dim=1)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        self._places(features, self.query_embeds.device)
        return self.query_embeds.shape[1] + (self.vit_eos is not None)

    def _places(self, count: int, device: torch.device) -> Tensor | None:
        """Embeddings of the queries' order and then of the features' places, (Q + N, D_enc)."""
        if self.trained is None:
            return None
        if count != self.trained**2 + self.class_token:
            extra = " and a class token" if self.class_token else ""
            raise ValueError(f"Abstractor: {count} features are no grid of {self.trained} x {self.trained}{extra}")
        order = sinusoids.line(self.query_embeds.shape[1], self.features, device)
        first = torch.zeros(int(self.class_token), self.features, device=device)
        return torch.cat([order, first, sinusoids.square(self.trained, self.features, device)])


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, intermediate: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.normk, self.norm2 = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.w1, self.w3 = nn.Linear(width, intermediate), nn.Linear(width, intermediate)
        self.ffn_ln = nn.LayerNorm(intermediate, eps=epsilon)
        self.w2 = nn.Linear(intermediate, width)

    def forward(self, queries: Tensor, features: Tensor, places: Tensor | None, mask: Tensor | None) -> Tensor:
        # The residual is the normalised queries: so in the official code.
        queries = self.norm1(queries)
        seen = torch.cat([queries, self.normk(features)], dim=1)
        placed, asking = (seen, queries) if places is None else (seen + places, queries + places[: queries.shape[1]])
        parts = (self.query(asking), self.key(placed), self.value(seen))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in parts)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        queries = queries + self.out_proj(attended)
        inner = F.silu(self.w1(self.norm2(queries))) * self.w3(self.norm2(queries))
        return queries + self.w2(self.ffn_ln(inner))
