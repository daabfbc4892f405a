"""How readout tokens become the one vector that a small network is conditioned on."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from embodied.contracts import Readout

Pooling = Literal["mean", "max", "flatten"]


class Pool(nn.Module):
    """Readout tokens of the latest real step, (B, R, D), to (B, `width`).

    Args:
        how: `mean` averages the R tokens (Octo); `max` takes the largest of each number (RoboFlamingo); `flatten` lays
            them side by side, so that each can carry something of its own.
        width: D.
        readout_tokens: R.

    Attributes:
        width: D or R x D.

    Raises:
        ValueError: an unknown `how`; a readout with another number of tokens.
    """

    def __init__(self, how: Pooling, width: int, readout_tokens: int) -> None:
        super().__init__()
        if how not in get_args(Pooling):
            raise ValueError(f"pooling is one of {', '.join(get_args(Pooling))}, got {how!r}")
        self.how, self.readout_tokens = how, readout_tokens
        self.width = width * readout_tokens if how == "flatten" else width

    def forward(self, readout: Readout) -> Tensor:
        return self._pool(readout.last)

    def steps(self, readout: Readout) -> Tensor:
        """The vector of every step, (B, T, `width`); zeros at steps that do not exist."""
        return self._pool(torch.where(readout.steps[..., None, None], readout.tokens, 0.0))

    def _pool(self, tokens: Tensor) -> Tensor:
        if tokens.shape[-2] != self.readout_tokens:
            raise ValueError(f"the head was built for {self.readout_tokens} readout tokens, but got {tokens.shape[-2]}")
        if self.how == "flatten":
            return tokens.flatten(-2)
        return tokens.mean(dim=-2) if self.how == "mean" else tokens.amax(dim=-2)
