"""Vary the training images, a whole batch at a time; in evaluation, change nothing.

Every row draws from its own generator, so that a sample is varied alike whoever shares its batch. All frames of one
camera of one sample get the same variation: what moves between them is the world, not the augmentation. uint8 in,
uint8 out.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from embodied.processing.base import Batch
from embodied.processing.images import CenterCrop, ImageTransform
from embodied.spec import IMAGES

if TYPE_CHECKING:
    from embodied.contracts import Generators

LUMA = (0.299, 0.587, 0.114)
"""Grey from RGB, ITU-R 601-2, as Pillow and torchvision do."""


class Augmentation(ImageTransform):
    """Changes images at random in training mode; otherwise as `change` says, by default not at all.

    Attributes:
        numbers: how many random numbers one sample of one camera takes.
    """

    numbers: int

    def forward(self, batch: Batch, generators: Generators | None = None) -> Batch:
        cameras = [key for key in batch if key.startswith(IMAGES)]
        if not self.training or not cameras:
            return super().forward(batch, generators)
        rows = len(batch[cameras[0]])
        if generators is None:
            drawn = torch.rand(rows, len(cameras), self.numbers)
        else:
            each = (torch.rand(len(cameras), self.numbers, generator=generator) for generator in generators)
            drawn = torch.stack(list(each))
        return batch | {key: self.vary(batch[key], drawn[:, i]) for i, key in enumerate(cameras)}

    def change(self, images: Tensor) -> Tensor:
        return images

    @abstractmethod
    def vary(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Change images (B, T, H, W, 3) as uniform numbers in [0, 1), (B, `numbers`) on the CPU, say."""


class RandomShift(Augmentation):
    """Move the image by whole pixels, repeating its edge (DrQ: Kostrikov et al. 2021, arXiv 2004.13649).

    Args:
        pixels: largest shift in each direction (DrQ: 4 at 84 x 84).
    """

    numbers = 2

    def __init__(self, pixels: int = 4) -> None:
        super().__init__()
        if pixels < 0:
            raise ValueError(f"RandomShift: pixels must not be negative, got {pixels}")
        self.pixels = pixels

    def vary(self, images: Tensor, drawn: Tensor) -> Tensor:
        if self.pixels == 0:
            return images
        corners = _whole(drawn, torch.tensor([2 * self.pixels, 2 * self.pixels]))
        return _cut(_repeat_edges(images, self.pixels), corners, images.shape[2], images.shape[3])

    def extra_repr(self) -> str:
        return f"pixels={self.pixels}"


class RandomCrop(CenterCrop, Augmentation):
    """Keep a part: any in training, the middle in evaluation (robomimic's `CropRandomizer`).

    Args:
        height, width: pixels.

    Raises:
        ValueError: an image is smaller.
    """

    numbers = 2

    def vary(self, images: Tensor, drawn: Tensor) -> Tensor:
        return _cut(images, _whole(drawn, torch.tensor(self._space(images))), self.height, self.width)


class ColorJitter(Augmentation):
    """Vary brightness, then contrast, then saturation, by factors drawn from [1 - x, 1 + x].

    The factors mean what they mean in torchvision: times the image; away from its mean grey; away from each pixel's
    grey. All three are one affine map of a pixel here, so values are cut to [0, 255] once at the end and not after
    each. The mean grey is taken over all frames of the sample.

    Args:
        brightness, contrast, saturation: x, from 0 (off) to 1.
    """

    numbers = 3

    def __init__(self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2) -> None:
        super().__init__()
        for name, value in {"brightness": brightness, "contrast": contrast, "saturation": saturation}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"ColorJitter: {name} must be from 0 to 1, got {value}")
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def vary(self, images: Tensor, drawn: Tensor) -> Tensor:
        reach = torch.tensor([self.brightness, self.contrast, self.saturation])
        factors = (1 + (2 * drawn - 1) * reach).to(images.device)
        brightness, contrast, saturation = factors[:, :, None].unbind(1)  # (B, 1) each
        pixels = images.flatten(1, 3).float()  # (B, T x H x W, 3)
        luma = torch.tensor(LUMA, device=images.device)
        grey = pixels @ luma  # (B, T x H x W)
        offset = brightness * (1 - contrast) * grey.mean(1, keepdim=True)
        pixels *= (brightness * contrast * saturation)[:, :, None]
        pixels += (grey * (brightness * contrast * (1 - saturation)) + offset).unsqueeze(-1)
        # By way of int16: there is no fast path from float32 to uint8.
        return pixels.round_().clamp_(0, 255).to(torch.int16).to(torch.uint8).view_as(images)

    def extra_repr(self) -> str:
        return f"brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}"


def _whole(drawn: Tensor, highest: Tensor) -> list[list[int]]:
    """Uniform numbers in [0, 1) to uniform whole numbers in [0, highest]."""
    return (drawn * (highest + 1)).long().tolist()


def _repeat_edges(images: Tensor, pixels: int) -> Tensor:
    """Images with `pixels` more on every side, copies of the edge."""
    rows, frames, height, width, channels = images.shape
    padded = images.new_empty(rows, frames, height + 2 * pixels, width + 2 * pixels, channels)
    padded[:, :, pixels:-pixels, pixels:-pixels] = images
    padded[:, :, pixels:-pixels, :pixels] = images[:, :, :, :1]
    padded[:, :, pixels:-pixels, -pixels:] = images[:, :, :, -1:]
    padded[:, :, :pixels] = padded[:, :, pixels : pixels + 1]
    padded[:, :, -pixels:] = padded[:, :, -pixels - 1 : -pixels]
    return padded


def _cut(images: Tensor, corners: list[list[int]], height: int, width: int) -> Tensor:
    """A part of each row's images, all of one size. One copy of a block per row is many times faster than indexing."""
    channels = images.shape[-1]
    lines = images.flatten(3)
    result = images.new_empty(*images.shape[:2], height, width * channels)
    for target, source, (top, left) in zip(result, lines, corners, strict=True):
        target.copy_(source[:, top : top + height, left * channels : (left + width) * channels])
    return result.unflatten(3, (width, channels))
