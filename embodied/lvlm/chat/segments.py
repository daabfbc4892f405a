"""Attention of packed rows, conversation by conversation: the work of the block mask without its zeros.

A block mask of L x L costs what a full one does. Cut into its conversations, of lengths n, it costs the sum of n x n.
Registered with transformers as an attention implementation, so any backbone that takes `sdpa` takes it, and what it
computes is the same: where a layer does more than plain causal attention, or no packed batch is being read, it hands
over to `sdpa` and the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from embodied.lvlm.chat.rows import Span

NAME = "embodied_segments"

_spans: ContextVar[Sequence[Span] | None] = ContextVar("spans", default=None)


def use_segments(model: nn.Module) -> None:
    """Let a transformers model attend segment by segment inside `segmented`.

    Raises:
        ValueError: the family has no `sdpa` attention to take its place.
    """
    attending: Any = getattr(model, "base_model", model)  # a head that we gave it has no attention to choose
    if not getattr(attending, "_supports_sdpa", False):
        raise ValueError(f"{type(model).__name__} has no sdpa attention: its packed rows need the mask")
    attending.set_attn_implementation(NAME)


@contextmanager
def segmented(spans: Sequence[Span] | None) -> Iterator[None]:
    """While a packed batch is read, whose conversations lie there (`embodied.lvlm.chat.rows`); None: by the mask."""
    token = _spans.set(spans)
    try:
        yield
    finally:
        _spans.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """The interface of transformers: query (B, heads, L, E), key and value (B, kv heads, L, E) to (B, L, heads, E)."""
    spans = _spans.get()
    window = more.get("sliding_window")
    plain = more.get("softcap") is None and more.get("position_bias") is None and query.shape[2] == key.shape[2]
    if spans is None or not plain or (window is not None and window < max(end - start for _, start, end in spans)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    rows: list[list[Tensor]] = [[] for _ in range(len(query))]
    filled = [0] * len(query)
    for row, start, end in spans:
        if start > filled[row]:
            rows[row].append(value[row, :, filled[row] : start])  # padding sees itself alone
        q, k, v = (x[row : row + 1, :, start:end] for x in (query, key, value))
        rows[row].append(F.scaled_dot_product_attention(q, k, v, None, dropout, is_causal=True, scale=scaling)[0])
        filled[row] = end
    for row, end in enumerate(filled):
        if end < query.shape[2]:
            rows[row].append(value[row, :, end:])
    return torch.stack([torch.cat(parts, dim=1) for parts in rows]).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
