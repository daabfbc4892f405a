"""No connector: the encoder's features are tokens already (Qwen2-VL, whose encoder ends in a merger of its own)."""

from __future__ import annotations

from torch import Tensor

from embodied.lvlm.connectors.base import NOTHING, Connector, Context


class IdentityConnector(Connector):
    """Features as they are.

    Args:
        features, width: D_enc and D, which must be equal.

    Raises:
        ValueError: they are not.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__(features, width)
        if features != width:
            raise ValueError(
                f"IdentityConnector: features of width {features} are no tokens of width {width}; choose a projection"
            )

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        return features

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return features
