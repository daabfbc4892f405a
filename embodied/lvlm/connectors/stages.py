"""Fewer features before a projection: neighbours merged into one, pooled, or simply joined.

A stage owns no parameters, so that it can stand before any projection (`embodied.lvlm.connectors.projection`): pixel
shuffle before InternVL's normalised MLP, Idefics3's matrix and Qwen2-VL's merger, pooling before DeCo's MLP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.connectors.base import Context
from embodied.lvlm.connectors.checks import grid_of, per_frame, positive
from embodied.lvlm.connectors.maps import as_features, as_maps


class Stage(nn.Module, ABC):
    """Features to fewer features."""

    @abstractmethod
    def create(self, features: int) -> int:
        """Width of what comes out, for features of this width."""

    @abstractmethod
    def forward(self, features: Tensor, context: Context) -> tuple[Tensor, Context]:
        """(B, N, D) to (B, M, D'), and the context that holds for those.

        Raises:
            ValueError: the features do not come in the shape this stage needs.
        """

    @abstractmethod
    def tokens(self, features: int, context: Context) -> int:
        """M for N features."""

    @abstractmethod
    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of what comes out; (1, M) where it makes no grid."""

    def film_grid(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        """Times, rows and columns of what comes out for a film with these; (1, 1, M) where it makes no grid."""
        times, rows, columns = grid
        count = self.tokens(times * rows * columns, Context(grid=(rows, columns), frames=times))
        rows, columns = self.grid((rows, columns))
        return count // (rows * columns), rows, columns


class PixelShuffle(Stage):
    """Each block of scale x scale neighbours becomes one feature, their channels side by side, row by row.

    One operation with many names: InternVL's and Idefics3's pixel shuffle (Chen et al. 2024, arXiv 2404.16821), the
    patch merging of Qwen2-VL (Wang et al. 2024, arXiv 2409.12191), Ovis's hidden stride.

    Args:
        scale: rows and columns of a block.
        pad: whether a grid that blocks do not fill is continued with zeros below and on the right (Ovis); otherwise
            such a grid is an error.
    """

    def __init__(self, scale: int = 2, pad: bool = False) -> None:
        super().__init__()
        positive("PixelShuffle", scale=scale)
        self.scale, self.pad = scale, pad

    def create(self, features: int) -> int:
        return features * self.scale**2

    def forward(self, features: Tensor, context: Context) -> tuple[Tensor, Context]:
        rows, columns = self._blocks(features.shape[1], context)
        maps = as_maps("PixelShuffle", features, context)
        down, right = rows * self.scale - maps.shape[2], columns * self.scale - maps.shape[3]
        blocks = F.pad(maps, (0, right, 0, down)).unflatten(3, (columns, self.scale)).unflatten(2, (rows, self.scale))
        merged = blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B x T, rows x columns, scale x scale x D)
        merged = merged.unflatten(0, (-1, context.frames)).flatten(1, 2)
        return merged, replace(context, grid=(rows, columns), present=None)

    def tokens(self, features: int, context: Context) -> int:
        rows, columns = self._blocks(features, context)
        return context.frames * rows * columns

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self._blocks(features[0] * features[1], Context(grid=features))

    def _blocks(self, features: int, context: Context) -> tuple[int, int]:
        rows, columns = grid_of("PixelShuffle", features, context)
        if not self.pad and (rows % self.scale or columns % self.scale):
            raise ValueError(f"PixelShuffle: blocks of {self.scale} do not fill a grid of {rows} x {columns}")
        return -(-rows // self.scale), -(-columns // self.scale)


class Join(Stage):
    """Each run of `count` features, in the order they come, becomes one.

    MiniGPT-v2 (Chen et al. 2023, arXiv 2310.09478) joins 4.

    Args:
        count: how many features make one.
    """

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        positive("Join", count=count)
        self.count = count

    def create(self, features: int) -> int:
        return features * self.count

    def forward(self, features: Tensor, context: Context) -> tuple[Tensor, Context]:
        self.tokens(features.shape[1], context)
        grid = None if context.grid is None else self.grid(context.grid)
        present = None if context.present is None else context.present.unflatten(1, (-1, self.count)).any(2)
        joined = features.unflatten(1, (-1, self.count)).flatten(2)
        return joined, replace(context, grid=grid, present=present)

    def tokens(self, features: int, context: Context) -> int:
        count = per_frame("Join", features, context)
        if count % self.count:
            raise ValueError(f"Join: runs of {self.count} do not share {count} features evenly")
        return features // self.count

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        rows, columns = features
        count = self.tokens(rows * columns, Context(grid=features))
        return (1, count) if columns % self.count else (rows, columns // self.count)


class Pool(Stage):
    """The mean over cells of a coarser grid, whatever the grid was (torch's adaptive average pooling).

    DeCo (Yao et al. 2024, arXiv 2405.20985) puts it before LLaVA's MLP: compression needs no parameters.

    Args:
        rows, columns: of the coarser grid.
        frames: that a video's frames are pooled to as well (PLLaVA); null: each frame is pooled by itself.
    """

    def __init__(self, rows: int, columns: int, frames: int | None = None) -> None:
        super().__init__()
        positive("Pool", rows=rows, columns=columns, frames=1 if frames is None else frames)
        self.rows, self.columns, self.frames = rows, columns, frames

    def create(self, features: int) -> int:
        return features

    def forward(self, features: Tensor, context: Context) -> tuple[Tensor, Context]:
        maps = as_maps("Pool", features, context)
        if self.frames is None:
            pooled, frames = F.adaptive_avg_pool2d(maps, (self.rows, self.columns)), context.frames
        else:
            # A still picture is one frame and stays one: pooling to more would only repeat it.
            frames = min(self.frames, context.frames)
            video = maps.unflatten(0, (-1, context.frames)).transpose(1, 2)
            pooled = F.adaptive_avg_pool3d(video, (frames, self.rows, self.columns)).transpose(1, 2).flatten(0, 1)
        after = replace(context, grid=(self.rows, self.columns), frames=frames, present=None)
        return as_features(pooled, after), after

    def tokens(self, features: int, context: Context) -> int:
        grid_of("Pool", features, context)
        frames = context.frames if self.frames is None else min(self.frames, context.frames)
        return frames * self.rows * self.columns

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return self.rows, self.columns


class SpaceTimeMeans(Stage):
    """The mean of each frame, and behind those the mean over time of each place.

    Video-ChatGPT (Maaz et al. 2023, arXiv 2306.05424) has it before its linear layer.

    Args:
        frames: to how many the frames' means are filled up with zeros (Video-ChatGPT: 100); None: as many as frames.

    Raises:
        ValueError: `frames` is not positive; when used: a film of more.
    """

    def __init__(self, frames: int | None = None) -> None:
        super().__init__()
        positive("SpaceTimeMeans", frames=1 if frames is None else frames)
        self.frames = frames

    def create(self, features: int) -> int:
        return features

    def forward(self, features: Tensor, context: Context) -> tuple[Tensor, Context]:
        filled = self._filled(context)
        video = features.unflatten(1, (context.frames, per_frame("SpaceTimeMeans", features.shape[1], context)))
        whole = F.pad(video.mean(2), (0, 0, 0, filled - context.frames))
        return torch.cat([whole, video.mean(1)], dim=1), replace(context, grid=None, frames=1, present=None)

    def tokens(self, features: int, context: Context) -> int:
        return self._filled(context) + per_frame("SpaceTimeMeans", features, context)

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return 1, self.tokens(features[0] * features[1], Context(grid=features))

    def film_grid(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        times, rows, columns = grid
        return 1, 1, self.tokens(times * rows * columns, Context(grid=(rows, columns), frames=times))

    def _filled(self, context: Context) -> int:
        if self.frames is not None and context.frames > self.frames:
            raise ValueError(f"SpaceTimeMeans: a film of {context.frames} frames; at most {self.frames} are read")
        return self.frames or context.frames
