"""Low-rank adaptation: each linear map of a pattern gets a product of two thin matrices added.

LoRA (Hu et al. 2021, arXiv 2106.09685), for all tokens or for visual ones only: Partial LoRA of InternLM-XComposer2
(Dong et al. 2024, arXiv 2401.16420), where text passes through the language model as it was. peft can't tell tokens
apart and puts its matrices into the language model; these are the adapter's own. For all tokens both are the same, and
`peft_state` gives the tensors under peft's names.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from embodied.lvlm.adapters.anatomy import key_of, linears, placed, tokens_like
from embodied.lvlm.adapters.base import Adapter


class LowRank(nn.Module):
    """scale x up(down(x)), up starting at zero; (..., in) to (..., out)."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor) -> Tensor:
        return self.up(self.down(self.dropout(states))) * self.scale


class LoRA(Adapter):
    """LoRA.

    Args: match: a regular expression for the names of linear maps. rank, alpha: what is added is multiplied by
    alpha / rank. dropout: of what the matrices read. tokens: `all`, or `visual` ones only (Partial LoRA).

    Raises:
        ValueError: a pattern that matches nothing, a rank below 1.
    """

    def __init__(
        self,
        match: str = "q_proj|v_proj",
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        tokens: Literal["all", "visual"] = "all",
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"LoRA: rank must be at least 1, got {rank}")
        self.match, self.rank, self.alpha, self.dropout, self.tokens = match, rank, alpha, dropout, tokens
        self.parts = nn.ModuleDict()
        self.merged = False
        self._added: list[_Added] = []

    def install(self, model: nn.Module) -> None:
        for name, linear in linears(model, self.match, "LoRA").items():
            part = LowRank(linear.in_features, linear.out_features, self.rank, self.alpha / self.rank, self.dropout)
            self.parts[key_of(name)] = placed(part, linear)
            added = _Added(self, key_of(name), linear)
            linear.register_forward_hook(added)
            self._added.append(added)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the products to the language model's own weights, which then says the same at no cost.

        Raises:
            ValueError: only visual tokens are adapted; merged already.
        """
        if self.tokens != "all":
            raise ValueError("LoRA: what only visual tokens pass through can't be merged into weights all tokens share")
        if self.merged:
            raise ValueError("LoRA: merged already")
        for added in self._added:
            part = self.parts[added.name]
            assert isinstance(part, LowRank)
            added.linear.weight += part.up.weight @ part.down.weight * part.scale
        self.merged = True

    def peft_state(self) -> dict[str, Tensor]:
        """The matrices under the names that peft saves, so that its `LoraConfig` of the same match loads them."""
        state: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            assert isinstance(part, LowRank)
            path = "base_model.model." + name.replace("|", ".")
            state |= {f"{path}.lora_A.weight": part.down.weight, f"{path}.lora_B.weight": part.up.weight}
        return state


class _Added:
    """Adds a low-rank product to what a linear map says."""

    def __init__(self, adapter: LoRA, name: str, linear: nn.Linear) -> None:
        self.adapter, self.name, self.linear = adapter, name, linear

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], result: Tensor) -> Tensor:
        adapter = self.adapter
        if adapter.merged:
            return result
        part, states = adapter.parts[self.name], arguments[0]
        if adapter.tokens == "all":
            return result + part(states)
        visual = adapter.sight.visual
        if visual is None or not visual.any():
            return result
        where = tokens_like(visual, states, "LoRA")
        return result + torch.zeros_like(result).masked_scatter(where.unsqueeze(-1), part(states[where]))
