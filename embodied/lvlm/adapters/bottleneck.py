"""Bottleneck adapters after every few layers.

Lynx (Zeng et al. 2023, arXiv 2307.02469) puts one behind every k layers of a frozen language model: down to few
channels, a non-linearity, and up again, added to what the layer said. Up starts at zero, so nothing changes at first.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.adapters.anatomy import chosen, layers_of, placed, width_of
from embodied.lvlm.adapters.base import Adapter


class BottleneckAdapter(Adapter):
    """Bottlenecks behind layers.

    Args: every: one behind every so many layers. width: channels in the middle. norm: whether what a bottleneck reads
    is normalised first.
    """

    def __init__(self, every: int = 2, width: int = 64, norm: bool = True) -> None:
        super().__init__()
        self.every, self.width, self.norm = every, width, norm
        self.parts = nn.ModuleDict()

    def install(self, model: nn.Module) -> None:
        layers, width = layers_of(model, "BottleneckAdapter"), width_of(model)
        for index in chosen(layers, self.every, self.every - 1, "BottleneckAdapter"):
            self.parts[str(index)] = placed(Bottleneck(width, self.width, self.norm), layers[index])
            layers[index].register_forward_hook(_Behind(self, str(index)))


class Bottleneck(nn.Module):
    """x + up(silu(down(norm(x)))), up starting at zero; (..., D) to (..., D)."""

    def __init__(self, width: int, hidden: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.up(F.silu(self.down(self.norm(states))))


class _Behind:
    """Passes what a layer says through a bottleneck."""

    def __init__(self, adapter: BottleneckAdapter, name: str) -> None:
        self.adapter, self.name = adapter, name

    def __call__(self, layer: nn.Module, arguments: tuple[Any, ...], result: Any) -> Any:
        part = self.adapter.parts[self.name]
        return (part(result[0]), *result[1:]) if isinstance(result, tuple) else part(result)
