"""Queries spread over the picture that each ask the corresponding region of several encoders' maps.

Cambrian-1's spatial vision aggregator (Tong et al. 2024, arXiv 2406.16860), with module names like its official
code's. The encoders' features come side by side as channels (`features` = the sum of their widths), row by row on one
grid; each is brought to `windows[i]` x `windows[i]` features per query by bilinear interpolation, as the official code
brings its encoders to their lengths. A query sees only its own window, and beside it the mean of the first encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import divides, grid_of, positive
from embodied.lvlm.connectors.maps import as_features, as_maps


class SpatialAggregator(Connector):
    """Cross-attention from a grid of queries, each to its own window of every source.

    Args:
        features, width: D_enc, all sources' channels together, and D.
        sources: channels of each source, in their order; None: one source.
        windows: side of a query's window, of each source; Cambrian-1: 1, 1, 1 and 4. One number: the same for all.
        rows, columns: of the queries, and of the tokens of a frame; Cambrian-1: 24 x 24.
        hidden: width of the aggregator.
        layers: depth; Cambrian-1: 3.
        heads: attention heads; they divide `hidden`.
        groups: sets of queries, whose answers lie side by side before the last MLP.

    Raises:
        ValueError: `sources` do not add up to `features`, there is not one window per source, a size that does not fit;
            when used: the features make no grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        sources: Sequence[int] | None = None,
        windows: int | Sequence[int] = 1,
        rows: int = 24,
        columns: int = 24,
        hidden: int = 1024,
        layers: int = 3,
        heads: int = 16,
        groups: int = 1,
    ) -> None:
        super().__init__(features, width)
        self.sources = [features] if sources is None else list(sources)
        if sum(self.sources) != features or min(self.sources) < 1:
            raise ValueError(f"SpatialAggregator: sources of {self.sources} channels do not make {features} features")
        self.windows = [windows] * len(self.sources) if isinstance(windows, int) else list(windows)
        if len(self.windows) != len(self.sources):
            raise ValueError(f"SpatialAggregator: {len(self.sources)} sources need as many windows, got {self.windows}")
        positive("SpatialAggregator", **{f"windows[{i}]": side for i, side in enumerate(self.windows)})
        positive("SpatialAggregator", rows=rows, columns=columns, layers=layers, groups=groups)
        divides("SpatialAggregator", "heads", heads, "hidden", hidden)
        self.rows, self.columns = rows, columns
        self.mm_projector_aux = nn.ModuleList(
            nn.Sequential(nn.Linear(c, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden))
            for c in self.sources
        )
        self.vision_query = nn.Parameter(torch.randn(groups, hidden) * hidden**-0.5)
        self.vision_sampler = nn.ModuleList(_Sampler(hidden, self.windows, heads, layers) for _ in range(groups))
        self.mm_projector = nn.Sequential(nn.Linear(groups * hidden, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        maps = as_maps("SpatialAggregator", features, context)
        windows, first = [], None
        shares = maps.split(self.sources, dim=1)
        for source, side, project in zip(shares, self.windows, self.mm_projector_aux, strict=True):
            size = (self.rows * side, self.columns * side)
            if source.shape[2:] != size:
                source = F.interpolate(source, size, mode="bilinear", align_corners=False)
            projected = project(source.permute(0, 2, 3, 1))  # (F, rows x side, columns x side, hidden)
            first = projected.flatten(1, 2).mean(1) if first is None else first
            cut = projected.unflatten(2, (self.columns, side)).unflatten(1, (self.rows, side)).transpose(2, 3)
            windows.append(cut.flatten(3, 4).flatten(0, 2))  # (F x rows x columns, side x side, hidden)
        assert first is not None
        whole = first.repeat_interleave(self.rows * self.columns, dim=0).unsqueeze(1)
        groups = []
        for query, sampler in zip(self.vision_query, self.vision_sampler, strict=True):
            groups.append(sampler(query.expand(len(whole), 1, -1), whole, windows))
        tokens = self.mm_projector(torch.cat(groups, dim=-1)).unflatten(0, (len(maps), self.rows, self.columns))
        return as_features(tokens.squeeze(3).permute(0, 3, 1, 2), context)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        grid_of("SpatialAggregator", features, context)
        return context.frames * self.rows * self.columns

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.rows, self.columns


class _Sampler(nn.Module):
    def __init__(self, width: int, windows: Sequence[int], heads: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, windows, heads) for _ in range(layers))

    def forward(self, queries: Tensor, whole: Tensor, windows: Sequence[Tensor]) -> Tensor:
        for layer in self.layers:
            queries = layer(queries, whole, windows)
        return queries


class _Layer(nn.Module):
    """One query attends to its windows."""

    def __init__(self, width: int, windows: Sequence[int], heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.proj_context = nn.Linear(width, width, bias=False)
        self.proj_in = nn.Linear(2 * width, width, bias=False)
        self.pos_embed = nn.ParameterDict(
            {str(i): nn.Parameter(torch.randn(side**2, width)) for i, side in enumerate(windows) if side > 1}
        )
        self.q_proj = _normalised(width)
        self.k_proj = nn.ModuleList(_normalised(width) for _ in windows)
        self.v_proj = nn.ModuleList(_normalised(width) for _ in windows)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.proj_out = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.GELU(), nn.Linear(width, width, bias=False)
        )

    def forward(self, queries: Tensor, whole: Tensor, windows: Sequence[Tensor]) -> Tensor:
        asking = self.proj_in(torch.cat([queries, self.proj_context(whole)], dim=-1))
        placed = [w + self.pos_embed[str(i)] if str(i) in self.pos_embed else w for i, w in enumerate(windows)]
        keys = torch.cat([project(w) for project, w in zip(self.k_proj, placed, strict=True)], dim=1)
        values = torch.cat([project(w) for project, w in zip(self.v_proj, placed, strict=True)], dim=1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q_proj(asking), keys, values))
        answers = self.o_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return queries + self.proj_out(self.norm(asking + answers))


def _normalised(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
