"""Two encoders, a projection each: DeepSeek-VL's hybrid of a detailed and a semantic view.

DeepSeek-VL (Lu et al. 2024, arXiv 2403.05525) reads a picture with SAM at 1024 pixels and SigLIP at 384. Each half of a
token comes from one of them, and an MLP mixes the halves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import divides


class HybridConnector(Connector):
    """A linear map for each encoder, side by side, then GELU and a linear map over both.

    Args:
        features: D_enc, both encoders' channels side by side, the detailed one's first.
        width: D, an even number.
        detailed: how many of the channels are the detailed encoder's.

    Raises:
        ValueError: `width` is odd, or one of the encoders is left without channels.
    """

    def __init__(self, features: int, width: int, detailed: int) -> None:
        super().__init__(features, width)
        divides("HybridConnector", "halves", 2, "width", width)
        if not 0 < detailed < features:
            raise ValueError(f"HybridConnector: detailed is between 0 and {features} channels, got {detailed}")
        self.shares = (detailed, features - detailed)
        self.high_res_vision_proj = nn.Linear(detailed, width // 2)
        self.vision_proj = nn.Linear(features - detailed, width // 2)
        self.act = nn.GELU()
        self.proj = nn.Linear(width, width)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        detailed, semantic = features.split(self.shares, dim=-1)
        return self.proj(self.act(torch.cat([self.high_res_vision_proj(detailed), self.vision_proj(semantic)], dim=-1)))

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return features
