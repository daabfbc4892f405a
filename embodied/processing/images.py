"""Change the size of images: scale them, or keep a part.

Images stay uint8, (B, T, H, W, 3). Bringing them to an encoder's mean and standard deviation is the encoder's own
business.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from embodied.processing.base import Batch, Transform
from embodied.spec import IMAGES

if TYPE_CHECKING:
    from embodied.contracts import Generators


class ImageTransform(Transform):
    """Changes every camera's images and nothing else."""

    def forward(self, batch: Batch, generators: Generators | None = None) -> Batch:
        return batch | {key: self.change(batch[key]) for key in batch if key.startswith(IMAGES)}

    def inverse(self, actions: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return actions

    @abstractmethod
    def change(self, images: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to the same, of another size."""


class Resize(ImageTransform):
    """Scale to a size, antialiased, as Pillow's bilinear filter does; the aspect ratio follows.

    Args:
        height, width: pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        if height < 1 or width < 1:
            raise ValueError(f"Resize: height and width must be at least 1, got {height} x {width}")
        self.height, self.width = height, width

    def change(self, images: Tensor) -> Tensor:
        if images.shape[2:4] == (self.height, self.width):
            return images
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2)  # a view: the memory stays channels-last
        exact = pixels if images.device.type == "cpu" else pixels.float()  # only the CPU scales uint8 itself
        scaled = F.interpolate(exact, (self.height, self.width), mode="bilinear", antialias=True)
        if scaled.dtype != torch.uint8:
            scaled = scaled.round().clamp(0, 255).to(torch.uint8)
        return scaled.permute(0, 2, 3, 1).unflatten(0, images.shape[:2])

    def extra_repr(self) -> str:
        return f"{self.height} x {self.width}"


class CenterCrop(ImageTransform):
    """Keep the middle.

    Args:
        height, width: pixels.

    Raises:
        ValueError: an image is smaller.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        if height < 1 or width < 1:
            raise ValueError(f"{type(self).__name__}: height and width must be at least 1, got {height} x {width}")
        self.height, self.width = height, width

    def change(self, images: Tensor) -> Tensor:
        top, left = (space // 2 for space in self._space(images))
        return images[:, :, top : top + self.height, left : left + self.width]

    def _space(self, images: Tensor) -> tuple[int, int]:
        """How far the crop can be moved down and right."""
        down, right = images.shape[2] - self.height, images.shape[3] - self.width
        if down < 0 or right < 0:
            sizes = f"{self.height} x {self.width} from {images.shape[2]} x {images.shape[3]}"
            raise ValueError(f"{type(self).__name__}: cannot cut {sizes} pixels")
        return down, right

    def extra_repr(self) -> str:
        return f"{self.height} x {self.width}"
