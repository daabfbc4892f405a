"""Lightweight downsampling projectors: MobileVLM's inverted residuals; version 2: pooling, positional convolution.

MobileVLM (Chu et al. 2023, arXiv 2312.16886) and MobileVLM V2 (arXiv 2402.03766): 18.9 M and 6.3 M parameters from CLIP
ViT-L/14 to a language model of width 2048. The first halves rows and columns, the second pools to 12 x 12 tokens.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import grid_of, positive
from embodied.lvlm.connectors.maps import ChannelNorm, as_features, as_maps


class LDP(Connector):
    """An MLP per feature and two depthwise separable blocks, the second with stride 2; rows and columns round up.

    Args:
        features, width: D_enc and D.

    Raises:
        ValueError: when used: the features make no grid.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__(features, width)
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.Sequential(_InvertedResidual(width, 1), _InvertedResidual(width, 2))

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        return as_features(self.blocks(as_maps("LDP", self.mlp(features), context)), context)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        rows, columns = grid_of("LDP", features, context)
        return context.frames * -(-rows // 2) * -(-columns // 2)

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return -(-features[0] // 2), -(-features[1] // 2)


class LDPv2(Connector):
    """An MLP per feature, pooling to a grid of any size, and a depthwise convolution that tells where a token is.

    Args:
        features, width: D_enc and D.
        rows, columns: of the tokens of a frame.

    Raises:
        ValueError: a size is not positive; when used: the features make no grid.
    """

    def __init__(self, features: int, width: int, rows: int = 12, columns: int = 12) -> None:
        super().__init__(features, width)
        positive("LDPv2", rows=rows, columns=columns)
        self.rows, self.columns = rows, columns
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.peg = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        pooled = F.adaptive_avg_pool2d(as_maps("LDPv2", self.mlp(features), context), (self.rows, self.columns))
        return as_features(pooled + self.peg(pooled), context)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        grid_of("LDPv2", features, context)
        return context.frames * self.rows * self.columns

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.rows, self.columns


class _InvertedResidual(nn.Module):
    """MobileNetV3's block without expansion: depthwise, squeeze and excitation, pointwise; residual without stride."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        squeezed = max(8, round_to_eight(width / 4))
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.norm = ChannelNorm(width)
        self.squeeze, self.excite = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.last_norm = ChannelNorm(width)

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.hardswish(self.norm(self.depthwise(maps)))
        weights = F.hardsigmoid(self.excite(F.relu(self.squeeze(inner.mean((2, 3), keepdim=True)))))
        inner = self.last_norm(self.pointwise(inner * weights))
        return inner + maps if self.stride == 1 else inner


def round_to_eight(channels: float) -> int:
    """The nearest multiple of 8, but not more than a tenth below (MobileNet's rule for channels)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
