"""A mixture of connectors: each feature is served by a few of several MLPs.

CuMo's connector (Li et al. 2024, arXiv 2405.05949): experts that start as copies of a trained MLP, of which a router
chooses two per feature, with a load balance that the training adds to its loss.
"""

from __future__ import annotations

import copy

from torch import Tensor

from embodied.lvlm.adapters.experts import Mixture, routing_losses
from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.projection import MLPConnector


class MixtureConnector(Connector):
    """A mixture of MLP connectors.

    Args:
        features, width: see `Connector`.
        experts, top_k: how many there are and how many serve a feature.
        layers: of each MLP.
        balance, size: weights of the load balance and of the router's z-loss.

    Raises:
        ValueError: more chosen than there are, or whatever the MLP objects to.
    """

    def __init__(
        self,
        features: int,
        width: int,
        experts: int = 4,
        top_k: int = 2,
        layers: int = 2,
        balance: float = 0.1,
        size: float = 0.01,
    ) -> None:
        super().__init__(features, width)
        if not 1 <= top_k <= experts:
            raise ValueError(f"MixtureConnector: top_k must be 1 to {experts}, got {top_k}")
        first = MLPConnector(features, width, layers)
        self.mixture = Mixture([first, *(copy.deepcopy(first) for _ in range(experts - 1))], features, top_k)
        self.balance, self.size = balance, size

    def upcycle(self, connector: MLPConnector) -> None:
        """Let every expert start as a trained connector of the same shape."""
        for expert in self.mixture.experts:
            expert.load_state_dict(connector.state_dict())

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        return self.mixture(features, context.present)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return features

    def losses(self) -> dict[str, Tensor]:
        """Terms that the last pass adds to the loss, already weighted."""
        return routing_losses([self.mixture.router], self.balance, self.size)
