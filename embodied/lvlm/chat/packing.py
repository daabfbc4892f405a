"""Many conversations in few rows, filled to the brim, so that a training step reads little padding.

Packing decides where the conversations of one step lie, and not which ones they are: a step learns from the same ones
as without it, and its loss and gradients are the same.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from embodied.lvlm.chat.segments import use_segments
from embodied.lvlm.model import LVLM

Attention = Literal["mask", "segments"]


@dataclass(frozen=True)
class BestFit:
    """Rows of several conversations, the longest first, each into the fullest row that has room.

    Attributes:
        tokens: of a row, at most.
        attention: how conversations of a row are kept apart: `segments` attends to each by itself, without the work
            that a mask would throw away; `mask` is for families that have no attention of the kind to replace.

    Raises:
        ValueError: an unknown attention; a row without tokens.
    """

    tokens: int = 2048
    attention: Attention = "segments"

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"packing.tokens must be at least 1, got {self.tokens}")
        if self.attention not in get_args(Attention):
            raise ValueError(f"packing.attention is one of {', '.join(get_args(Attention))}, got {self.attention!r}")

    def rows(self, lengths: Sequence[int]) -> list[int]:
        """The row that each conversation of these lengths goes to.

        Raises:
            ValueError: one is longer than a row.
        """
        rows = [0] * len(lengths)
        for row, group in enumerate(best_fit(lengths, self.tokens)):
            for i in group:
                rows[i] = row
        return rows

    def prepare(self, model: LVLM) -> None:
        """Make a model ready to read packed rows.

        Raises:
            ValueError: its conversations would know of each other in one row.
        """
        backbone: Any = model.backbone
        kinds = set(getattr(getattr(backbone.model, "config", None), "layer_types", None) or [])
        if not hasattr(backbone, "recurrent"):
            raise ValueError("packing is for causal language models: an encoder-decoder reads one conversation a row")
        if backbone.recurrent or any("linear" in kind or "mamba" in kind for kind in kinds):
            raise ValueError("packing is for attention: a recurrent language model would carry one text into the next")
        if model.placement == "beside":
            raise ValueError("packing is for pictures inline: beside the text they would be seen by the whole row")
        if self.attention == "segments":
            use_segments(backbone.model)


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` in groups whose sum is at most `capacity`.

    Best fit decreasing: the longest first, each into the fullest group that still has room. It needs at most 11/9 of
    the fewest groups possible, plus one (Johnson 1973).

    Raises:
        ValueError: a length is beyond the capacity.
    """
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left in a group, and which; sorted
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] > capacity:
            raise ValueError(f"a sample of {lengths[i]} tokens does not fit into a row of {capacity}")
        at = bisect_left(room, (lengths[i], -1))
        if at == len(room):
            groups.append([])
            left, group = capacity, len(groups) - 1
        else:
            left, group = room.pop(at)
        groups[group].append(i)
        insort(room, (left - lengths[i], group))
    return groups
