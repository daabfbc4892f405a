"""Adding to what a layer's self-attention found, with its own queries and before its output map.

Hyper attention and adaption prompts look elsewhere with the queries that self-attention made. What self-attention
computes is left to transformers: its queries are taken where its query map gives them, and its result is changed
where its output map receives it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from embodied.lvlm.adapters.anatomy import Attention, attention_of


class AtAttention(ABC):
    """What happens at one layer's self-attention; a subclass says what is added to its result.

    Args:
        model: the language model.
        layer: one of its layers.
        who: the adapter's name, for errors.

    Raises:
        ValueError: see `attention_of`.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, who: str) -> None:
        self.attention: Attention = attention_of(model, layer, who)
        self.query: Tensor | None = None
        self.angles: tuple[Tensor, Tensor] | None = None
        self.attention.module.register_forward_pre_hook(self._begin, with_kwargs=True)
        self.attention.query.register_forward_hook(self._queried)
        self.attention.output.register_forward_pre_hook(self._found)

    @abstractmethod
    def changed(self, found: Tensor, query: Tensor) -> Tensor:
        """What self-attention found, (B, L, heads x head width), changed; `query`: (B, heads, L, head width)."""

    @abstractmethod
    def idle(self) -> bool:
        """Whether this pass changes nothing."""

    def _begin(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.angles = named.get("position_embeddings")

    def _queried(self, module: nn.Module, arguments: tuple[Any, ...], result: Tensor) -> None:
        self.query = result

    def _found(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor] | None:
        query, angles, own = self.query, self.angles, self.attention
        self.query = self.angles = None
        if self.idle():
            return None
        assert query is not None
        states = query.unflatten(2, (own.heads, own.head_width))
        if getattr(own.module, "q_norm", None) is not None:  # Qwen 3
            states = own.module.q_norm(states)
        states = states.transpose(1, 2)
        if own.rotates:
            assert angles is not None
            states = own.rotated(states, *angles)
        return (self.changed(arguments[0], states),)
