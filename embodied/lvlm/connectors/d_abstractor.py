"""Honeybee's D-Abstractor: queries that each look at a few places around their own, by deformable attention.

Cha et al. 2023, arXiv 2312.06742. The layers are transformers' Deformable DETR decoder layers (Zhu et al. 2020, arXiv
2010.04159). What a query asks by is learned; where it stands, it knows from the pooled features there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrDecoderLayer

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import divides, grid_of, positive, square
from embodied.lvlm.connectors.maps import as_features, as_maps


class DAbstractor(Connector):
    """Deformable attention from a square of queries to the feature grid.

    Args:
        features, width: D_enc and D.
        queries: tokens per frame, a square number.
        hidden: width of the layers; a linear map goes from D_enc to it where they differ.
        layers: depth.
        heads: attention heads; they divide `hidden`.
        points: places that each head looks at.
        intermediate: width inside the feed-forward nets.
        grid: side of the feature grid whose places are embedded, interpolated to other grids; None: places are not.
        dropout: while training.

    Raises:
        ValueError: a size that does not fit; when used: the features make no such grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 144,
        hidden: int = 1024,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        intermediate: int = 1024,
        grid: int | None = 24,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(features, width)
        self.side = square("DAbstractor", "queries", queries)
        divides("DAbstractor", "heads", heads, "hidden", hidden)
        positive("DAbstractor", layers=layers, points=points, intermediate=intermediate)
        positive("DAbstractor", grid=1 if grid is None else grid)
        config = DeformableDetrConfig(
            backbone_config={"model_type": "resnet"},  # none is built; the default one would ask for timm
            d_model=hidden,
            num_feature_levels=1,
            decoder_attention_heads=heads,
            decoder_n_points=points,
            decoder_ffn_dim=intermediate,
            dropout=dropout,
        )
        config._attn_implementation = "sdpa"
        self.trained = grid
        self.input_proj = nn.Identity() if features == hidden else nn.Linear(features, hidden)
        self.v_pos_emb = nn.Parameter(torch.randn(1, grid * grid, hidden) * 0.02) if grid is not None else None
        self.query_embeddings = nn.Embedding(queries, hidden)
        cells = (torch.arange(self.side, dtype=torch.float32) + 0.5) / self.side
        self.reference_points = nn.Parameter(
            torch.stack([cells.repeat(self.side), cells.repeat_interleave(self.side)], dim=-1)[None]
        )
        made = [DeformableDetrDecoderLayer(config) for _ in range(layers)]
        for layer in made:
            _look_around(layer, heads, points)
        self.layers = nn.ModuleList(made)
        self.output_proj = nn.Identity() if hidden == width else nn.Linear(hidden, width)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        maps = as_maps("DAbstractor", self.input_proj(features), context)
        if self.v_pos_emb is not None and self.trained is not None:
            places = self.v_pos_emb.unflatten(1, (self.trained, self.trained)).permute(0, 3, 1, 2)
            if maps.shape[2:] != places.shape[2:]:
                places = F.interpolate(places, maps.shape[2:], mode="bicubic", align_corners=False)
            maps = maps + places
        pictures, rows, columns = len(maps), *maps.shape[2:]
        tokens = self.query_embeddings.weight.expand(pictures, -1, -1)
        looked_at = {
            "encoder_hidden_states": maps.flatten(2).transpose(1, 2),
            "object_queries_position_embeddings": F.adaptive_avg_pool2d(maps, self.side).flatten(2).transpose(1, 2),
            "reference_points": self.reference_points.expand(pictures, -1, -1).unsqueeze(2),
            "spatial_shapes": torch.tensor([[rows, columns]], device=maps.device),
            "spatial_shapes_list": [(rows, columns)],
            "level_start_index": torch.zeros(1, dtype=torch.long, device=maps.device),
        }
        for layer in self.layers:
            tokens = layer(tokens, **looked_at)
        return as_features(self.output_proj(tokens).transpose(1, 2).unsqueeze(-1), context)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        grid_of("DAbstractor", features, context)
        return context.frames * self.side**2

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side


def _look_around(layer: DeformableDetrDecoderLayer, heads: int, points: int) -> None:
    """Deformable DETR's beginning: each head looks in a direction of its own, each point one cell farther."""
    attention = layer.encoder_attn
    angles = torch.arange(heads, dtype=torch.float32) * (2 * torch.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = directions[:, None, None] * torch.arange(1, points + 1)[None, None, :, None]
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(steps.flatten())
