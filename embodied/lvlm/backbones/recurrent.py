"""Language models that keep a state instead of keys and values: Mamba.

A state has read all that came before, in order: there is no mask that could take a token out again, and no position
other than the order. What can be done is done: padding anywhere in a row is read first, where a state that is still
zero ignores it, and what can't be - seeing ahead, packed samples - is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def present_tokens(mask: Tensor, positions: Tensor) -> Tensor:
    """(B, N), bool: which tokens of a pass are real, told from its mask (B, N, P + N) and positions (B, N).

    Padding is seen by nobody but itself. So is the last token of a row, which is padding if its position repeats the
    one before.

    Raises:
        ValueError: the mask is not causal over the tokens that are real.
    """
    new = mask.shape[1]
    among = mask[:, :, mask.shape[2] - new :]
    itself = torch.eye(new, dtype=torch.bool, device=mask.device)
    present = (among & ~itself).any(1)
    if new == 1:
        present = torch.ones_like(present)
    else:
        present[:, -1] |= positions[:, -1] > positions[:, -2]
    wanted = torch.ones_like(itself).tril() & present.unsqueeze(1)
    past = mask[:, :, : mask.shape[2] - new]
    rows = present.unsqueeze(2)
    if ((among ^ wanted) & rows & ~itself).any() or ((past != past[:, :1]) & rows).any():
        raise ValueError(
            "a recurrent language model (mamba) reads in order: its attention must be causal and its rows unpacked"
        )
    return present


def read(model: Any, embeddings: Tensor, present: Tensor, cache: DynamicCache | None) -> Tensor:
    """Hidden states (B, N, D) of a pass over embeddings (B, N, D), continuing and updating a cache.

    Padding behind a state that exists can't be ignored, so rows of different lengths are then read one by one.
    """
    if cache is None or not cache.has_previous_state():
        order = present.int().argsort(dim=1, stable=True)  # padding first
        index = order.unsqueeze(2).expand_as(embeddings)
        hidden = model(
            inputs_embeds=embeddings.gather(1, index),
            attention_mask=None if present.all() else present.gather(1, order).to(embeddings.dtype),
            cache_params=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return torch.zeros_like(hidden).scatter(1, index, hidden)
    if present.all():
        return torch.cat([_step(model, token, cache) for token in embeddings.split(1, dim=1)], dim=1)
    hidden = torch.zeros_like(embeddings)
    states = state(cache)
    for row in range(len(embeddings)):
        own = restored(model.config, [(conv[row : row + 1], ssm[row : row + 1]) for conv, ssm in states])
        where = present[row].nonzero().squeeze(1)
        read_ = [_step(model, embeddings[row : row + 1, at : at + 1], own) for at in where.tolist()]
        if read_:
            hidden = hidden.index_put((torch.tensor([row], device=hidden.device), where), torch.cat(read_, dim=1)[0])
        for (conv, ssm), (new_conv, new_ssm) in zip(states, state(own), strict=True):
            conv[row], ssm[row] = new_conv[0], new_ssm[0]
    return hidden


def state(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """What a cache remembers, per layer: the convolution's last inputs and the state."""
    layers: Any = cache.layers
    return [(layer.conv_states[0], layer.recurrent_states[0]) for layer in layers]


def restored(config: Any, states: list[tuple[Tensor, Tensor]] | None = None) -> DynamicCache:
    """A cache that remembers `states`, which it copies, or nothing."""
    cache = DynamicCache(config=config)
    layers: Any = cache.layers
    for layer, (conv, ssm) in zip(layers, states or [], strict=False):
        layer.update_conv_state(conv)
        layer.update_recurrent_state(ssm)
    return cache


def _step(model: Any, token: Tensor, cache: DynamicCache) -> Tensor:
    """Hidden state of one further token (B, 1, D)."""
    return model(inputs_embeds=token, cache_params=cache, use_cache=True).last_hidden_state
