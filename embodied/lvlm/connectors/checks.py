"""What connectors check of their sizes and of the features they are given."""

from __future__ import annotations

import math

from torch import Tensor, nn
from transformers.activations import ACT2CLS, ACT2FN

from embodied.building import nearest
from embodied.lvlm.connectors.base import Context


def positive(owner: str, **sizes: int | float) -> None:
    """Stop at a size that is not positive.

    Raises:
        ValueError: naming it.
    """
    for name, size in sizes.items():
        if size <= 0:
            raise ValueError(f"{owner}: {name} must be positive, got {size}")


def divides(owner: str, part: str, count: int, whole: str, size: int) -> None:
    """Stop where `count` of `part` do not share `size` evenly.

    Raises:
        ValueError: naming both.
    """
    positive(owner, **{part: count, whole: size})
    if size % count:
        raise ValueError(f"{owner}: {count} {part} do not divide {whole} {size}")


def nonlinearity(owner: str, name: str) -> nn.Module:
    """A nonlinearity by transformers' name for it: gelu, gelu_pytorch_tanh, quick_gelu, silu, relu ...

    Raises:
        ValueError: there is none of this name.
    """
    if name not in ACT2CLS:
        raise ValueError(f"{owner}: there is no activation '{name}'{nearest(name, ACT2CLS)}")
    return ACT2FN[name]


def square(owner: str, what: str, count: int) -> int:
    """The side of a square grid of `count` cells.

    Raises:
        ValueError: they make none.
    """
    positive(owner, **{what: count})
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"{owner}: {what} make a square grid, and {count} is no square")
    return side


def per_frame(owner: str, features: int, context: Context) -> int:
    """How many of N features each frame has.

    Raises:
        ValueError: the frames do not share them evenly.
    """
    if context.frames < 1 or features % context.frames:
        raise ValueError(f"{owner}: {context.frames} frames do not share {features} features evenly")
    return features // context.frames


def grid_of(owner: str, features: int, context: Context) -> tuple[int, int]:
    """Rows and columns of each frame's features: the context's, or a square one where it names none.

    Raises:
        ValueError: the features make no such grid.
    """
    count = per_frame(owner, features, context)
    if context.grid is None:
        side = math.isqrt(count)
        if side * side != count:
            raise ValueError(f"{owner}: {count} features make no square grid, and the context names no other")
        return side, side
    rows, columns = context.grid
    if rows * columns != count:
        raise ValueError(f"{owner}: {count} features make no grid of {rows} x {columns}")
    return rows, columns


def seen(context: Context, queries: int) -> Tensor | None:
    """The mask of queries that attend to features: (B, 1, Q, N), bool; None where all features are real."""
    return None if context.present is None else context.present[:, None, None].expand(-1, -1, queries, -1)
