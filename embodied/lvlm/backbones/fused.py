"""Checkpoints whose query, key and value are one matrix, as the Llama they otherwise are.

InternLM2 keeps, for each key-value head, the queries of its group, then the key, then the value, as rows of one `wqkv`;
all its other tensors are Llama's under other names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

INTERNLM2 = {
    "tok_embeddings.": "embed_tokens.",
    "attention.wo.": "self_attn.o_proj.",
    "feed_forward.w1.": "mlp.gate_proj.",
    "feed_forward.w3.": "mlp.up_proj.",
    "feed_forward.w2.": "mlp.down_proj.",
    "attention_norm.": "input_layernorm.",
    "ffn_norm.": "post_attention_layernorm.",
}
"""Parts of InternLM2's names and what Llama calls them; the head is `output` there and `lm_head` here."""

FUSED, SPLIT = "attention.wqkv.", ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")


def split_wqkv(fused: Tensor, heads: int, key_value_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """One matrix (or bias) into query, key and value; shapes ((H + 2 K) d, ...) to (H d, ...), (K d, ...), (K d, ...).

    Raises:
        ValueError: its rows are no whole number of heads.
    """
    group, total = heads // key_value_heads, heads + 2 * key_value_heads
    if fused.shape[0] % total:
        raise ValueError(f"a fused wqkv of {fused.shape[0]} rows is no {heads} + 2 x {key_value_heads} heads")
    by_head = fused.unflatten(0, (key_value_heads, group + 2, -1))
    query, key, value = by_head[:, :group], by_head[:, group : group + 1], by_head[:, group + 1 :]
    return query.flatten(0, 2), key.flatten(0, 2), value.flatten(0, 2)


def join_wqkv(query: Tensor, key: Tensor, value: Tensor, heads: int, key_value_heads: int) -> Tensor:
    """The reverse of `split_wqkv`."""
    group = heads // key_value_heads
    parts = [query.unflatten(0, (key_value_heads, group, -1))]
    parts += [part.unflatten(0, (key_value_heads, 1, -1)) for part in (key, value)]
    return torch.cat(parts, dim=1).flatten(0, 2)


def llama_from_internlm2(weights: Mapping[str, Tensor], heads: int, key_value_heads: int) -> dict[str, Tensor]:
    """An InternLM2 language model's tensors under Llama's names, `wqkv` split."""
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        new = "lm_head." + name.removeprefix("output.") if name.startswith("output.") else name
        for old, llama in INTERNLM2.items():
            new = new.replace(old, llama)
        if FUSED in new:
            parts = split_wqkv(tensor, heads, key_value_heads)
            result |= {new.replace(FUSED, part): split for part, split in zip(SPLIT, parts, strict=True)}
        else:
            result[new] = tensor
    return result


def internlm2_from_llama(weights: Mapping[str, Tensor], heads: int, key_value_heads: int) -> dict[str, Tensor]:
    """The reverse of `llama_from_internlm2`, to the bit."""
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if SPLIT[0] in name:
            key, value = (weights[name.replace(SPLIT[0], part)] for part in SPLIT[1:])
            fused = join_wqkv(tensor, key, value, heads, key_value_heads)
            result[name.replace(SPLIT[0], FUSED)] = fused
        elif not any(part in name for part in SPLIT):
            new = "output." + name.removeprefix("lm_head.") if name.startswith("lm_head.") else name
            for old, llama in INTERNLM2.items():
                new = new.replace(llama, old)
            result[new] = tensor
    return result
