"""A fixed number of tokens from any number of features, by learned queries that attend to them.

Flamingo's perceiver resampler (Alayrac et al. 2022, arXiv 2204.14198): in each layer the queries attend to the
features and to themselves, then pass a feed-forward net. It costs M x (N + M) attention per layer and leaves the
backbone M tokens. The frames of a video are read together, each with an embedding of its time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import NOTHING, Context
from embodied.lvlm.connectors.checks import divides, per_frame, positive
from embodied.lvlm.connectors.queries import QueryConnector


class PerceiverResampler(QueryConnector):
    """Learned queries attending to features.

    Args:
        features, width: D_enc and D.
        queries: M, tokens per image or video.
        layers: how often they attend.
        heads: attention heads.
        expansion: hidden width of the feed-forward net, in widths.
        frames: most frames of a video whose times are embedded; None: times are not.

    Raises:
        ValueError: `heads` does not divide `width`; when used: a video of more frames.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 8,
        layers: int = 2,
        heads: int = 4,
        expansion: int = 4,
        frames: int | None = None,
    ) -> None:
        super().__init__(features, width)
        divides("PerceiverResampler", "heads", heads, "width", width)
        positive("PerceiverResampler", queries=queries, layers=layers, expansion=expansion)
        positive("PerceiverResampler", frames=1 if frames is None else frames)
        self.project = nn.Linear(features, width)
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.layers = nn.ModuleList(_Layer(width, heads, expansion) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.times = nn.Parameter(torch.randn(frames, width) * 0.02) if frames is not None else None

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        features = self.project(features)
        if self.times is not None:
            count = per_frame("PerceiverResampler", features.shape[1], context)
            if context.frames > len(self.times):
                raise ValueError(
                    f"PerceiverResampler: a video of {context.frames} frames; at most {len(self.times)} are read"
                )
            features = features + self.times[: context.frames].repeat_interleave(count, dim=0)
        tokens = self.queries.expand(len(features), -1, -1)
        mask = None
        if context.present is not None:
            real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            mask = torch.cat([context.present, real], dim=1)[:, None, None]
        for layer in self.layers:
            tokens = layer(tokens, features, mask)
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

    def forward(self, tokens: Tensor, features: Tensor, mask: Tensor | None) -> Tensor:
        queries = self.norm_tokens(tokens)
        keys = torch.cat([self.norm_features(features), queries], dim=1)
        k, v = self.to_kv(keys).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_q(queries), k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(attended)
        return tokens + self.mlp(self.norm_mlp(tokens))
