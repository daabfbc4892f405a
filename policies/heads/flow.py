"""Flow matching: a chunk flows from noise to actions along a velocity field conditioned on the observation.

Lipman et al. 2023 (arXiv 2210.02747), in the form of pi-0 (Black et al. 2024, arXiv 2410.24164;
`openpi/models/pi0.py`): at time t a noisy chunk is t x noise + (1 - t) x actions, a network learns its velocity,
noise - actions, and sampling follows it from t = 1 to 0 in a few Euler steps. With the `expert` denoiser
(`denoiser=expert`) the network is pi-0's action expert, which attends the language model layer by layer; any other
denoiser looks at the readout only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from embodied.contracts import Generators, Readout, masked_mean
from policies.heads.denoisers.base import Denoiser
from policies.heads.denoising import DenoisingHead

COUNTED = 100
"""Noise levels that denoisers with counted levels are shown between time 0 and 1."""


class FlowHead(DenoisingHead):
    """Flow matching over chunks.

    Args:
        width, horizon, action_dim, readout_tokens, denoiser, layers, state_dim: see `DenoisingHead`.
        sample_steps: Euler steps from noise to actions.
        time_power: training times follow Beta(time_power, 1), which prefers noisy chunks (pi-0: 1.5; 1: evenly).
        time_scale: largest training time is just this far from the smallest, 1 - time_scale (pi-0: 0.999).
        clip: largest magnitude of a normalised action, which demonstrations and samples are clipped to; None: no limit.
        draws: times drawn per chunk and training step, sharing one pass of the language model.

    Raises:
        ValueError: a number is out of its range; whatever the denoiser objects to.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        denoiser: Denoiser | None = None,
        sample_steps: int = 10,
        time_power: float = 1.5,
        time_scale: float = 0.999,
        clip: float | None = None,
        draws: int = 1,
        layers: Mapping[str, Any] | None = None,
        state_dim: int = 0,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, denoiser, clip, draws, layers, state_dim)
        if sample_steps < 1:
            raise ValueError(f"FlowHead: sample_steps must be at least 1, got {sample_steps}")
        if time_power <= 0 or not 0 < time_scale <= 1:
            given = f"time_power={time_power}, time_scale={time_scale}"
            raise ValueError(f"FlowHead: time_power must be positive and time_scale in (0, 1], got {given}")
        self.sample_steps, self.time_power, self.time_scale = sample_steps, time_power, time_scale

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        # The cumulative distribution of Beta(p, 1) is t^p.
        drawn = self.uniform(actions, generators, self.draws) ** (1 / self.time_power)
        times = drawn * self.time_scale + (1 - self.time_scale)
        noise = self.noise(len(actions), actions, generators, self.draws)
        clean, mask = self.prepare(actions, mask)
        t = times[:, None, None]
        velocity = self.velocity(t * noise + (1 - t) * clean, times, self.denoiser.condition(readout), mask)
        loss = masked_mean(F.mse_loss(velocity, noise - clean, reduction="none"), mask)
        return {"loss": loss, "flow": loss.detach()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        condition = self.denoiser.condition(readout)
        return self.integrate(self.noise(len(readout.tokens), readout.tokens, generators), condition)

    def velocity(self, noisy: Tensor, times: Tensor, condition: Any, mask: Tensor | None = None) -> Tensor:
        """The velocity field (K x B, H, A) of noisy chunks (K x B, H, A) at times (K x B,) from 0 to 1."""
        return self.denoiser(noisy, times if self.denoiser.fractions else times * COUNTED, condition, mask)

    def integrate(self, noise: Tensor, condition: Any) -> Tensor:
        """Chunks (B, H, A) from noise (B, H, A)."""
        chunk = noise
        for step in range(self.sample_steps):
            times = torch.full((len(chunk),), 1 - step / self.sample_steps, device=chunk.device)
            chunk = chunk - self.velocity(chunk, times, condition) / self.sample_steps
        return self.limit(chunk)
