"""Where the parts of a transformers model are: its layers, their attention, feed-forward and norms.

Families name them differently; an adapter asks here, and a family without the part is refused in one line.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = ("layers", "decoder.layers", "blocks", "encoder.layers", "encoder.layer", "layer", "encoder.block")
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
FEED_FORWARD = ("mlp", "feed_forward", "block_sparse_moe")
BEFORE_ATTENTION = ("input_layernorm", "self_attn_layer_norm", "norm_1", "layer_norm1")
OUTPUT = ("o_proj", "out_proj", "dense")


def base_of(model: nn.Module) -> Any:
    """The model without its head; of an encoder-decoder the encoder, which is what reads."""
    base: Any = getattr(model, "base_model", model)
    return base.get_encoder() if getattr(getattr(base, "config", None), "is_encoder_decoder", False) else base


def layers_of(model: nn.Module, who: str) -> list[Any]:
    """The layers, in order.

    Raises:
        ValueError: the model has none where one looks.
    """
    base = base_of(model)
    for path in (*LAYERS, "block"):
        found: Any = base
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.ModuleList) and len(found):
            return list(found)
    raise ValueError(f"{who}: a {type(model).__name__} has no layers under {', '.join(LAYERS)}")


def chosen(layers: list[Any], every: int, offset: int, who: str) -> list[int]:
    """Indices of every `every`-th layer, the first being `offset`.

    Raises:
        ValueError: there is none.
    """
    found = list(range(len(layers)))[offset::every] if every > 0 else []
    if not found:
        raise ValueError(f"{who}: every {every} layers from {offset} on is none of {len(layers)}")
    return found


def part_of(layer: nn.Module, names: tuple[str, ...], who: str, what: str) -> Any:
    """The layer's part under one of several names, dotted ones too.

    Raises:
        ValueError: it has none of them.
    """
    for path in names:
        found: Any = layer
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.Module):
            return found
    raise ValueError(f"{who}: a {type(layer).__name__} has no {what} ({', '.join(names)})")


def width_of(model: nn.Module) -> int:
    """D of the hidden states between layers."""
    return int(base_of(model).config.hidden_size)


def placed(module: nn.Module, model: nn.Module) -> nn.Module:
    """The module on the device and in the floating type of a model."""
    like = next(model.parameters())
    return module.to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class Attention:
    """The self-attention of one layer, with projections of its own for query, key and value.

    Attributes:
        module: the attention.
        query, key, value, output: its linear maps.
        heads, key_value_heads, head_width: its shape.
        rotates: whether queries and keys are rotated by their positions.
    """

    module: Any
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    heads: int
    key_value_heads: int
    head_width: int
    rotates: bool

    def rotated(self, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, heads, N, head width), turned by the angles of its positions as the family turns them."""
        turn = vars(sys.modules[type(self.module).__module__])["apply_rotary_pos_emb"]
        size = cos.shape[-1]  # some families turn a part of each head
        turned, _ = turn(states[..., :size], states[..., :size], cos, sin)
        return torch.cat([turned, states[..., size:]], dim=-1)

    def shaped(self, states: Tensor, heads: int) -> Tensor:
        """(B, N, heads x head width) to (B, heads, N, head width)."""
        return states.unflatten(2, (heads, self.head_width)).transpose(1, 2)

    def spread(self, states: Tensor) -> Tensor:
        """(B, key-value heads, N, head width) to one per query head."""
        return states.repeat_interleave(self.heads // self.key_value_heads, dim=1)


def attention_of(model: nn.Module, layer: nn.Module, who: str) -> Attention:
    """The layer's attention.

    Raises:
        ValueError: the family has none, fuses its projections, or rotates or normalises in a way of its own.
    """
    module = part_of(layer, ATTENTION, who, "self-attention")
    parts: list[Any] = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj")]
    output: Any = next((getattr(module, name) for name in OUTPUT if hasattr(module, name)), None)
    if not all(isinstance(part, nn.Linear) for part in (*parts, output)):
        raise ValueError(f"{who}: a {type(module).__name__} has no q_proj, k_proj and v_proj of its own")
    if getattr(module, "q_layernorm", None) is not None or getattr(module, "qk_layernorm", False):
        raise ValueError(f"{who}: a {type(module).__name__} normalises its queries, which is not followed here")
    rotates = getattr(base_of(model), "rotary_emb", None) is not None
    if rotates and not hasattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb"):
        raise ValueError(f"{who}: a {type(module).__name__} rotates in a way of its own, which is not followed here")
    query, key, value = parts
    width = module.head_dim
    heads, groups = query.out_features // width, key.out_features // width
    return Attention(module, query, key, value, output, heads, groups, width, rotates)


def linears(model: nn.Module, match: str, who: str) -> dict[str, nn.Linear]:
    """The linear maps whose name contains a match of a regular expression.

    Raises:
        ValueError: none does, with the names there are; or it is no regular expression.
    """
    every = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    try:
        found = {name: module for name, module in every.items() if re.search(match, name)}
    except re.error as error:
        raise ValueError(f"{who}: '{match}' is not a regular expression: {error}") from None
    if not found:
        last = sorted({name.rpartition(".")[2] for name in every})
        raise ValueError(f"{who}: '{match}' matches no linear layer; there is {', '.join(last)}")
    return found


def key_of(name: str) -> str:
    """A module's dotted name as one that a ModuleDict takes."""
    return name.replace(".", "|")


def hidden_in(arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """The hidden states among what a layer or attention is called with."""
    return named["hidden_states"] if "hidden_states" in named else arguments[0]


def with_hidden(
    arguments: tuple[Any, ...], named: dict[str, Any], hidden: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with other hidden states."""
    if "hidden_states" in named:
        return arguments, named | {"hidden_states": hidden}
    return (hidden, *arguments[1:]), named


def tokens_like(tokens: Tensor, states: Tensor, who: str) -> Tensor:
    """A mask (B, L) in the leading shape of states (B, L, D) or (B x L, D).

    Raises:
        ValueError: they are not as many: the pass read other tokens than was said.
    """
    if tokens.numel() != states.shape[:-1].numel():
        raise ValueError(
            f"{who}: told of {tuple(tokens.shape)} tokens but read {tuple(states.shape[:-1])}; "
            "see() tells what the next pass looks at, token by token"
        )
    return tokens.reshape(states.shape[:-1])
