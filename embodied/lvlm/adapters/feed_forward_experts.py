"""Feed-forwards as mixtures of experts, each starting as a copy of the dense one: sparse upcycling.

Upcycling (Komatsuzaki et al. 2022, arXiv 2212.05055) in MoE-LLaVA (Lin et al. 2024, arXiv 2401.15947: every other layer
of the language model, two of four) and CuMo (Li et al. 2024, arXiv 2405.05949: language model, vision tower and
connector, with a z-loss). It works on any stack of layers with a feed-forward of hidden states alone: a language model
or a vision tower. The experts replace the dense feed-forward, which is gone: load a checkpoint before installing.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from embodied.lvlm.adapters.anatomy import FEED_FORWARD, chosen, layers_of, part_of, placed, width_of
from embodied.lvlm.adapters.base import Adapter
from embodied.lvlm.adapters.experts import Mixture, Router, routing_losses


class FeedForwardExperts(Adapter):
    """Mixtures in the place of feed-forwards.

    Args: experts, top_k: how many there are and how many serve a token. every, offset: which layers, counted from 0.
    balance, size: weights of the load balance and of the router's z-loss.

    Raises:
        ValueError: a family whose feed-forward is no module of hidden states alone (OPT, MPT).
    """

    def __init__(
        self,
        experts: int = 4,
        top_k: int = 2,
        every: int = 2,
        offset: int = 0,
        balance: float = 0.01,
        size: float = 0.0,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise ValueError(f"FeedForwardExperts: top_k must be 1 to {experts}, got {top_k}")
        self.experts, self.top_k, self.every, self.offset = experts, top_k, every, offset
        self.balance, self.size = balance, size
        self.mixtures = nn.ModuleDict()

    def install(self, model: nn.Module) -> None:
        layers, width = layers_of(model, "FeedForwardExperts"), width_of(model)
        for index in chosen(layers, self.every, self.offset, "FeedForwardExperts"):
            layer = layers[index]
            dense = part_of(layer, FEED_FORWARD, "FeedForwardExperts", "feed-forward of hidden states alone")
            name = next(name for name in FEED_FORWARD if getattr(layer, name, None) is dense)
            experts = [dense, *(copy.deepcopy(dense) for _ in range(self.experts - 1))]
            mixture = Mixture(experts, width, self.top_k)
            placed(mixture.router, layer)
            self.mixtures[str(index)] = mixture.train(self.training)
            setattr(layer, name, _InPlace(self, str(index)))

    def losses(self) -> dict[str, Tensor]:
        routers = [module for module in self.modules() if isinstance(module, Router)]
        return routing_losses(routers, self.balance, self.size)


class _InPlace(nn.Module):
    """Stands where a feed-forward was, and has no parameters: the adapter has them."""

    def __init__(self, adapter: FeedForwardExperts, name: str) -> None:
        super().__init__()
        self.__dict__["adapter"] = adapter  # not a submodule
        self.name = name

    def forward(self, hidden_states: Tensor) -> Tensor:
        adapter: FeedForwardExperts = self.__dict__["adapter"]
        present = adapter.sight.present
        if present is not None and present.shape != hidden_states.shape[:-1]:
            present = None  # told of a language model's tokens, while this is a vision tower
        return adapter.mixtures[self.name](hidden_states, present)
