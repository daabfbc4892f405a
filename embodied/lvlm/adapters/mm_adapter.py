"""Mixture-of-modality adapters: two small adapters per layer, mixed by what kind of input a sample is.

LaVIN (Luo et al. 2023, arXiv 2305.15023). A modality token - with pictures, or text alone - is what a router reads to
weigh the two. There it also stands first in the sequence, where it sees nothing but itself; here its embedding goes to
the routers directly, so that text is not moved and a decoding step knows its sample's kind (`Sight.sighted`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from embodied.lvlm.adapters.anatomy import ATTENTION, FEED_FORWARD, hidden_in, layers_of, part_of, placed, with_hidden
from embodied.lvlm.adapters.anatomy import width_of as model_width
from embodied.lvlm.adapters.base import Adapter


class MMAdapter(Adapter):
    """The mixture-of-modality adapter.

    Args: width: channels in the middle. scale: of what an adapter adds. temperature: of the router's softmax. before:
    which parts of a layer read through it: `attention` (the official choice), `feed_forward` or `both`. dropout: of the
    middle.

    Raises:
        ValueError: a family without such parts.
    """

    def __init__(
        self,
        width: int = 8,
        scale: float = 1.0,
        temperature: float = 10.0,
        before: Literal["attention", "feed_forward", "both"] = "attention",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.scale, self.temperature, self.before, self.dropout = width, scale, temperature, before, dropout
        self.parts = nn.ModuleDict()
        self.modality: nn.Embedding | None = None

    def install(self, model: nn.Module) -> None:
        layers, width = layers_of(model, "MMAdapter"), model_width(model)
        self.modality = nn.Embedding(2, width)  # text alone, with pictures
        placed(self.modality, layers[0])
        kinds = ("attention", "feed_forward") if self.before == "both" else (self.before,)
        for index, layer in enumerate(layers):
            for kind in kinds:
                names = ATTENTION if kind == "attention" else FEED_FORWARD
                module = part_of(layer, names, "MMAdapter", kind)
                part = _Pair(width, self.width, self.scale, self.temperature, self.dropout)
                self.parts[f"{index}|{kind}"] = placed(part, layer)
                module.register_forward_pre_hook(_Through(self, f"{index}|{kind}"), with_kwargs=True)


class _Pair(nn.Module):
    """Two adapters that share their way down, and the router between them."""

    def __init__(self, width: int, hidden: int, scale: float, temperature: float, dropout: float) -> None:
        super().__init__()
        self.scale, self.temperature = scale, temperature
        self.router = nn.Linear(width, 2)
        self.down, self.dropout = nn.Linear(width, hidden), nn.Dropout(dropout)
        self.ups = nn.ModuleList([nn.Linear(hidden, width) for _ in range(2)])
        for up in self.ups:
            assert isinstance(up, nn.Linear)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)

    def forward(self, states: Tensor, modality: Tensor) -> Tensor:
        """(B, L, D), with the embedding of each row's kind (B, D)."""
        weights = torch.softmax(self.router(modality) / self.temperature, dim=-1)
        middle = self.dropout(self.down(states))
        for i, up in enumerate(self.ups):
            states = states + up(middle) * weights[:, i].view(-1, 1, 1) * self.scale
        return states


class _Through:
    """Passes what an attention or feed-forward is about to read through a pair."""

    def __init__(self, adapter: MMAdapter, name: str) -> None:
        self.adapter, self.name = adapter, name

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        hidden = hidden_in(arguments, named)
        assert self.adapter.modality is not None
        kind = self.adapter.modality(self.adapter.sight.looks(len(hidden), hidden.device).long())
        return with_hidden(arguments, named, self.adapter.parts[self.name](hidden, kind))
