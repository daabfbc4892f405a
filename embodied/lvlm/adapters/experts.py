"""Mixtures of experts: a router, sparse or soft, and what keeps the experts evenly used.

The balance is Switch Transformer's (Fedus et al. 2021, arXiv 2101.03961) as Mixtral computes it: experts x sum over
experts of the share of choices times the mean probability. CuMo adds the router's z-loss (Zoph et al. 2022, arXiv
2202.08906), which keeps its logits small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Router(nn.Module):
    """Who serves which token.

    Args:
        width: D of a token.
        experts: E.
        top_k: how many serve a token; 0: all of them, weighted by probability (a soft mixture).
        normalise: whether the chosen ones' weights sum to one (Mixtral, MoE-LLaVA, CuMo) or are their probabilities.

    Raises:
        ValueError: more chosen than there are.
    """

    def __init__(self, width: int, experts: int, top_k: int, normalise: bool = True) -> None:
        super().__init__()
        if experts < 1 or not 0 <= top_k <= experts:
            raise ValueError(f"experts: top_k must be 0 to the number of experts, got {top_k} of {experts}")
        self.experts, self.top_k, self.normalise = experts, top_k, normalise
        self.weight = nn.Parameter(torch.empty(experts, width))
        nn.init.normal_(self.weight, std=0.02)
        self.balance: Tensor | None = None
        self.size: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies don't take along what belongs to a pass."""
        return self.__dict__ | {"balance": None, "size": None}

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Weights (N, E) of tokens (N, D), 0 where not chosen; `present` (N,), bool: the tokens that are counted."""
        logits = F.linear(tokens, self.weight).float()
        probabilities = logits.softmax(-1)
        if self.top_k:
            chosen, index = probabilities.topk(self.top_k, dim=-1)
            if self.normalise:
                chosen = chosen / chosen.sum(-1, keepdim=True)
            weights = torch.zeros_like(probabilities).scatter(1, index, chosen)
            picked = torch.zeros_like(probabilities).scatter(1, index, 1.0)
        else:
            weights, picked = probabilities, torch.ones_like(probabilities)
        self.balance = self.size = None
        if self.training:
            counted = torch.ones_like(logits[:, 0]) if present is None else present.to(logits.dtype)
            total = counted.sum().clamp(min=1)
            share = (picked * counted.unsqueeze(1)).sum(0) / total
            mean = (probabilities * counted.unsqueeze(1)).sum(0) / total
            self.balance = self.experts * (share * mean).sum()
            self.size = (torch.logsumexp(logits, -1).square() * counted).sum() / total
        return weights.to(tokens.dtype)


class Mixture(nn.Module):
    """Several modules in the place of one, each token served by the few its router chooses.

    Args:
        experts: modules mapping (N, D) to (N, D').
        width: D.
        top_k, normalise: of the `Router`.
    """

    def __init__(self, experts: Sequence[nn.Module], width: int, top_k: int, normalise: bool = True) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.router = Router(width, len(experts), top_k, normalise)

    def forward(self, states: Tensor, present: Tensor | None = None) -> Tensor:
        """(..., D) to (..., D')."""
        tokens = states.flatten(0, -2)
        weights = self.router(tokens, None if present is None else present.flatten())
        result: Tensor | None = None
        for i, expert in enumerate(self.experts):
            if self.router.top_k == 0 or self.router.top_k == len(self.experts):
                said = expert(tokens) * weights[:, i : i + 1]
                result = said if result is None else result + said
                continue
            where = weights[:, i].nonzero().squeeze(1)  # none at all, too: then its gradients are zero, not missing
            said = expert(tokens[where]) * weights[where, i : i + 1]
            if result is None:
                result = torch.zeros(len(tokens), said.shape[-1], dtype=said.dtype, device=said.device)
            result = result.index_add(0, where, said)
        assert result is not None
        return result.unflatten(0, states.shape[:-1])


def routing_losses(routers: Sequence[Router], balance: float, size: float) -> dict[str, Tensor]:
    """The weighted mean of what routers say of their last training pass; empty if there was none."""
    told = [router for router in routers if router.balance is not None and router.size is not None]
    losses: dict[str, Tensor] = {}
    if told and balance:
        losses["balance"] = balance * torch.stack([r.balance for r in told if r.balance is not None]).mean()
    if told and size:
        losses["router"] = size * torch.stack([r.size for r in told if r.size is not None]).mean()
    return losses
