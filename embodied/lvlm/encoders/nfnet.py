"""NFNet (Brock et al. 2021, arXiv 2102.06171), a ResNet without batch normalisation: Flamingo's encoder is the F6.

Written here because transformers has none; follows the paper's table and DeepMind's code. Variance is kept in check by
standardising the weights of every convolution and by scaling each residual branch by what its input's variance is
expected to be. Stage depths are (1, 2, 6, 3) times N + 1 for F<N>; widths 256, 512, 1536, 1536; groups of 128 channels.
F6 has 438 M parameters with its classifier and 435 M without, which is what Flamingo reports.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.encoders.base import Fit, ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import IMAGENET

GELU_GAIN = 1.7015043497085571
"""1 / the standard deviation of gelu(x) for standard normal x."""


class NFNet(ImageEncoder):
    """A normaliser-free network; features are its last map, 32 times coarser than the picture.

    Args:
        size: N of F<N>: depths are (N + 1) times those of the F0.
        depths, widths: blocks and channels of each stage; None and the default are the paper's.
        stem: channels of the stem's first convolution; it doubles three times.
        group: channels of a group of the grouped convolutions.
        final: channels of the last 1 x 1 convolution; 0 leaves it out, and features are those of the last stage.
        alpha: how much of a branch is added.
        image_size: side of the square that pictures are brought to; any multiple of 32 works. Flamingo: 480.
        fit: how they are (`Preprocess`).

    Raises:
        ValueError: as many depths as widths are needed; widths whose halves `group` does not divide; a size below 32.
    """

    def __init__(
        self,
        size: int = 6,
        depths: Sequence[int] | None = None,
        widths: Sequence[int] = (256, 512, 1536, 1536),
        stem: int = 16,
        group: int = 128,
        final: int = 3072,
        alpha: float = 0.2,
        image_size: int = 480,
        fit: Fit = "squash",
    ) -> None:
        super().__init__(*IMAGENET)
        depths = [(size + 1) * d for d in (1, 2, 6, 3)] if depths is None else list(depths)
        if len(depths) != len(widths) or not depths or min(depths) < 1:
            raise ValueError(f"NFNet: one depth of at least 1 per width, got {depths} and {list(widths)}")
        if any(width // 2 % group for width in widths):
            raise ValueError(f"NFNet: groups of {group} channels do not divide half of {list(widths)}")
        if image_size < 2 ** (len(widths) + 1):
            raise ValueError(f"NFNet: image_size {image_size} leaves no map")
        channels = [3, stem, 2 * stem, 4 * stem, 8 * stem]
        self.stem = nn.ModuleList(
            StandardConv(i, o, 3, stride) for i, o, stride in zip(channels, channels[1:], (2, 1, 1, 2), strict=False)
        )
        blocks, before, expected = [], channels[-1], 1.0
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(_Block(before, width, group, stride, 1 / expected, alpha))
                expected = ((1.0 if index == 0 else expected**2) + alpha**2) ** 0.5  # a transition resets it
                before = width
        self.blocks = nn.ModuleList(blocks)
        self.final = StandardConv(before, final, 1) if final else None
        self.dim, self.size, self.fit = final or before, (image_size, image_size), fit
        self.halvings = len(widths) + 1
        assert self.preprocess  # an unknown fit is refused now

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(None if self.fit == "native" else self.size, *IMAGENET, "bicubic", self.fit),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        height, width = (height, width) if self.fit == "native" else self.size
        for _ in range(self.halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        if self.fit != "native" and (pixels.shape[-2], pixels.shape[-1]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bicubic", antialias=True)
        x = pixels
        for index, conv in enumerate(self.stem):
            x = conv(activated(x) if index else x)
        for block in self.blocks:
            x = block(x)
        x = activated(self.final(x)) if self.final is not None else x
        return x.flatten(2).transpose(1, 2)


class StandardConv(nn.Module):
    """A convolution whose weights are standardised per output channel, then scaled by a learned gain.

    Weights have mean 0 and variance 1 / fan-in, so that a unit-variance input gives a unit-variance output. Padding is
    as TensorFlow's SAME.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        self.weight = nn.Parameter(torch.randn(n_out, n_in // groups, kernel, kernel) * (kernel**2 * n_in) ** -0.5)
        self.bias, self.gain = nn.Parameter(torch.zeros(n_out)), nn.Parameter(torch.ones(n_out))

    def standardised(self) -> Tensor:
        """The weights that are used."""
        fan_in = self.weight[0].numel()
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), unbiased=False, keepdim=True)
        scale = (variance * fan_in).clamp(min=1e-4).rsqrt() * self.gain.view(-1, 1, 1, 1)
        return (self.weight - mean) * scale

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for length in (x.shape[-1], x.shape[-2]):
            missing = max((-(-length // self.stride) - 1) * self.stride + self.kernel - length, 0)
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, pads), self.standardised(), self.bias, self.stride, groups=self.groups)


class _Block(nn.Module):
    """A bottleneck of half the width with two grouped 3 x 3 convolutions and squeeze-and-excitation."""

    def __init__(self, n_in: int, n_out: int, group: int, stride: int, beta: float, alpha: float) -> None:
        super().__init__()
        inner = n_out // 2
        self.beta, self.alpha, self.stride = beta, alpha, stride
        self.shortcut = StandardConv(n_in, n_out, 1) if stride > 1 or n_in != n_out else None
        self.convs = nn.ModuleList(
            [
                StandardConv(n_in, inner, 1),
                StandardConv(inner, inner, 3, stride, inner // group),
                StandardConv(inner, inner, 3, 1, inner // group),
                StandardConv(inner, n_out, 1),
            ]
        )
        self.squeeze, self.excite = nn.Linear(n_out, n_out // 2), nn.Linear(n_out // 2, n_out)
        self.skip_gain = nn.Parameter(torch.zeros(()))  # so a block begins as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = activated(x) * self.beta
        shortcut = x
        if self.shortcut is not None:
            pooled = F.avg_pool2d(out, 2, ceil_mode=True, count_include_pad=False) if self.stride > 1 else out
            shortcut = self.shortcut(pooled)
        for index, conv in enumerate(self.convs):
            out = conv(activated(out) if index else out)
        gate = self.excite(F.relu(self.squeeze(out.mean(dim=(2, 3))))).sigmoid()
        return out * gate[:, :, None, None] * 2 * self.skip_gain * self.alpha + shortcut


def activated(x: Tensor) -> Tensor:
    """GELU that keeps unit variance."""
    return F.gelu(x) * GELU_GAIN
