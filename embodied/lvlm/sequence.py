"""Interleaved segments as one sequence, with its attention mask and positions.

Text, images of several cameras and steps, states and readout tokens are *segments*. Packed, they are one row of
embeddings per sample in which each token knows whether it is padding and which block it belongs to. A token sees the
present tokens of its own block and of those before; inside a block attention is bidirectional or causal. One rule
gives every layout used here:

- a bidirectional prefix is one block (PaliGemma, pi-0);
- a causal prefix is one causal block (RT-2, OpenVLA);
- a history that may not look ahead is one block per step (Octo);
- a history of frames read each by itself (RoboFlamingo) is `framewise`: one sequence per frame, a single block each;
- readout tokens are a block behind, so the prefix never sees them and can be cached without them.

Positions count present tokens only: padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Attention = Literal["bidirectional", "causal", "stepwise", "framewise"]


@dataclass(frozen=True)
class Segment:
    """Some tokens of the sequence.

    Attributes:
        tokens: (B, N, D).
        present: (B, N), bool; False on padding.
        step: the history step they belong to, counted from 0; -1 for tokens that belong to none (the instruction).
    """

    tokens: Tensor
    present: Tensor
    step: int = -1


@dataclass(frozen=True)
class Packed:
    """One sequence per sample.

    Attributes:
        tokens: (B, L, D).
        present: (B, L), bool.
        positions: (B, L), int: how many present tokens came before.
        blocks: (L,), int, never falling.
        steps: (L,), int: the segment's history step.
        causal: whether tokens of one block see only those before them.
    """

    tokens: Tensor
    present: Tensor
    positions: Tensor
    blocks: Tensor
    steps: Tensor
    causal: bool

    @property
    def mask(self) -> Tensor:
        """(B, L, L), bool: row i sees column j. A padding token sees itself, so that its softmax is defined."""
        sees = self.blocks.unsqueeze(1) >= self.blocks.unsqueeze(0)
        if self.causal:
            sees = sees & torch.ones_like(sees).tril()
        itself = torch.eye(len(self.blocks), dtype=torch.bool, device=sees.device)
        return (sees & self.present.unsqueeze(1)) | itself


def pack(segments: Sequence[Segment], attention: Attention) -> Packed:
    """Lay segments end to end.

    Args:
        segments: in reading order; with `stepwise` attention their steps must not fall.
        attention: `bidirectional`, `causal`, `stepwise` (bidirectional inside a step, never looking ahead), or
            `framewise` (bidirectional; who packs gives each step a row of its own).

    Raises:
        ValueError: an unknown attention, or steps out of order.
    """
    if attention not in get_args(Attention):
        raise ValueError(f"attention is one of {', '.join(get_args(Attention))}, got {attention!r}")
    device = segments[0].tokens.device
    steps = torch.cat([torch.full((s.tokens.shape[1],), s.step, device=device) for s in segments])
    if attention == "stepwise" and (steps.diff() < 0).any():
        raise ValueError(
            "stepwise attention needs segments ordered by step; put the instruction before the observations"
        )
    present = torch.cat([s.present for s in segments], dim=1)
    return Packed(
        tokens=torch.cat([s.tokens for s in segments], dim=1),
        present=present,
        positions=(present.cumsum(1) - 1).clamp(min=0),
        blocks=steps if attention == "stepwise" else torch.zeros_like(steps),
        steps=steps,
        causal=attention == "causal",
    )
