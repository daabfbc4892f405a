"""The contract of a connector."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Connector(nn.Module, ABC):
    """Features to tokens.

    Args:
        features: width D_enc of a feature.
        width: width D of a token.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features, self.width = features, width

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """(B, N, D_enc) to (B, M, D)."""

    @abstractmethod
    def tokens(self, features: int) -> int:
        """M for N features."""
