"""Gated cross-attention: before some layers, text looks at media beside the sequence, through a gate that starts shut.

Flamingo (Alayrac et al. 2022, arXiv 2204.14198), and after it OpenFlamingo, Otter, Multimodal-GPT and IDEFICS; Llama
3.2 Vision has the same block with other norms. A block is cross-attention and a feed-forward, each added times tanh of
a learned gate. With the options of `conf/adapter/idefics.yaml` it holds the weights of transformers'
`IdeficsGatedCrossAttentionLayer`, with those of `mllama.yaml` of its `MllamaCrossAttentionDecoderLayer`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.adapters.anatomy import chosen, hidden_in, layers_of, placed, width_of, with_hidden
from embodied.lvlm.adapters.base import Adapter, Sight

NAMES = {
    "attention_norm.": "input_layernorm.",
    "query.": "cross_attn.q_proj.",
    "key.": "cross_attn.k_proj.",
    "value.": "cross_attn.v_proj.",
    "output.": "cross_attn.o_proj.",
    "feed_forward_norm.": "post_attention_layernorm.",
    "gate.": "mlp.gate_proj.",
    "up.": "mlp.up_proj.",
    "down.": "mlp.down_proj.",
}
"""What both classes of transformers call the parts of a block."""

IDEFICS = NAMES | {
    "attention_gate": "alpha_cross_attn",
    "feed_forward_gate": "alpha_dense",
    "query_norm.": "cross_attn.q_layer_norm.",
    "key_norm.": "cross_attn.k_layer_norm.",
}
MLLAMA = NAMES | {
    "attention_gate": "cross_attn_attn_gate",
    "feed_forward_gate": "cross_attn_mlp_gate",
    "query_norm.": "cross_attn.q_norm.",
    "key_norm.": "cross_attn.k_norm.",
}


class CrossAttentionBlock(nn.Module):
    """One block. Args are those of the adapter, with all sizes given; `media_width` is that of the media."""

    def __init__(
        self,
        width: int,
        media_width: int,
        heads: int,
        key_value_heads: int,
        head_width: int,
        hidden: int,
        activation: Literal["swiglu", "gelu"],
        norm: Literal["rms", "layer"],
        norm_eps: float,
        normalise_queries: bool,
        gate: Literal["scalar", "vector"],
        blind: Literal["all", "attention"],
    ) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.blind = heads, key_value_heads, blind

        def normed(size: int) -> nn.Module:
            return nn.RMSNorm(size, norm_eps) if norm == "rms" else nn.LayerNorm(size, norm_eps)

        self.attention_norm, self.feed_forward_norm = normed(width), normed(width)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(media_width, key_value_heads * head_width, bias=False)
        self.value = nn.Linear(media_width, key_value_heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)
        self.query_norm = nn.RMSNorm(head_width, norm_eps) if normalise_queries else None
        self.key_norm = nn.RMSNorm(head_width, norm_eps) if normalise_queries else None
        self.gate = nn.Linear(width, hidden, bias=False) if activation == "swiglu" else None
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        shape = (1, 1, width) if gate == "vector" else (1,)
        self.attention_gate = nn.Parameter(torch.zeros(shape))
        self.feed_forward_gate = nn.Parameter(torch.zeros(shape))

    def forward(self, hidden: Tensor, sight: Sight) -> Tensor:
        """(B, L, D) to the same, having looked at `sight.media`; who sees none of them is left as it was."""
        if sight.media is None and self.blind == "all":
            return hidden
        seeing = None
        if sight.media is not None:
            looked, seeing = self._look(self.attention_norm(hidden), sight.media, sight.media_seen)
            hidden = hidden + self.attention_gate.tanh() * looked
        thought = self._think(self.feed_forward_norm(hidden))
        if self.blind == "all" and seeing is not None:
            thought = thought * seeing
        return hidden + self.feed_forward_gate.tanh() * thought

    def _look(self, text: Tensor, media: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What each token takes from the media, (B, L, D), and which tokens see any, (B, L, 1)."""
        query = self.query(text).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = self.key(media).unflatten(2, (self.key_value_heads, -1)).transpose(1, 2)
        value = self.value(media).unflatten(2, (self.key_value_heads, -1)).transpose(1, 2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        times = self.heads // self.key_value_heads
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
        mask, seeing = None, None
        if seen is not None:
            seeing = seen.any(2, keepdim=True)
            mask = (seen | ~seeing).unsqueeze(1)  # who sees nothing attends to all, and what it got is dropped
        looked = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        looked = self.output(looked.transpose(1, 2).flatten(2))
        return (looked, None) if seeing is None else (looked * seeing, seeing)

    def _think(self, hidden: Tensor) -> Tensor:
        if self.gate is not None:
            return self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        return self.down(F.gelu(self.up(hidden)))


class GatedCrossAttention(Adapter):
    """Cross-attention blocks before every `every`-th layer.

    Args: every, offset: before which layers, counted from 0. heads, key_value_heads, head_width: of the attention;
    None: the language model's, as many key-value heads as heads, and its width over heads. media_width: of the media;
    None: the language model's width. feed_forward: its hidden width; None: four times the width. activation: `gelu`
    (Flamingo) or `swiglu` (IDEFICS, Llama). norm, norm_eps: `layer` (Flamingo) or `rms`. normalise_queries: queries and
    keys, per head. gate: one number per block, or one per channel. blind: what passes by a token that sees no media:
    `all` of the block (Llama: without pictures, this is the language model), or its `attention` only (Flamingo,
    IDEFICS, whose feed-forward reads all text).

    Raises:
        ValueError: heads that don't divide.
    """

    def __init__(
        self,
        every: int = 4,
        offset: int = 0,
        heads: int | None = None,
        key_value_heads: int | None = None,
        head_width: int | None = None,
        media_width: int | None = None,
        feed_forward: int | None = None,
        activation: Literal["swiglu", "gelu"] = "gelu",
        norm: Literal["rms", "layer"] = "layer",
        norm_eps: float = 1e-5,
        normalise_queries: bool = False,
        gate: Literal["scalar", "vector"] = "scalar",
        blind: Literal["all", "attention"] = "all",
    ) -> None:
        super().__init__()
        if heads and key_value_heads and heads % key_value_heads:
            raise ValueError(f"GatedCrossAttention: {heads} heads are no multiple of {key_value_heads} key_value_heads")
        self.every, self.offset, self.heads, self.key_value_heads = every, offset, heads, key_value_heads
        self.head_width, self.media_width, self.feed_forward = head_width, media_width, feed_forward
        self.options: dict[str, Any] = {
            "activation": activation,
            "norm": norm,
            "norm_eps": norm_eps,
            "normalise_queries": normalise_queries,
            "gate": gate,
            "blind": blind,
        }
        self.blocks = nn.ModuleDict()

    def install(self, model: nn.Module) -> None:
        layers, width = layers_of(model, "GatedCrossAttention"), width_of(model)
        heads = self.heads or getattr(getattr(model, "config", None), "num_attention_heads", None)
        if heads is None or (self.head_width is None and width % heads):
            raise ValueError(
                f"GatedCrossAttention: a {type(model).__name__} of width {width} has {heads} heads; say heads"
            )
        for index in chosen(layers, self.every, self.offset, "GatedCrossAttention"):
            block = CrossAttentionBlock(
                width=width,
                media_width=self.media_width or width,
                heads=heads,
                key_value_heads=self.key_value_heads or heads,
                head_width=self.head_width or width // heads,
                hidden=self.feed_forward or 4 * width,
                **self.options,
            )
            self.blocks[str(index)] = placed(block, layers[index])
            layers[index].register_forward_pre_hook(_Before(self, str(index)), with_kwargs=True)


class _Before:
    """Runs a block on what a layer is about to read."""

    def __init__(self, adapter: GatedCrossAttention, name: str) -> None:
        self.adapter, self.name = adapter, name

    def __call__(self, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        hidden = self.adapter.blocks[self.name](hidden_in(arguments, named), self.adapter.sight)
        return with_hidden(arguments, named, hidden)
