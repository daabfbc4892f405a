"""What heads that make a chunk out of noise have in common: a denoiser, and demonstrations prepared for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from embodied.contracts import ActionHead, Generators, draw_normal, draw_uniform
from policies.heads.denoisers.base import Denoiser, Sizes
from policies.heads.denoisers.mlp import MLPDenoiser


class DenoisingHead(ActionHead):
    """A head around a denoiser.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        denoiser: the network (`policies.heads.denoisers`); None is Octo's MLP.
        clip: largest magnitude of a normalised action, which demonstrations are clipped to; None clips nothing.
        draws: noise levels drawn per chunk and training step. All share one pass of the language model, so that more of
            them cost little and give the gradient less variance.
        layers, state_dim: see `policies.heads.denoisers.base.Sizes`.

    Raises:
        ValueError: `clip` or `draws` is not positive; whatever the denoiser objects to.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        denoiser: Denoiser | None = None,
        clip: float | None = 1.0,
        draws: int = 1,
        layers: Mapping[str, Any] | None = None,
        state_dim: int = 0,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if (clip is not None and clip <= 0) or draws < 1:
            raise ValueError(f"{type(self).__name__}: clip and draws must be positive, got clip={clip}, draws={draws}")
        if denoiser is not None and not isinstance(denoiser, Denoiser):
            raise ValueError(f"{type(self).__name__}: denoiser is a {type(denoiser).__name__}, which is no denoiser")
        self.clip, self.draws = clip, draws
        self.denoiser = denoiser if denoiser is not None else MLPDenoiser()
        self.reads_prefix = self.denoiser.reads_prefix
        self.denoiser.create(Sizes(width, horizon, action_dim, readout_tokens, layers, state_dim))

    def prepare(self, actions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Clean chunks (K x B, H, A) and their mask, K = `draws` copies of each row."""
        # The denoiser sees the whole noisy chunk, so what padding holds is hidden from it here, not only in the mean.
        clean = self.limit(actions.masked_fill(~mask.unsqueeze(-1), 0.0))
        return clean.repeat(self.draws, 1, 1), mask.repeat(self.draws, 1)

    def limit(self, chunk: Tensor) -> Tensor:
        """`chunk` within `clip`."""
        return chunk if self.clip is None else chunk.clamp(-self.clip, self.clip)

    def noise(self, rows: int, like: Tensor, generators: Generators | None, draws: int = 1) -> Tensor:
        """Standard normal noise (draws x rows, H, A)."""
        shape = (rows, self.horizon, self.action_dim)
        return torch.cat([draw_normal(shape, like, generators) for _ in range(draws)])

    def uniform(self, like: Tensor, generators: Generators | None, draws: int = 1) -> Tensor:
        """Uniform numbers in [0, 1) for B rows of `like`, (draws x B,), row b from `generators[b]`."""
        return torch.cat([draw_uniform((len(like), 1), like, generators) for _ in range(draws)]).squeeze(1)
