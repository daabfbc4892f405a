"""A convolution that halves rows and columns, then a gated MLP: GLM-4V's and CogVLM2's connection.

CogVLM (Wang et al. 2023, arXiv 2311.03079) has the gated MLP alone; CogVLM2 and GLM-4V (Hong et al. 2024, arXiv
2408.16500) put a strided convolution first. Module names are those of transformers' GLM-4V.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import grid_of, nonlinearity, positive
from embodied.lvlm.connectors.maps import as_features, as_maps


class SwiGLUConnector(Connector):
    """Convolution over blocks, linear map, norm and GELU, then SwiGLU.

    Args:
        features, width: D_enc and D.
        stride: side of the blocks that become one token each; 1: no convolution (CogVLM).
        channels: that the convolution makes; None: D_enc (CogVLM2); GLM-4V: D.
        hidden: width inside the gated MLP; None: 4 x D.
        activation: of the gate, by transformers' name.
        bias: whether the linear maps add something.
        brackets: whether a learned token stands before and one after each frame's (the official code's boi and eoi).
        scale: what the tokens are divided by at last (GLM-4V-9B: 8).

    Raises:
        ValueError: a size is not positive, an unknown activation; when used: blocks do not fill the grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        stride: int = 2,
        channels: int | None = None,
        hidden: int | None = None,
        activation: str = "silu",
        bias: bool = False,
        brackets: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__(features, width)
        between = features if stride == 1 or channels is None else channels
        inside = 4 * width if hidden is None else hidden
        positive("SwiGLUConnector", stride=stride, channels=between, hidden=inside, scale=scale)
        self.stride, self.scale = stride, scale
        self.downsample = nn.Conv2d(features, between, stride, stride) if stride > 1 else None
        self.proj = nn.Linear(between, width, bias=bias)
        self.post_projection_norm = nn.LayerNorm(width)
        self.gate_proj = nn.Linear(width, inside, bias=bias)
        self.up_proj = nn.Linear(width, inside, bias=bias)
        self.down_proj = nn.Linear(inside, width, bias=bias)
        self.act_fn = nonlinearity("SwiGLUConnector", activation)
        self.boi = nn.Parameter(torch.zeros(1, 1, width)) if brackets else None
        self.eoi = nn.Parameter(torch.zeros(1, 1, width)) if brackets else None

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        if self.downsample is not None:
            self.tokens(features.shape[1], context)
            features = as_features(self.downsample(as_maps("SwiGLUConnector", features, context)), context)
        hidden = F.gelu(self.post_projection_norm(self.proj(features)))
        tokens = self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))
        if self.boi is not None and self.eoi is not None:
            frames = tokens.unflatten(1, (context.frames, -1)).flatten(0, 1)
            ends = [end.expand(len(frames), -1, -1) for end in (self.boi, self.eoi)]
            tokens = torch.cat([ends[0], frames, ends[1]], dim=1).unflatten(0, (-1, context.frames)).flatten(1, 2)
        return tokens / self.scale

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        brackets = 0 if self.boi is None else 2 * context.frames
        if self.downsample is None:
            return features + brackets
        rows, columns = grid_of("SwiGLUConnector", features, context)
        if rows % self.stride or columns % self.stride:
            raise ValueError(f"SwiGLUConnector: blocks of {self.stride} do not fill a grid of {rows} x {columns}")
        return context.frames * (rows // self.stride) * (columns // self.stride) + brackets
