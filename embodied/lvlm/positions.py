"""Where a token stands: counted along the text, or in three axes, time, height and width (M-RoPE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def counted(present: Tensor) -> Tensor:
    """(B, L), bool, to positions (B, L): padding on either side is not counted."""
    return (present.cumsum(1) - 1).clamp(min=0)


def in_three_axes(slots: Tensor, present: Tensor, grids: Sequence[tuple[int, ...]]) -> Tensor:
    """Positions of Qwen2-VL (Wang et al. 2024, arXiv 2409.12191).

    A word stands at the same place on all axes, one behind what was read before. A token of a picture stands at its row
    and column behind the last word, and the next word behind the longer side of the picture. A token of a film stands
    at its time, too, and the next word behind the longest of the three, as in the code of its authors (transformers 5
    goes on behind the longer side, and so differs where a film has more times than rows and columns); where words stand
    between the frames, each frame is a picture.

    Args:
        slots: (B, L), bool: tokens of pictures, row by row.
        present: (B, L), bool; False on padding.
        grids: rows and columns of the tokens of each picture, times, rows and columns of each film, in reading order.

    Returns:
        (3, B, L), int.

    Raises:
        ValueError: slots and grids differ.
    """
    result = torch.zeros(3, *slots.shape, dtype=torch.long, device=slots.device)
    left = list(grids)
    for row, (visual, real) in enumerate(zip(slots.tolist(), present.tolist(), strict=True)):
        start = column = 0
        while column < len(visual):
            if not real[column]:
                column += 1
            elif not visual[column]:
                result[:, row, column] = start
                start, column = start + 1, column + 1
            else:
                times, rows, columns = (1, *left.pop(0))[-3:] if left else (0, 0, 0)
                if times > 1 and not all(visual[column : column + times * rows * columns]):
                    left = [(rows, columns)] * (times - 1) + left
                    times = 1
                count = times * rows * columns
                if not count or not all(visual[column : column + count]) or column + count > len(visual):
                    raise ValueError(f"row {row}: the places kept for pictures, from {column} on, hold no picture")
                cells = torch.cartesian_prod(torch.arange(times), torch.arange(rows), torch.arange(columns))
                result[:, row, column : column + count] = start + cells.T.to(slots.device)
                start, column = start + max(times, rows, columns), column + count
    if left:
        raise ValueError(f"{len(left)} more pictures than places kept for them")
    return result
