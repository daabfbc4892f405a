"""Encoded conversations as tensors: one a row and padded, or several a row and kept apart.

Tokens of a packed row see those before them in their own conversation and nothing else, and each conversation counts
its positions from 0: reading it in company changes nothing. The mask is our own; the one that transformers makes from
positions alone is not made at all while its cache is on, without a word. (`embodied.lvlm.sequence` does the same for
what robots observe, where embeddings and not ids are laid out, and one row is one sample.)

Packing is for pictures `inline`: media that stand beside the text are not kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from embodied.lvlm.chat.pieces import IGNORED, Encoded
from embodied.lvlm.model import Batch
from embodied.lvlm.positions import in_three_axes
from embodied.lvlm.vision import Clip, Picture

Side = Literal["left", "right"]
Span = tuple[int, int, int]
"""Row, and first and last-but-one column of a conversation."""


@dataclass(frozen=True)
class Rows:
    """Conversations in rows.

    Attributes:
        ids, labels: (B, L), int.
        slots: (B, L), bool.
        owners: (B, L), int: which conversation a token belongs to; -1 for padding.
        positions: (B, L), int, counted in each conversation from 0.
        spans: where each conversation lies, in reading order.
        media: references of pictures and films, in reading order.
    """

    ids: Tensor
    labels: Tensor
    slots: Tensor
    owners: Tensor
    positions: Tensor
    spans: tuple[Span, ...]
    media: tuple[str, ...]

    @property
    def present(self) -> Tensor:
        """(B, L), bool; False on padding."""
        return self.owners >= 0

    @property
    def mask(self) -> Tensor:
        """(B, L, L), bool: row i sees column j."""
        return apart(self.owners)

    def batch(
        self, pictures: Sequence[Picture | Clip] = (), axes: int = 1, grids: Sequence[tuple[int, int]] = (), **more: Any
    ) -> Batch:
        """What the model reads.

        Args:
            pictures: of `media`, in order.
            axes: of the backbone's positions.
            grids: with three axes, rows and columns of each picture's tokens.
            more: further fields of `Batch`.
        """
        positions = self.positions if axes == 1 else self._in_axes(grids)
        return Batch(self.ids, self.present, self.slots, pictures, self.labels, self.mask, positions, **more)

    def _in_axes(self, grids: Sequence[tuple[int, int]]) -> Tensor:
        """(3, B, L): each conversation's as if it were alone."""
        longest = max(end - start for _, start, end in self.spans)
        slots = torch.zeros(len(self.spans), longest, dtype=torch.bool)
        present = torch.zeros_like(slots)
        for i, (row, start, end) in enumerate(self.spans):
            slots[i, : end - start], present[i, : end - start] = self.slots[row, start:end], True
        alone = in_three_axes(slots, present, grids)
        result = torch.zeros(3, *self.ids.shape, dtype=torch.long)
        for i, (row, start, end) in enumerate(self.spans):
            result[:, row, start:end] = alone[:, i, : end - start]
        return result


