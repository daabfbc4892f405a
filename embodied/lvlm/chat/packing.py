"""Many conversations in few rows, filled to the brim, so that a training step reads little padding.

Packing decides where the conversations of one step lie, and not which ones they are: a step learns from the same ones
as without it, and its loss and gradients are the same.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from embodied.lvlm.chat.pieces import IGNORED, Encoded
from embodied.lvlm.chat.rows import Layout
from embodied.lvlm.chat.segments import use_segments
from embodied.lvlm.model import LVLM

Attention = Literal["mask", "segments"]


class Packing(Protocol):
    """How the conversations of one step are laid into rows of at most `tokens`."""

    tokens: int

    def layout(self, conversations: Sequence[Encoded]) -> Layout: ...

    def prepare(self, model: LVLM) -> None: ...


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

    def layout(self, conversations: Sequence[Encoded]) -> Layout:
        """The row that each goes to.

        Raises:
            ValueError: one is longer than a row.
        """
        lengths = [len(conversation) for conversation in conversations]
        count = len(lengths)
        return Layout(_numbered(best_fit(lengths, self.tokens), count), lengths, list(range(count)), [0] * count)

    def prepare(self, model: LVLM) -> None:
        """Make a model ready to read packed rows.

        Raises:
            ValueError: its conversations would know of each other in one row.
        """
        _check_apart(model)
        if self.attention == "segments":
            use_segments(model.backbone.model)


@dataclass(frozen=True)
class SharedPrefix:
    """Conversations about the same picture, or the same long text, in one row, in which it is read once.

    What they begin with alike, pictures and all, is laid once, and each sees it and its own rest. It computes what a
    row each would compute; it pays where a step has many questions about few pictures (`together` of a source).

    Attributes:
        tokens: of a row, at most.

    Raises:
        ValueError: a row without tokens.
    """

    tokens: int = 1024

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"packing.tokens must be at least 1, got {self.tokens}")

    def layout(self, conversations: Sequence[Encoded]) -> Layout:
        """Rows and shared beginnings.

        Raises:
            ValueError: one is longer than a row.
        """
        lengths = [len(conversation) for conversation in conversations]
        leads, shared = list(range(len(lengths))), [0] * len(lengths)
        about: dict[tuple[str, ...], int] = {}  # media, and the last conversation that could lead others
        size: dict[int, int] = {}
        for i, conversation in enumerate(conversations):
            lead = about.get(conversation.media)
            alike = 0 if lead is None else _beginning(conversations[lead], conversation)
            if not conversation.media and 2 * alike < lengths[i]:
                alike = 0  # no more than the same few words
            if lead is not None and alike and size[lead] + lengths[i] - alike <= self.tokens:
                leads[i], shared[i] = lead, alike
                size[lead] += lengths[i] - alike
            else:
                about[conversation.media], size[i] = i, lengths[i]
        heads = list(size)
        place = {heads[k]: row for row, group in enumerate(best_fit(list(size.values()), self.tokens)) for k in group}
        return Layout([place[lead] for lead in leads], lengths, leads, shared)

    def prepare(self, model: LVLM) -> None:
        """Make a model ready to read packed rows.

        Raises:
            ValueError: its conversations would know of each other in one row, or see their pictures each its own way.
        """
        _check_apart(model)
        vision = model.vision
        connectors = () if vision is None else (vision.connector, vision.video_connector)
        if any(getattr(connector, "instructed", False) for connector in connectors):
            raise ValueError(
                "packing=shared_prefix is for pictures that all questions see alike: this connector reads them"
            )


def _beginning(lead: Encoded, other: Encoded) -> int:
    """How many tokens both begin with, pictures and all; 0 where not all pictures are in it, or some of it is learned.

    What is learned of the rest must not begin with its first token: what stands before that in the row is another's.
    """
    alike = next(
        (
            i
            for i, (a, b) in enumerate(zip(lead.ids, other.ids, strict=False))
            if (a, lead.slots[i]) != (b, other.slots[i])
        ),
        min(len(lead), len(other)),
    )
    learned = (next((i for i, label in enumerate(x.labels) if label != IGNORED), len(x)) for x in (lead, other))
    alike = min(alike, *(first - 1 for first in learned))
    return alike if alike > 0 and not any(other.slots[alike:]) and not any(lead.slots[alike:]) else 0


def _check_apart(model: LVLM) -> None:
    """Refuse models whose conversations would know of each other in one row."""
    backbone: Any = model.backbone
    kinds = set(getattr(getattr(backbone.model, "config", None), "layer_types", None) or [])
    if not hasattr(backbone, "recurrent"):
        raise ValueError("packing is for causal language models: an encoder-decoder reads one conversation a row")
    if backbone.recurrent or any("linear" in kind or "mamba" in kind for kind in kinds):
        raise ValueError("packing is for attention: a recurrent language model would carry one text into the next")
    if model.placement == "beside":
        raise ValueError("packing is for pictures inline: beside the text they would be seen by the whole row")


def _numbered(groups: Sequence[Sequence[int]], count: int) -> list[int]:
    """The group that each of `count` is in."""
    rows = [0] * count
    for row, group in enumerate(groups):
        for i in group:
            rows[i] = row
    return rows


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
