"""Proprioception as tokens."""

from __future__ import annotations

from torch import Tensor, nn


class StateEncoder(nn.Module):
    """An MLP from a normalised state vector to tokens of the language model.

    Args:
        state_dim: S.
        width: D.
        tokens: M, how many tokens one state becomes.
        hidden: width of the hidden layer; 0 is a linear map.
    """

    def __init__(self, state_dim: int, width: int, tokens: int = 1, hidden: int = 128) -> None:
        super().__init__()
        self.tokens = tokens
        if hidden:
            self.net = nn.Sequential(nn.Linear(state_dim, hidden), nn.SiLU(), nn.Linear(hidden, tokens * width))
        else:
            self.net = nn.Sequential(nn.Linear(state_dim, tokens * width))

    def forward(self, state: Tensor) -> Tensor:
        """(B, S) to (B, M, D)."""
        return self.net(state).unflatten(-1, (self.tokens, -1))
