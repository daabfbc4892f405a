"""What heads share that speak a chunk through the language model: how a sentence opens, and how a word is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embodied.contracts import ActionHead, Generators, Prefix, Readout
from policies.heads.pooling import Pool, Pooling


class SpeakingHead(ActionHead):
    """A head whose chunk is a sentence that the language model says behind the observation.

    The sentence opens with a projection of the readout tokens, where a text model has the end of the prompt.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        temperature: 0 takes the likeliest token; above, tokens are drawn by their shares at that temperature.
        pooling: `mean`, `max` or `flatten` (`policies.heads.pooling`).

    Raises:
        ValueError: `temperature` is negative, or a size is not possible.
    """

    reads_prefix = True

    def __init__(
        self, width: int, horizon: int, action_dim: int, readout_tokens: int, temperature: float, pooling: Pooling
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if temperature < 0:
            raise ValueError(f"{type(self).__name__}: temperature must not be negative, got {temperature}")
        self.temperature = temperature
        self.pool = Pool(pooling, width, readout_tokens)
        self.opening = nn.Linear(self.pool.width, width)

    def _opening(self, readout: Readout) -> Tensor:
        """The embedding that a sentence opens with, (B, 1, D)."""
        return self.opening(self.pool(readout)).unsqueeze(1)

    def _prefix(self, readout: Readout) -> Prefix:
        """The observation to speak behind.

        Raises:
            ValueError: the readout comes without it.
        """
        if readout.prefix is None:
            name = type(self).__name__
            raise ValueError(f"{name} decodes on from the observation, but this readout comes without its prefix")
        return readout.prefix


def choose(
    logits: Tensor, temperature: float, generators: Generators | None, ended: Sequence[bool] | None = None
) -> Tensor:
    """One token per row, (B,), from float32 logits (B, V); tokens at -inf are never chosen.

    Each row is chosen by itself, so that its sentence does not depend on who shares its batch.

    Args:
        temperature: 0 takes the likeliest; above, tokens are drawn by their shares at that temperature.
        generators: what row b is drawn from; None draws from torch's default generator.
        ended: rows whose sentence is over get token 0, and nothing is drawn from their generators: what a row draws
            next time must not depend on how long others went on.
    """
    if temperature == 0:
        return logits.argmax(-1)
    shares = (logits / temperature).softmax(-1)
    if generators is None:
        return torch.multinomial(shares, 1).squeeze(1)
    # Drawn on the CPU, row by row, so that a seed gives the same tokens on every device and in every batch.
    done = ended if ended is not None else [False] * len(shares)
    rows = [
        torch.zeros(1, dtype=torch.long) if over else torch.multinomial(row, 1, generator=generator)
        for row, generator, over in zip(shares.cpu(), generators, done, strict=True)
    ]
    return torch.cat(rows).to(logits.device)
