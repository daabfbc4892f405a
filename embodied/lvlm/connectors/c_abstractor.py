"""Honeybee's C-Abstractor: convolutions, pooling to any number of tokens, convolutions, so that locality survives.

Cha et al. 2023, arXiv 2312.06742; MM1 (McKinzie et al. 2024, arXiv 2403.09611) uses it too. The residual blocks are
RegNet's bottlenecks (pointwise, depthwise, squeeze and excitation, pointwise) with LayerNorms over channels. Module
names are the official code's, which takes the blocks from timm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import grid_of, positive, square
from embodied.lvlm.connectors.maps import ChannelNorm, as_features, as_maps


class CAbstractor(Connector):
    """Two stages of residual convolutions around an adaptive pooling, then an MLP.

    Args:
        features, width: D_enc and D.
        queries: tokens per frame, a square number.
        hidden: channels of the convolutions.
        depth: blocks before and after the pooling; 0: only pooling and MLP.
        mlp_depth: layers of the MLP.
        grid: side of the feature grid whose places are embedded, interpolated to other grids; None: places are not.

    Raises:
        ValueError: `queries` is no square, a size is not positive; when used: the features make no such grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 144,
        hidden: int = 1024,
        depth: int = 3,
        mlp_depth: int = 2,
        grid: int | None = 24,
    ) -> None:
        super().__init__(features, width)
        self.side = square("CAbstractor", "queries", queries)
        positive("CAbstractor", hidden=hidden, mlp_depth=mlp_depth, grid=1 if grid is None else grid)
        if depth < 0:
            raise ValueError(f"CAbstractor: depth must not be negative, got {depth}")
        self.trained = grid
        self.pos_emb = nn.Parameter(torch.randn(1, grid * grid, features) * 0.02) if grid is not None else None
        pool = nn.AdaptiveAvgPool2d(self.side)
        before = [_Block(hidden if i else features, hidden) for i in range(depth)]
        after = [_Block(hidden, hidden) for _ in range(depth)]
        self.net = nn.Sequential(nn.Sequential(*before), pool, nn.Sequential(*after))
        layers: list[nn.Module] = [nn.Linear(hidden if depth else features, width)]
        for _ in range(mlp_depth - 1):
            layers += [nn.SiLU(), nn.Linear(width, width)]
        self.readout = nn.Sequential(*layers)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        maps = as_maps("CAbstractor", features, context)
        if self.pos_emb is not None and self.trained is not None:
            places = self.pos_emb.unflatten(1, (self.trained, self.trained)).permute(0, 3, 1, 2)
            if maps.shape[2:] != places.shape[2:]:
                places = F.interpolate(places, maps.shape[2:], mode="bicubic", align_corners=False)
            maps = maps + places
        return self.readout(as_features(self.net(maps), context))

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        grid_of("CAbstractor", features, context)
        return context.frames * self.side**2

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side


class _Convolution(nn.Module):
    """A convolution without bias, a norm, and a nonlinearity."""

    def __init__(self, entering: int, leaving: int, size: int = 1, groups: int = 1, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(entering, leaving, size, padding=size // 2, groups=groups, bias=False)
        self.bn = ChannelNorm(leaving)
        self.act = nn.SiLU() if active else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(maps)))


class _Excitation(nn.Module):
    """Channels weighted by what the whole map holds."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.fc2(F.silu(self.fc1(maps.mean((2, 3), keepdim=True)))).sigmoid()


class _Block(nn.Module):
    """RegNet's bottleneck, as wide inside as outside and with groups of one channel."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.conv1 = _Convolution(entering, leaving)
        self.conv2 = _Convolution(leaving, leaving, size=3, groups=leaving)
        self.se = _Excitation(leaving, max(1, round(entering / 4)))
        self.conv3 = _Convolution(leaving, leaving, active=False)
        self.downsample = nn.Identity() if entering == leaving else _Convolution(entering, leaving, active=False)

    def forward(self, maps: Tensor) -> Tensor:
        return F.silu(self.conv3(self.se(self.conv2(self.conv1(maps)))) + self.downsample(maps))
