"""Adaption prompts: learned tokens that the last layers attend to, through a gate that starts shut.

LLaMA-Adapter (Zhang et al. 2023, arXiv 2303.16199): the picture's feature is added to the prompts. LLaMA-Adapter V2
(Gao et al. 2023, arXiv 2304.15010) fuses early: the picture's tokens are attended to in the first layers and the
prompts in the last; its tuning of biases, scales and norms is `affine.py`. The attention to prompts has a softmax of
its own, is multiplied by a gate that starts at 0, and added to what self-attention found. Without a picture and with
one gate per layer this is peft's AdaptionPrompt.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.adapters.anatomy import layers_of, placed, width_of
from embodied.lvlm.adapters.base import Adapter
from embodied.lvlm.adapters.queries import AtAttention


class AdaptionPrompt(Adapter):
    """Adaption prompts.

    Args: length: prompts per layer. layers: how many of the last layers have them. early: how many of the first layers
    attend to the picture's tokens (V2); 0: the picture is added to the prompts instead (V1), so `Sight.media` holds one
    token per row, or as many as there are prompts. gate: per `head` or per `layer`. squash: the gate through tanh (the
    official code) or as it is (peft).

    Raises:
        ValueError: more layers than there are, or early and late ones that overlap; media that don't fit the prompts.
    """

    def __init__(
        self,
        length: int = 10,
        layers: int = 30,
        early: int = 0,
        gate: Literal["head", "layer"] = "head",
        squash: bool = True,
    ) -> None:
        super().__init__()
        self.length, self.layers, self.early, self.gate, self.squash = length, layers, early, gate, squash
        self.parts = nn.ModuleDict()

    def install(self, model: nn.Module) -> None:
        layers = layers_of(model, "AdaptionPrompt")
        if self.layers < 0 or self.early < 0 or self.layers + self.early > len(layers):
            raise ValueError(
                f"AdaptionPrompt: {self.layers} last and {self.early} early layers of the {len(layers)} there are"
            )
        late = range(len(layers) - self.layers, len(layers))
        for index in (*range(self.early), *late):
            at = _AtPrompts(model, layers[index], self, str(index))
            length = self.length if index in late else 0
            part = _Part(length, width_of(model), at.attention.heads if self.gate == "head" else 1)
            self.parts[str(index)] = placed(part, layers[index])


class _Part(nn.Module):
    """The prompts of one layer (none in an early one) and its gate."""

    def __init__(self, length: int, width: int, gates: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(length, width)) if length else None
        self.gate = nn.Parameter(torch.zeros(gates, 1, 1))


class _AtPrompts(AtAttention):
    """One layer's attention to its prompts, or to the picture."""

    def __init__(self, model: nn.Module, layer: nn.Module, adapter: AdaptionPrompt, name: str) -> None:
        super().__init__(model, layer, "AdaptionPrompt")
        self.adapter, self.name = adapter, name

    @property
    def part(self) -> _Part:
        part = self.adapter.parts[self.name]
        assert isinstance(part, _Part)
        return part

    def idle(self) -> bool:
        return self.part.prompt is None and self.adapter.sight.media is None

    def changed(self, found: Tensor, query: Tensor) -> Tensor:
        own, sight, part = self.attention, self.adapter.sight, self.part
        mask = None
        if part.prompt is None:
            assert sight.media is not None
            tokens = sight.media
            mask = sight.media_seen
        else:
            tokens = self._prompts(part.prompt, len(found))
        # the maps as they were released, past whatever else was put on them for tokens of the sequence
        key = own.shaped(F.linear(tokens, own.key.weight, own.key.bias), own.key_value_heads)
        value = own.shaped(F.linear(tokens, own.value.weight, own.value.bias), own.key_value_heads)
        if getattr(own.module, "k_norm", None) is not None:
            key = own.module.k_norm(key)
        seeing = None if mask is None else mask.any(2, keepdim=True)
        allowed = None if mask is None or seeing is None else (mask | ~seeing).unsqueeze(1)
        scale = getattr(own.module, "scaling", None)
        prompted = F.scaled_dot_product_attention(
            query, own.spread(key), own.spread(value), attn_mask=allowed, scale=scale
        )
        prompted = prompted * (part.gate.tanh() if self.adapter.squash else part.gate)
        prompted = prompted.transpose(1, 2).flatten(2)
        return found + (prompted if seeing is None else prompted * seeing)

    def _prompts(self, prompt: Tensor, rows: int) -> Tensor:
        """(B, length, D): the prompts, with the picture added where there is one and none attends to it earlier."""
        sight = self.adapter.sight
        prompts = prompt.expand(rows, -1, -1)
        if sight.media is None or self.adapter.early:
            return prompts
        if sight.media.shape[1] not in (1, len(prompt)):
            raise ValueError(
                f"AdaptionPrompt: {sight.media.shape[1]} media tokens are added to {len(prompt)} prompts; "
                "give one token or as many as there are prompts"
            )
        return prompts + sight.media * sight.looks(rows, prompts.device).view(-1, 1, 1)
