"""Diffusion Policy's 1-D U-Net: convolutions over the steps of a chunk, each told the noise level and the observation.

Chi et al. 2023, arXiv 2303.04137, `diffusion_policy/model/diffusion/conditional_unet1d.py`. Same layers, hence the same
function of the same weights, as LeRobot 0.4.4's `DiffusionConditionalUnet1d`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.heads.denoisers.base import PooledDenoiser, Sinusoid, Sizes, spread
from policies.heads.pooling import Pooling


class UNetDenoiser(PooledDenoiser):
    """Residual blocks that are halved in length on the way down and doubled on the way up, with skips across.

    A chunk whose length the halvings do not divide is filled up with zeros inside, and cut again.

    Args:
        channels: of each level; the length is halved between two levels. (256, 512, 1024) in Diffusion Policy,
            (512, 1024, 2048) in LeRobot.
        kernel: steps a convolution sees (odd).
        groups: of the group norms; divides all channels.
        time_width: size of the embedding of the noise level (even).
        film_scale: the condition scales features and shifts them; False: only shifts.
        pooling: `mean` or `flatten` (`policies.heads.pooling`).

    Raises:
        ValueError: no channels, channels that `groups` does not divide, an even `kernel`.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128),
        kernel: int = 5,
        groups: int = 8,
        time_width: int = 128,
        film_scale: bool = True,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(pooling)
        if not channels or any(c < 1 or c % groups for c in channels):
            raise ValueError(f"UNetDenoiser: groups ({groups}) must divide each of its channels, got {list(channels)}")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"UNetDenoiser: kernel must be odd, so that a chunk keeps its length, got {kernel}")
        self.channels, self.kernel, self.groups = list(channels), kernel, groups
        self.time_width, self.film_scale = time_width, film_scale

    def create(self, sizes: Sizes) -> None:
        super().create(sizes)
        channels, wide = self.channels, 4 * self.time_width
        self.time = nn.Sequential(
            Sinusoid(self.time_width), nn.Linear(self.time_width, wide), nn.Mish(), nn.Linear(wide, self.time_width)
        )
        condition = self.time_width + self.pool.width

        def block(n_in: int, n_out: int) -> ResidualBlock:
            return ResidualBlock(n_in, n_out, condition, self.kernel, self.groups, self.film_scale)

        self.down = nn.ModuleList()
        for i, (n_in, n_out) in enumerate(pairwise([sizes.action_dim, *channels])):
            shrink = nn.Conv1d(n_out, n_out, 3, 2, 1) if i < len(channels) - 1 else nn.Identity()
            self.down.append(nn.ModuleList([block(n_in, n_out), block(n_out, n_out), shrink]))
        self.middle = nn.ModuleList([block(channels[-1], channels[-1]), block(channels[-1], channels[-1])])
        self.up = nn.ModuleList()
        for n_out, n_in in reversed(list(pairwise(channels))):
            # Each level's skip joins but the shallowest one's, as in the published network.
            grow = nn.ConvTranspose1d(n_out, n_out, 4, 2, 1)
            self.up.append(nn.ModuleList([block(n_in * 2, n_out), block(n_out, n_out), grow]))
        self.leave = nn.Sequential(
            ConvolutionBlock(channels[0], channels[0], self.kernel, self.groups),
            nn.Conv1d(channels[0], sizes.action_dim, 1),
        )

    def forward(self, noisy: Tensor, levels: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        time = self.time(levels)
        told = torch.cat([time, spread(condition, len(noisy)).to(time.dtype)], dim=-1)
        length, multiple = noisy.shape[1], 2 ** len(self.up)
        x = F.pad(noisy.to(time.dtype).mT, (0, -length % multiple))
        skips = []
        for first, second, shrink in _threes(self.down):
            x = second(first(x, told), told)
            skips.append(x)
            x = shrink(x)
        for block in self.middle:
            x = block(x, told)
        for first, second, grow in _threes(self.up):
            x = grow(second(first(torch.cat([x, skips.pop()], dim=1), told), told))
        return self.leave(x).mT[:, :length].float()


class ConvolutionBlock(nn.Sequential):
    """Convolution, group norm, Mish."""

    def __init__(self, n_in: int, n_out: int, kernel: int, groups: int) -> None:
        super().__init__(nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2), nn.GroupNorm(groups, n_out), nn.Mish())


class ResidualBlock(nn.Module):
    """Two convolution blocks with the condition applied between them (FiLM, Perez et al. 2018), and around them."""

    def __init__(self, n_in: int, n_out: int, condition: int, kernel: int, groups: int, film_scale: bool) -> None:
        super().__init__()
        self.first = ConvolutionBlock(n_in, n_out, kernel, groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, n_out * 2 if film_scale else n_out))
        self.second = ConvolutionBlock(n_out, n_out, kernel, groups)
        self.around = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.film_scale = film_scale

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, n_in, H) and (B, condition) to (B, n_out, H)."""
        out, film = self.first(x), self.film(condition).unsqueeze(-1)
        if self.film_scale:
            scale, shift = film.chunk(2, dim=1)
            out = scale * out + shift
        else:
            out = out + film
        return self.second(out) + self.around(x)


def _threes(levels: nn.ModuleList) -> Iterator[list[nn.Module]]:
    """The two blocks of each level and what changes its length, which types of modules lose."""
    for level in levels:
        assert isinstance(level, nn.ModuleList)
        yield list(level)
