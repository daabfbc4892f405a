"""The contract of an image encoder, and of how a picture becomes the pixels it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

Fit = Literal["squash", "crop", "pad", "letterbox", "corner", "native"]
RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

LEAST = 14
"""Pixels that the shorter side keeps in a letterbox, however thin the picture (DeepSeek-VL's `min_size`)."""


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes pixels, as the official image processors do it with PIL.

    Attributes:
        size: (height, width) that the encoder reads; None with `native`, where the picture keeps its own.
        mean, std: per-channel statistics of pixels in [0, 1].
        resample: PIL's filter, by name.
        fit: `squash` resizes to `size` whatever the aspect ratio; `crop` resizes the shorter side to it and cuts the
            middle out (CLIP); `pad` fills up to a square with the mean colour, then resizes (LLaVA-1.5); `letterbox`
            resizes the longer side, then fills up (DeepSeek-VL); `corner` does so with zeros at the right and below,
            after normalising (SAM); `native` does nothing.
        short: with `crop`, what the shorter side becomes before the middle is cut out; None: `size` (DINOv2: 256).
    """

    size: tuple[int, int] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: str = "bicubic"
    fit: Fit = "squash"
    short: int | None = None

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise ValueError(f"Preprocess: fit is one of {', '.join(get_args(Fit))}, got {self.fit!r}")
        if self.resample not in RESAMPLE:
            raise ValueError(f"Preprocess: resample is one of {', '.join(RESAMPLE)}, got {self.resample!r}")
        if (self.size is None) != (self.fit == "native"):
            raise ValueError(f"Preprocess: fit={self.fit} with size={self.size}; only native has no size")
        if self.short is not None and (self.fit != "crop" or self.size is None or self.short < max(self.size)):
            raise ValueError(f"Preprocess: short={self.short} is for fit=crop and at least the size, {self.size}")

    def __call__(self, picture: Image.Image) -> Tensor:
        """An RGB picture to normalised pixels (3, H, W), float32."""
        scaled = (np.asarray(self._fitted(picture), dtype=np.float64) * (1 / 255)).astype(np.float32)  # to the bit
        pixels = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.fit == "corner" and self.size is not None:
            missing = (self.size[0] - pixels.shape[0], self.size[1] - pixels.shape[1])
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _fitted(self, picture: Image.Image) -> Image.Image:
        if self.size is None:
            return picture
        height, width = self.size
        filter_ = RESAMPLE[self.resample]
        if self.fit == "pad" and picture.width != picture.height:
            side = max(picture.size)
            picture = self._filled(picture, side, side)
        if self.fit in ("letterbox", "corner"):
            scale = min(height / picture.height, width / picture.width)
            rounded = (round(picture.width * scale), round(picture.height * scale))
            if self.fit == "corner":  # SAM rounds halves up
                rounded = (int(picture.width * scale + 0.5), int(picture.height * scale + 0.5))
            least = min(LEAST, *self.size) if self.fit == "letterbox" else 1
            picture = picture.resize((max(rounded[0], least), max(rounded[1], least)), filter_)
            return self._filled(picture, width, height) if self.fit == "letterbox" else picture
        if self.fit == "crop":
            short = min(picture.size)
            longer = [int((self.short or max(height, width)) * side / short) for side in picture.size]
            picture = picture.resize((longer[0], longer[1]), filter_)
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            return picture.crop((left, top, left + width, top + height))
        return picture if picture.size == (width, height) else picture.resize((width, height), filter_)

    def _filled(self, picture: Image.Image, width: int, height: int) -> Image.Image:
        """The picture in the middle of a larger one of the mean colour."""
        larger = Image.new("RGB", (width, height), tuple(int(255 * m) for m in self.mean))
        larger.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
        return larger


class ImageEncoder(nn.Module, ABC):
    """Pixels to a sequence of features, row by row.

    Args:
        mean, std: per-channel statistics of images in [0, 1] that the encoder was made for.

    Attributes:
        dim: width D_enc of a feature.
        span: how many frames of a film are read as one; where it is not 1, `encode_frames` reads them.
    """

    dim: int
    span: int = 1

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device="cpu").view(1, 3, 1, 1), persistent=False)
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

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Normalised frames (B, T, 3, H, W) to features (B, N, D_enc), one time after the other."""
        return self.encode(pixels.flatten(0, 1)).unflatten(0, (-1, pixels.shape[1])).flatten(1, 2)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the features of an image of this size; (1, N) where they make no grid (class tokens)."""
        count = self.tokens(height, width)
        side = int(count**0.5)
        return (side, side) if side * side == count else (1, count)

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        """How a picture becomes the pixels of `encode`; several where several encoders in one read different sizes.

        Several preprocessings make several pixel tensors, and `encode` then takes a tuple of them.

        Raises:
            NotImplementedError: this encoder takes images of any size as they come (robots' cameras).
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how a picture becomes its pixels")

    def tokens(self, height: int, width: int) -> int:
        """N for images of this size, found by encoding one."""
        with torch.no_grad():
            return self.encode(torch.zeros(1, 3, height, width, device=self.mean.device)).shape[1]

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """The config node that rebuilds this encoder from an agent's folder alone (checkpoints become configs)."""
        return node
