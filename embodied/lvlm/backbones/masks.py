"""What becomes of one explicit mask in families that see less, or see by distance.

A mask (B, N, P + N), bool, says which of P past and N present tokens each token sees; the last N columns are the tokens
of this pass. How far apart two tokens are follows from it: padding and other samples of a packed row are seen by
nobody, so distance counts the tokens that are seen. This makes windows and distance biases right whatever the padding
side, where transformers counts columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def causal(present: Tensor, earlier: Tensor | None = None) -> Tensor:
    """(B, N, P + N), bool: causal among `present` (B, N), behind all of `earlier` (B, P); padding sees itself.

    That padding sees itself keeps its softmax defined.
    """
    new = present.shape[1]
    among = torch.ones(new, new, dtype=torch.bool, device=present.device).tril() & present.unsqueeze(1)
    among = among | torch.eye(new, dtype=torch.bool, device=present.device)
    return among if earlier is None else torch.cat([earlier.unsqueeze(1).expand(-1, new, -1), among], dim=2)


def padded_behind(present: Tensor) -> bool:
    """Whether padding, if any, comes behind all that is real in each row of (B, N): then causal tokens never see it."""
    return bool((present[:, 1:] <= present[:, :-1]).all())


def distances(mask: Tensor) -> Tensor:
    """(B, N, P + N), int: how many seen tokens lie between each token and another, itself included; negative: ahead."""
    new = mask.shape[1]
    ranks = mask.to(torch.int32).cumsum(-1)
    own = torch.arange(mask.shape[2] - new, mask.shape[2], device=mask.device)
    return ranks.gather(2, own.view(1, -1, 1).expand(len(mask), -1, 1)) - ranks


def windowed(mask: Tensor, window: int) -> Tensor:
    """The mask without what lies `window` or more seen tokens back (Mistral, Gemma 2); what lies ahead stays."""
    return mask if mask.shape[2] <= window else mask & (distances(mask) < window)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, the smallest number elsewhere: what attention that is no fused kernel adds to its scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def slopes(heads: int, largest: float, device: torch.device) -> Tensor:
    """(heads,): how much each head of MPT dislikes distance (ALiBi, Press et al. 2022, arXiv 2108.12409)."""
    power = 2 ** math.ceil(math.log2(heads))
    steps = torch.arange(1, power + 1, dtype=torch.float32, device=device) * (largest / power)
    values = torch.pow(2.0, -steps)
    return values if power == heads else torch.cat([values[1::2], values[::2]])[:heads]
