"""The contract of an image encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class ImageEncoder(nn.Module, ABC):
    """Pixels to a sequence of features.

    Args:
        mean, std: per-channel statistics of images in [0, 1] that the encoder was made for.

    Attributes:
        dim: width D_enc of a feature.
    """

    dim: int

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, H, W, 3), uint8 in [0, 255] or float in [0, 1], to features (B, N, D_enc)."""
        pixels = images.permute(0, 3, 1, 2)  # a view: the memory stays channels-last, which convolutions on a CPU like
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        return self.encode((pixels - self.mean) / self.std)

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) to features (B, N, D_enc)."""

    def tokens(self, height: int, width: int) -> int:
        """N for images of this size, found by encoding one."""
        with torch.no_grad():
            return self.encode(torch.zeros(1, 3, height, width, device=self.mean.device)).shape[1]

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """The config node that rebuilds this encoder from an agent's folder alone (checkpoints become configs)."""
        return node
