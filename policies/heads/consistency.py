"""Consistency: one to three denoising steps, learned from demonstrations alone.

A consistency model maps every point of a path from noise to actions to the path's end (Song et al. 2023, arXiv
2303.01469; for robots: Consistency Policy, Prasad et al. 2024, arXiv 2405.07503). Trained as Song & Dhariwal 2023
(arXiv 2310.14189, "improved techniques") do, without a teacher: EDM's noise levels (Karras et al. 2022), neighbouring
levels compared by a pseudo-Huber distance, levels drawn from a discretised lognormal, ever finer levels as training
goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from embodied.contracts import Generators, Readout, masked_mean
from policies.heads.denoisers.base import Denoiser
from policies.heads.denoising import DenoisingHead

COUNTED, RHO = 100, 7.0
HUBER = 0.00054
"""The pseudo-Huber distance's constant for each square root of a dimension."""
DRAWN_MEAN, DRAWN_SPREAD = -1.1, 2.0
"""Of the logarithm of the noise levels trained on."""


class ConsistencyHead(DenoisingHead):
    """Consistency model over chunks.

    Args:
        width, horizon, action_dim, readout_tokens, denoiser, draws, layers, state_dim: see `DenoisingHead`.
        sample_steps: denoising steps; 1 to 3 are usual.
        sigma_min, sigma_max: spread of the least and the most noise.
        sigma_data: spread of normalised actions.
        levels_first, levels_last: noise levels at the start and the end of training (Song & Dhariwal: 10 and 1280).
        double_every: training steps (passes through `loss` with gradients) after which there are twice as many levels.
        clip: largest magnitude of a normalised action; demonstrations and samples are clipped to it.

    Raises:
        ValueError: a number is out of its range; whatever the denoiser objects to.
    """

    passes: Tensor

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        denoiser: Denoiser | None = None,
        sample_steps: int = 2,
        sigma_min: float = 0.02,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
        levels_first: int = 10,
        levels_last: int = 160,
        double_every: int = 1000,
        clip: float | None = 1.0,
        draws: int = 1,
        layers: Mapping[str, Any] | None = None,
        state_dim: int = 0,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, denoiser, clip, draws, layers, state_dim)
        if not 0 < sigma_min < sigma_max or sigma_data <= 0:
            given = f"sigma_min={sigma_min}, sigma_max={sigma_max}, sigma_data={sigma_data}"
            raise ValueError(f"ConsistencyHead: noise must grow from sigma_min > 0 to sigma_max, got {given}")
        if not 2 <= levels_first <= levels_last or double_every < 1:
            given = f"levels_first={levels_first}, levels_last={levels_last}, double_every={double_every}"
            raise ValueError(f"ConsistencyHead: levels must grow from at least 2, got {given}")
        if sample_steps < 1:
            raise ValueError(f"ConsistencyHead: sample_steps must be at least 1, got {sample_steps}")
        self.sample_steps, self.sigma_data = sample_steps, sigma_data
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.levels_first, self.levels_last, self.double_every = levels_first, levels_last, double_every
        # Saved with the weights, so that a resumed training goes on with as many levels.
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    @property
    def level_count(self) -> int:
        """How many noise levels training distinguishes by now."""
        return min(self.levels_first * 2 ** (int(self.passes) // self.double_every), self.levels_last)

    def sigmas(self, count: int, like: Tensor) -> Tensor:
        """`count` + 1 noise levels from the least to the most, spaced as in EDM, equation 5."""
        place = torch.linspace(0, 1, count + 1, device=like.device)
        low, high = self.sigma_min ** (1 / RHO), self.sigma_max ** (1 / RHO)
        return (low + place * (high - low)) ** RHO

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        sigmas = self.sigmas(self.level_count, actions)
        # A level's chance is the lognormal's mass between it and the next.
        edges = torch.erf((sigmas.log() - DRAWN_MEAN) / (math.sqrt(2) * DRAWN_SPREAD))
        share = ((edges[1:] - edges[:-1]) / (edges[-1] - edges[0])).cumsum(0)
        drawn = self.uniform(actions, generators, self.draws)
        index = torch.searchsorted(share, drawn, right=True).clamp(max=len(share) - 1)
        less, more = sigmas[index], sigmas[index + 1]
        noise = self.noise(len(actions), actions, generators, self.draws)
        clean, mask = self.prepare(actions, mask)
        condition = self.denoiser.condition(readout)
        # The teacher is the student itself with less noise, its dropout drawn alike.
        cuda = [noise.device] if noise.is_cuda else []
        drawn_from = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in cuda]
        ahead = self.end_of_path(clean + more[:, None, None] * noise, more, condition, mask)
        with torch.no_grad(), torch.random.fork_rng(devices=cuda):
            torch.set_rng_state(drawn_from[0])
            for device, state in zip(cuda, drawn_from[1], strict=True):
                torch.cuda.set_rng_state(state, device)
            target = self.end_of_path(clean + less[:, None, None] * noise, less, condition, mask)
        # One distance per chunk, over its real steps; shared by their entries, so that each entry counts alike.
        kept = mask.unsqueeze(-1)
        square = ((ahead - target) ** 2).masked_fill(~kept, 0.0).sum((1, 2))
        mean = square / (kept.sum((1, 2)) * self.action_dim).clamp(min=1)
        distance = ((mean + HUBER**2).sqrt() - HUBER) / (more - less)
        loss = masked_mean(distance[:, None, None].expand_as(ahead), mask)
        if self.training and torch.is_grad_enabled():
            self.passes += 1
        return {"loss": loss, "consistency": loss.detach()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        condition = self.denoiser.condition(readout)
        rows = len(readout.tokens)
        sigmas = self.sigmas(self.sample_steps, readout.tokens).flip(0)[:-1]
        chunk = torch.zeros(rows, self.horizon, self.action_dim, device=readout.tokens.device)
        for sigma in sigmas:
            spread = sigma if sigma == sigmas[0] else (sigma**2 - self.sigma_min**2).sqrt()
            noisy = chunk + spread * self.noise(rows, chunk, generators)
            chunk = self.limit(self.end_of_path(noisy, sigma.expand(rows), condition))
        return chunk

    def end_of_path(self, noisy: Tensor, sigma: Tensor, condition: Any, mask: Tensor | None = None) -> Tensor:
        """Clean chunks (K x B, H, A) from chunks with noise of spread `sigma` (K x B,); exact at `sigma_min`."""
        data, s = self.sigma_data, sigma[:, None, None]
        keep = data**2 / ((s - self.sigma_min) ** 2 + data**2)
        change = data * (s - self.sigma_min) / (s**2 + data**2).sqrt()
        # EDM tells the network log(sigma) / 4; this is the same on the scale its embeddings are made for.
        level = (sigma / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)
        level = level if self.denoiser.fractions else level * COUNTED
        return keep * noisy + change * self.denoiser(noisy / (s**2 + data**2).sqrt(), level, condition, mask)
