"""One token per feature: a linear map (LLaVA) or a small MLP (LLaVA-1.5: two layers with GELU)."""

from __future__ import annotations

from torch import Tensor, nn

from embodied.lvlm.connectors.base import NOTHING, Connector, Context


class LinearConnector(Connector):
    """LLaVA's projection (Liu et al. 2023, arXiv 2304.08485)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__(features, width)
        self.net = nn.Linear(features, width)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        return self.net(features)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return features


class MLPConnector(Connector):
    """LLaVA-1.5's projection (Liu et al. 2023, arXiv 2310.03744): `layers` linear maps with GELU between them.

    Raises:
        ValueError: fewer than two layers.
    """

    def __init__(self, features: int, width: int, layers: int = 2) -> None:
        super().__init__(features, width)
        if layers < 2:
            raise ValueError(
                f"MLPConnector: layers must be at least 2, got {layers}; one layer is the linear connector"
            )
        parts: list[nn.Module] = [nn.Linear(features, width)]
        for _ in range(layers - 1):
            parts += [nn.GELU(), nn.Linear(width, width)]
        self.net = nn.Sequential(*parts)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        return self.net(features)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return features
