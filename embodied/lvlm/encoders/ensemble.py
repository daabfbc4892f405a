"""Several encoders that look at one picture, and the two plainest ways to join what they see.

Each member has its own preprocessing, so a picture becomes one pixel tensor per member. Features side by side as
channels (Cobra, Sphinx, Prismatic; Cambrian-1's aggregator wants them so too) or one after the other as tokens; the
fusions that learn are in `experts`, `mining` and `deepseek`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.encoders.base import ImageEncoder, Preprocess

Grid = tuple[int, int]


class Ensemble(ImageEncoder):
    """Encoders in one; a subclass says how their features are joined.

    Args:
        members: in the order of their pixels.

    Raises:
        ValueError: no members.
    """

    def __init__(self, members: Sequence[ImageEncoder]) -> None:
        if not members:
            raise ValueError(f"{type(self).__name__}: needs at least one member")
        super().__init__(members[0].mean.flatten().tolist(), members[0].std.flatten().tolist())
        self.members = nn.ModuleList(members)

    @abstractmethod
    def fuse(self, features: list[Tensor], grids: list[Grid]) -> Tensor:
        """Each member's features (B, N_i, D_i), and their rows and columns, as one (B, N, D_enc)."""

    @property
    def encoders(self) -> list[ImageEncoder]:
        """The members, as what they are."""
        return [member for member in self.members if isinstance(member, ImageEncoder)]

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return tuple(one for member in self.encoders for one in member.preprocess)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        return self.encode(self.normalised(pixels))

    def normalised(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels in [0, 1], (B, 3, H, W), once for each member, by its statistics."""
        parts: list[Tensor] = []
        for member in self.encoders:
            if isinstance(member, Ensemble):
                parts.extend(member.normalised(pixels))
            else:
                parts.append((pixels - member.mean) / member.std)
        return tuple(parts)

    def encode(self, pixels: Tensor | Sequence[Tensor]) -> Tensor:
        """Normalised pixels, one tensor (B, 3, H_i, W_i) per preprocessing, to features (B, N, D_enc).

        Raises:
            ValueError: not one tensor per preprocessing.
        """
        given = [pixels] if isinstance(pixels, Tensor) else list(pixels)
        counts = [_inputs(member) for member in self.encoders]
        if len(given) != sum(counts):
            raise ValueError(f"{type(self).__name__}: reads {sum(counts)} pixel tensors per picture, got {len(given)}")
        shares = [given[sum(counts[:i]) : sum(counts[: i + 1])] for i in range(len(counts))]
        grids = [m.grid(*share[0].shape[-2:]) for m, share in zip(self.encoders, shares, strict=True)]
        return self.fuse(self.seen(shares), grids)

    def seen(self, shares: list[list[Tensor]]) -> list[Tensor]:
        """Each member's features."""
        features = []
        for member, share in zip(self.encoders, shares, strict=True):
            features.append(member.encode(tuple(share)) if isinstance(member, Ensemble) else member.encode(share[0]))
        return features

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        nodes = [m.resolved(dict(n)) for m, n in zip(self.encoders, node["members"], strict=True)]
        return {**node, "members": nodes}


class ChannelConcat(Ensemble):
    """Features of the same place side by side, as Cobra has them (Zhao et al. 2024, arXiv 2403.14520).

    Args:
        members: the encoders.
        onto: whose grid the others are brought to, bilinearly.

    Raises:
        ValueError: no members, or `onto` is none of them; when used: a member's features make no grid.
    """

    def __init__(self, members: Sequence[ImageEncoder], onto: int = 0) -> None:
        super().__init__(members)
        if not 0 <= onto < len(members):
            raise ValueError(f"ChannelConcat: onto={onto} is none of the members 0 to {len(members) - 1}")
        self.onto, self.dim = onto, sum(member.dim for member in members)

    def fuse(self, features: list[Tensor], grids: list[Grid]) -> Tensor:
        return torch.cat([brought(f, g, grids[self.onto]) for f, g in zip(features, grids, strict=True)], dim=-1)

    def grid(self, height: int, width: int) -> Grid:
        return self.encoders[self.onto].grid(height, width)


class TokenConcat(Ensemble):
    """Features one after the other: every member's keep their own number.

    Args:
        members: the encoders.
        width: what a linear map brings each member's features to; None where they are equally wide.

    Raises:
        ValueError: no members, or members of several widths without `width`.
    """

    def __init__(self, members: Sequence[ImageEncoder], width: int | None = None) -> None:
        super().__init__(members)
        dims = [member.dim for member in members]
        if width is None and len(set(dims)) > 1:
            raise ValueError(f"TokenConcat: features of widths {dims} need a common width")
        self.dim = width or dims[0]
        self.project = nn.ModuleList(nn.Linear(dim, self.dim) if width else nn.Identity() for dim in dims)

    def fuse(self, features: list[Tensor], grids: list[Grid]) -> Tensor:
        return torch.cat([project(f) for project, f in zip(self.project, features, strict=True)], dim=1)

    def grid(self, height: int, width: int) -> Grid:
        if len(self.members) == 1:
            return self.encoders[0].grid(height, width)
        return 1, sum(member.tokens(height, width) for member in self.encoders)


def as_map(features: Tensor, grid: Grid) -> Tensor:
    """(B, N, D) to (B, D, rows, columns).

    Raises:
        ValueError: they are not as many as the grid has cells.
    """
    if features.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"{features.shape[1]} features are no grid of {grid[0]} x {grid[1]}")
    return features.transpose(1, 2).unflatten(2, grid)


def brought(features: Tensor, grid: Grid, to: Grid) -> Tensor:
    """Features (B, N, D) of one grid on another, bilinearly."""
    if grid == to:
        return features
    if grid[0] == 1 or to[0] == 1:
        raise ValueError(f"features of {grid[0]} x {grid[1]} and {to[0]} x {to[1]}: one makes no grid (a class token?)")
    return F.interpolate(as_map(features, grid), to, mode="bilinear").flatten(2).transpose(1, 2)


def _inputs(member: ImageEncoder) -> int:
    """How many pixel tensors it reads."""
    return sum(_inputs(inner) for inner in member.encoders) if isinstance(member, Ensemble) else 1
