"""Mixtures of low-rank experts: several LoRAs per linear map, sparse or soft.

LLaVA-MoLE (Chen et al. 2024, arXiv 2401.16160): one of several LoRAs of the feed-forward serves each token, chosen by a
router, so that data of different kinds don't pull at the same matrices. Omni-SMoLA (Wu et al. 2023, arXiv 2312.00968):
all of many serve, softly weighted. Weights here are the router's probabilities, per token; each map has its router.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from embodied.lvlm.adapters.anatomy import key_of, linears, placed
from embodied.lvlm.adapters.base import Adapter
from embodied.lvlm.adapters.experts import Router, routing_losses


class LoRAExperts(Adapter):
    """Mixtures of low-rank experts.

    Args: match: a regular expression for the names of linear maps. experts: how many LoRAs each has. top_k: how many
    serve a token; 0: all, softly. rank, alpha: of each, as in LoRA. normalise: whether the chosen ones' weights sum to
    one; otherwise they are probabilities, through which the router learns even where one serves. balance: weight of the
    load balance; a soft mixture has none.

    Raises:
        ValueError: a pattern that matches nothing, more chosen than there are.
    """

    def __init__(
        self,
        match: str = "gate_proj|up_proj|down_proj|fc1|fc2",
        experts: int = 3,
        top_k: int = 1,
        rank: int = 32,
        alpha: float = 64.0,
        normalise: bool = False,
        balance: float = 0.01,
    ) -> None:
        super().__init__()
        self.match, self.experts, self.top_k, self.rank, self.alpha = match, experts, top_k, rank, alpha
        self.normalise, self.balance = normalise, balance
        self.parts = nn.ModuleDict()
        Router(1, experts, top_k)  # the complaint about top_k belongs here

    def install(self, model: nn.Module) -> None:
        for name, linear in linears(model, self.match, "LoRAExperts").items():
            part = _LowRankExperts(linear.in_features, linear.out_features, self)
            self.parts[key_of(name)] = placed(part, linear)
            linear.register_forward_hook(_Added(self, key_of(name)))

    def losses(self) -> dict[str, Tensor]:
        routers = [part.router for part in self.parts.values() if isinstance(part, _LowRankExperts)]
        return routing_losses(routers, self.balance if self.top_k else 0.0, 0.0)


class _LowRankExperts(nn.Module):
    """The LoRAs of one linear map; (..., in) to (..., out), zero at first."""

    def __init__(self, inputs: int, outputs: int, options: LoRAExperts) -> None:
        super().__init__()
        self.router = Router(inputs, options.experts, options.top_k, options.normalise)
        self.scale = options.alpha / options.rank
        self.down = nn.Parameter(torch.empty(options.experts, options.rank, inputs))
        self.up = nn.Parameter(torch.zeros(options.experts, outputs, options.rank))
        for expert in self.down:
            nn.init.kaiming_uniform_(expert, a=5**0.5)

    def forward(self, states: Tensor, present: Tensor | None) -> Tensor:
        tokens = states.flatten(0, -2)
        weights = self.router(tokens, None if present is None else present.flatten())
        # thin matrices: running all of them costs less than sorting tokens
        middle = torch.einsum("ni,eri->ner", tokens, self.down) * weights.unsqueeze(2)
        return torch.einsum("ner,eor->no", middle, self.up).unflatten(0, states.shape[:-1]) * self.scale


class _Added:
    """Adds what the experts say to what a linear map says."""

    def __init__(self, adapter: LoRAExperts, name: str) -> None:
        self.adapter, self.name = adapter, name

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], result: Tensor) -> Tensor:
        present = self.adapter.sight.present
        if present is not None and present.numel() != arguments[0].shape[:-1].numel():
            present = None  # of another part of the model than the one that was told of
        return result + self.adapter.parts[self.name](arguments[0], present)
