"""MPT's attention with distances taken from the mask.

transformers' MPT biases attention by the column a key stands in. That is right for text without gaps only: padding
between a prefix and what is read behind it would count as distance. Here the bias follows from who sees whom.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.backbones.masks import distances, slopes


class Distance:
    """What the attentions of one model share in a pass: an additive bias (B, heads, N, P + N)."""

    def __init__(self) -> None:
        self.bias: Tensor | None = None

    def look(self, mask: Tensor, heads: int, largest: float, dtype: torch.dtype) -> None:
        """Take the bias of a mask (B, N, P + N)."""
        slope = slopes(heads, largest, mask.device).view(1, -1, 1, 1)
        bias = -(slope * distances(mask).unsqueeze(1)).to(dtype)
        self.bias = bias.masked_fill(~mask.unsqueeze(1), torch.finfo(dtype).min)


class DistantAttention:
    """Stands in for the `forward` of one MptAttention, whose weights it uses; the same as ever where no one looked."""

    def __init__(self, attention: nn.Module, distance: Distance) -> None:
        self.attention, self.distance = attention, distance

    def __call__(self, hidden_states: Tensor, past_key_values: Any = None, **rest: Any) -> tuple[Tensor, Any]:
        own: Any = self.attention
        if self.distance.bias is None:
            return type(own).forward(own, hidden_states, past_key_values=past_key_values, **rest)
        fused = own.Wqkv(hidden_states)
        if own.clip_qkv:
            fused = fused.clamp(min=-own.clip_qkv, max=own.clip_qkv)
        query, key, value = (part.unflatten(2, (own.n_heads, -1)).transpose(1, 2) for part in fused.chunk(3, dim=2))
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, own.layer_idx)
        dropout = own.attn_dropout_p if own.training else 0.0
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=self.distance.bias, dropout_p=dropout, scale=own.softmax_scale
        )
        return own.out_proj(attended.transpose(1, 2).flatten(2)), None


def measure_distance(model: nn.Module) -> Distance:
    """Make all of an MPT model's attentions read the distance that this returns."""
    distance = Distance()
    for block in model.base_model.blocks:  # type: ignore[union-attr]
        block.attn.forward = DistantAttention(block.attn, distance)
    return distance