def apart(owners: Tensor) -> Tensor:
    """Whose token each is (B, L), -1 for padding, to (B, L, L), bool: row i sees column j.

    A token sees those of its own conversation up to itself; padding sees itself, so that its softmax is defined.
    """
    length, device = owners.shape[1], owners.device
    together = (owners.unsqueeze(1) == owners.unsqueeze(2)) & (owners >= 0).unsqueeze(1)
    together &= torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return together | torch.eye(length, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class Layout:
    """Where each of B conversations goes in a batch of packed rows.

    Attributes:
        rows: the row of each, numbers from 0 on with none left out.
        lengths: tokens of each.
        leads: whose beginning each shares; its own number where it shares none.
        shared: how many tokens it takes from there instead of standing in the row itself; 0 where it shares none.
    """

    rows: list[int]
    lengths: list[int]
    leads: list[int]
    shared: list[int]

    def __getitem__(self, part: slice) -> Layout:
        """Some of the conversations, a row each."""
        lengths = self.lengths[part]
        apart = list(range(len(lengths)))
        return Layout(apart, lengths, apart, [0] * len(lengths))

    @property
    def order(self) -> list[int]:
        """The conversations in reading order, what shares a beginning behind the one that has it."""
        return sorted(range(len(self.rows)), key=lambda i: (self.rows[i], self.leads[i], i))


def pack(batch: Batch, positions: Tensor, layout: Layout, media: Sequence[int]) -> tuple[Batch, tuple[Span, ...]]:
    """A batch of one conversation a row, padded on the right, as one of several a row that are kept apart.

    Args:
        batch: (B, L).
        positions: of its tokens, (B, L) or (3, B, L), which each keeps.
        layout: of its B conversations. Of one that shares a beginning, only the rest is laid; it sees the beginning
            where that stands, and its pictures are those of there.
        media: pictures and films of each, B.

    Returns:
        The batch (R, C), and where each conversation's own tokens lie in it, in reading order.
    """
    order, rows = layout.order, layout.rows
    spans: list[Span] = []
    for i in order:
        start = spans[-1][2] if spans and spans[-1][0] == rows[i] else 0
        spans.append((rows[i], start, start + layout.lengths[i] - layout.shared[i]))
    shape = (max(rows) + 1, max(end for _, _, end in spans))
    device, counts = batch.ids.device, torch.tensor([end - start for _, start, end in spans])

    def places(first: list[int]) -> Tensor:
        """Numbers that count on from each conversation's first."""
        before = torch.tensor(first) - (counts.cumsum(0) - counts)
        return (torch.arange(int(counts.sum())) + before.repeat_interleave(counts)).to(device)

    there = places([row * shape[1] + start for row, start, _ in spans])
    here = places([i * batch.ids.shape[1] + layout.shared[i] for i in order])

    def moved(column: Tensor, fill: int = 0) -> Tensor:
        laid = column.new_full((*column.shape[:-2], shape[0] * shape[1]), fill)
        laid[..., there] = column.flatten(-2)[..., here]
        return laid.unflatten(-1, shape)

    owners = moved(torch.arange(len(rows), device=device).unsqueeze(1).expand(batch.ids.shape), -1)
    mask = apart(owners)
    if any(layout.shared):
        at = torch.arange(batch.ids.shape[1], device=device).expand(batch.ids.shape)
        leads, shared = (torch.tensor(column, device=device)[owners] for column in (layout.leads, layout.shared))
        beginning = (leads.unsqueeze(2) == owners.unsqueeze(1)) & (moved(at).unsqueeze(1) < shared.unsqueeze(2))
        mask |= beginning & (owners >= 0).unsqueeze(2)
    ends = list(accumulate(media))
    seen = [number for i in order if not layout.shared[i] for number in range(ends[i] - media[i], ends[i])]
    return replace(
        batch,
        ids=moved(batch.ids),
        present=owners >= 0,
        slots=moved(batch.slots),
        labels=None if batch.labels is None else moved(batch.labels, IGNORED),
        pictures=[batch.pictures[number] for number in seen],
        mask=mask,
        positions=moved(positions),
        text=None if batch.text is None else batch.text[seen],
        text_present=None if batch.text_present is None else batch.text_present[seen],
    ), tuple(spans)


def lay(groups: Sequence[Sequence[Encoded]], padding: int = 0, side: Side = "right") -> Rows:
    """One row per group, as long as the longest.

    The first token of a conversation is never learned: what stands before it is another's, or padding.

    Args:
        groups: what shares a row; groups of one are plain padding.
        padding: the id of padding.
        side: where padding stands; `left` for generation.

    Raises:
        ValueError: an unknown side; no conversations, or an empty one.
    """
    if side not in get_args(Side):
        raise ValueError(f"padding stands on the {' or '.join(get_args(Side))}, not {side!r}")
    if not groups or not all(groups) or not all(len(sample) for group in groups for sample in group):
        raise ValueError("a batch needs at least one conversation in each row, and no empty one")
    length = max(sum(map(len, group)) for group in groups)
    shape = (len(groups), length)
    ids, labels = torch.full(shape, padding), torch.full(shape, IGNORED)
    slots, owners = torch.zeros(shape, dtype=torch.bool), torch.full(shape, -1)
    positions = torch.zeros(shape, dtype=torch.long)
    spans: list[Span] = []
    for row, group in enumerate(groups):
        start = length - sum(map(len, group)) if side == "left" else 0
        for sample in group:
            end = start + len(sample)
            ids[row, start:end] = torch.tensor(sample.ids)
            labels[row, start + 1 : end] = torch.tensor(sample.labels[1:], dtype=torch.long)
            slots[row, start:end] = torch.tensor(sample.slots)
            owners[row, start:end] = len(spans)
            positions[row, start:end] = torch.arange(end - start)
            spans.append((row, start, end))
            start = end
    media = tuple(reference for group in groups for sample in group for reference in sample.media)
    return Rows(ids, labels, slots, owners, positions, tuple(spans), media)
