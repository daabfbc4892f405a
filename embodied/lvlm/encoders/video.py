"""The contract of a video encoder, and the commonest kind: any image encoder, frame by frame.

Which frames of a video are looked at is decided before (`embodied.data.multimodal`); here they are pixels. Frames'
features follow one another, or are pooled over time and space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.encoders.base import ImageEncoder, Preprocess

Pool = Literal["none", "mean", "adaptive", "spatial_temporal"]


class VideoEncoder(nn.Module, ABC):
    """Frames to a sequence of features.

    Attributes:
        dim: width D_enc of a feature.
        span: how many frames are read as one.
    """

    dim: int
    span: int = 1

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, T, H, W, 3), uint8 in [0, 255] or float in [0, 1], to features (B, N, D_enc)."""
        pixels = frames.permute(0, 1, 4, 2, 3)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        one = self.preprocess[0]
        mean, std = (torch.tensor(part, device=pixels.device).view(1, 1, 3, 1, 1) for part in (one.mean, one.std))
        return self.encode((pixels - mean) / std)

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, T, 3, H, W) to features (B, N, D_enc)."""

    @property
    @abstractmethod
    def preprocess(self) -> tuple[Preprocess, ...]:
        """How a frame becomes its pixels."""

    @abstractmethod
    def layout(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Times, rows and columns of the features of T frames of this size; (1, 1, N) where they make no grid."""

    def tokens(self, frames: int, height: int, width: int) -> int:
        """N for T frames of this size."""
        times, rows, columns = self.layout(frames, height, width)
        return times * rows * columns

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """The config node that rebuilds this encoder from an agent's folder alone."""
        return node


class FrameEncoder(VideoEncoder):
    """An image encoder over the frames of a video.

    Args:
        encoder: reads a frame.
        pool: `none` keeps every frame's features, one frame after the other; `mean` averages over time; `adaptive`
            averages to `times` x `grid` cells (PLLaVA, Xu et al. 2024, arXiv 2404.16994); `spatial_temporal` gives one
            feature per frame, its mean, and after those the mean over time of each place (Video-ChatGPT, Maaz et al.
            2023, arXiv 2306.05424).
        times: with `adaptive`, how many times are left; with `spatial_temporal`, to how many the per-frame features are
            filled up with zeros (Video-ChatGPT: 100). None: as many as frames.
        grid: with `adaptive`, rows and columns that are left; None: the encoder's own.

    Raises:
        ValueError: an unknown pool, `times` or `grid` where they mean nothing; when used: more frames than `times`.
    """

    def __init__(
        self, encoder: ImageEncoder, pool: Pool = "none", times: int | None = None, grid: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if pool not in get_args(Pool):
            raise ValueError(f"FrameEncoder: pool is one of {', '.join(get_args(Pool))}, got {pool!r}")
        if (times is not None and pool in ("none", "mean")) or (grid is not None and pool != "adaptive"):
            raise ValueError(f"FrameEncoder: pool={pool} has no use for times={times}, grid={grid}")
        self.encoder, self.pool, self.times, self.dim = encoder, pool, times, encoder.dim
        self.cells = None if grid is None else (int(grid[0]), int(grid[1]))

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        ways = self.encoder.preprocess
        if len(ways) != 1:
            raise ValueError("FrameEncoder: reads frames with one image encoder, not with several in one")
        return ways

    def layout(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        rows, columns = self.encoder.grid(height, width)
        if self.pool == "none":
            return frames, rows, columns
        if self.pool == "mean":
            return 1, rows, columns
        if self.pool == "adaptive":
            return self.times or frames, *(self.cells or (rows, columns))
        return 1, 1, self._filled(frames) + rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        frames = pixels.shape[1]
        features = self.encoder.encode(pixels.flatten(0, 1)).unflatten(0, (-1, frames))  # (B, T, N, D)
        if self.pool == "none":
            return features.flatten(1, 2)
        if self.pool == "mean":
            return features.mean(dim=1)
        if self.pool == "adaptive":
            grid = self.encoder.grid(pixels.shape[-2], pixels.shape[-1])
            cube = features.unflatten(2, grid).permute(0, 4, 1, 2, 3)
            wanted = (self.times or frames, *(self.cells or grid))
            return F.adaptive_avg_pool3d(cube, wanted).flatten(2).transpose(1, 2)
        whole = features.mean(dim=2)
        whole = F.pad(whole, (0, 0, 0, self._filled(frames) - frames))
        return torch.cat([whole, features.mean(dim=1)], dim=1)

    def _filled(self, frames: int) -> int:
        if self.times is not None and frames > self.times:
            raise ValueError(f"FrameEncoder: {frames} frames are more than times={self.times}")
        return self.times or frames

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        return {**node, "encoder": self.encoder.resolved(dict(node["encoder"]))}
