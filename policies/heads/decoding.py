"""Choosing the next token of each row by itself, so that a row's sentence does not depend on who shares its batch."""

from __future__ import annotations

import torch
from torch import Tensor

from embodied.contracts import Generators


def choose(logits: Tensor, temperature: float, generators: Generators | None) -> Tensor:
    """One token per row, (B,), from float32 logits (B, V); tokens at -inf are never chosen.

    Args:
        temperature: 0 takes the likeliest; above, tokens are drawn by their shares at that temperature.
        generators: what row b is drawn from; None draws from torch's default generator.
    """
    if temperature == 0:
        return logits.argmax(-1)
    shares = (logits / temperature).softmax(-1)
    if generators is None:
        return torch.multinomial(shares, 1).squeeze(1)
    # Drawn on the CPU, row by row, so that a seed gives the same tokens on every device and in every batch.
    rows = [torch.multinomial(row, 1, generator=g) for row, g in zip(shares.cpu(), generators, strict=True)]
    return torch.cat(rows).to(logits.device)
