"""Hyper attention: in a few layers, self-attention and cross-attention to the media run side by side.

mPLUG-Owl3 (Ye et al. 2024, arXiv 2408.04840). Both share the layer's norm and queries; only a key-and-value map for the
media is new. What they find is mixed by a gate: result = (1 - g) self + g cross. The media's keys are rotated by where
the media stand in the text (MI-RoPE), so that order and nearness are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.adapters.anatomy import BEFORE_ATTENTION, base_of, layers_of, part_of, placed
from embodied.lvlm.adapters.base import Adapter
from embodied.lvlm.adapters.queries import AtAttention


class HyperAttention(Adapter):
    """Hyper attention.

    Args: layers: which, counted from 0 (the paper spreads four over the depth); None: the ones at 1/8, 3/8, 5/8 and 7/8
    of the depth. gate: `fixed`, one learned number per channel (the released model), or `adaptive`, told per head by
    what self-attention found (the paper). gate_start: the gate before its sigmoid; very negative: shut, and this is the
    language model.

    Raises:
        ValueError: a layer that does not exist, a family without such an attention.
    """

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        gate: Literal["fixed", "adaptive"] = "fixed",
        gate_start: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers, self.gate, self.gate_start = layers, gate, gate_start
        self.parts = nn.ModuleDict()

    def install(self, model: nn.Module) -> None:
        layers = layers_of(model, "HyperAttention")
        depth = len(layers)
        wanted = list(self.layers) if self.layers is not None else sorted({depth * i // 8 for i in (1, 3, 5, 7)})
        if not wanted or min(wanted) < 0 or max(wanted) >= depth:
            raise ValueError(f"HyperAttention: layers {wanted} are not all among the {depth} there are")
        turning = getattr(base_of(model), "rotary_emb", None)
        for index in wanted:
            norm = part_of(layers[index], BEFORE_ATTENTION, "HyperAttention", "norm before its attention")
            found = _Beside(model, layers[index], self, str(index), norm, turning)
            part = _Part(found, self.gate, self.gate_start)
            self.parts[str(index)] = placed(part, layers[index])


class _Part(nn.Module):
    """What one layer adds: the media's keys and values, and the gate."""

    def __init__(self, beside: _Beside, gate: str, start: float) -> None:
        super().__init__()
        own = beside.attention
        self.key_value = nn.Linear(own.key.in_features, 2 * own.key_value_heads * own.head_width)
        size = own.heads * own.head_width
        self.fixed = nn.Parameter(torch.full((size,), start)) if gate == "fixed" else None
        self.told = nn.Linear(own.head_width, 1) if gate == "adaptive" else None
        if self.told is not None:
            nn.init.zeros_(self.told.weight)
            nn.init.constant_(self.told.bias, start)

    def openness(self, found: Tensor, heads: int) -> Tensor:
        """g in [0, 1], (..., heads x head width)."""
        if self.fixed is not None:
            return torch.sigmoid(self.fixed)
        assert self.told is not None
        by_head = found.unflatten(2, (heads, -1))
        return torch.sigmoid(self.told(by_head)).expand_as(by_head).flatten(2)


class _Beside(AtAttention):
    """Cross-attention beside one layer's self-attention."""

    def __init__(
        self, model: nn.Module, layer: nn.Module, adapter: HyperAttention, name: str, norm: nn.Module, turning: Any
    ) -> None:
        super().__init__(model, layer, "HyperAttention")
        self.adapter, self.name, self.norm, self.turning = adapter, name, norm, turning
        rope = getattr(base_of(model).config, "rope_parameters", None) or {}
        self.axes = 3 if "mrope_section" in rope else 1

    def idle(self) -> bool:
        return self.adapter.sight.media is None

    def changed(self, found: Tensor, query: Tensor) -> Tensor:
        sight, own, part = self.adapter.sight, self.attention, self.adapter.parts[self.name]
        assert isinstance(part, _Part) and sight.media is not None
        both = part.key_value(self.norm(sight.media)).unflatten(2, (own.key_value_heads, 2, own.head_width))
        key, value = both[:, :, :, 0].transpose(1, 2), both[:, :, :, 1].transpose(1, 2)
        if own.rotates:
            where = sight.media_positions
            if where is None:
                where = torch.zeros(sight.media.shape[:2], dtype=torch.long, device=key.device)
            if self.axes > 1:  # M-RoPE: media stand at a point, the same in every axis, as text does
                where = where.expand(self.axes, -1, -1)
            key = own.rotated(key, *self.turning(key, where))
        mask, seeing = None, None
        if sight.media_seen is not None:
            seeing = sight.media_seen.any(2, keepdim=True)
            mask = (sight.media_seen | ~seeing).unsqueeze(1)
        scale = getattr(own.module, "scaling", None)
        crossed = F.scaled_dot_product_attention(query, own.spread(key), own.spread(value), attn_mask=mask, scale=scale)
        openness = part.openness(found, own.heads)
        mixed = found * (1 - openness) + crossed.transpose(1, 2).flatten(2) * openness
        return mixed if seeing is None else torch.where(seeing, mixed, found)
