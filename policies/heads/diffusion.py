"""Denoise a chunk of continuous actions, conditioned on the readout.

Octo's diffusion head (Ghosh et al. 2024, arXiv 2405.12213; `octo/model/components/{action_heads,diffusion}.py`): the
language model runs once per observation, then a small residual MLP removes noise from the flattened chunk step by
step. It keeps the modes of demonstrations that disagree. Schedules and sampling steps are diffusers' (DDPM: Ho et al.
2020, DDIM: Song et al. 2021), with the squared cosine schedule of Nichol & Dhariwal 2021.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import ActionHead, Generators, Readout, draw_integers, draw_normal, masked_mean
from policies.heads.pooling import Pool, Pooling

Sampler = Literal["ddpm", "ddim"]
Prediction = Literal["epsilon", "sample"]


class DiffusionHead(ActionHead):
    """DDPM over chunks with a residual-MLP denoiser.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        hidden: width of the denoiser.
        blocks: its residual blocks.
        time_width: size of the time embedding (even).
        dropout: share of the denoiser's units dropped in training.
        pooling: `mean` or `flatten` (`policies.heads.pooling`).
        train_steps: how many noise levels there are.
        sample_steps: how many of them sampling visits, evenly spaced from the noisiest; divides `train_steps`.
        sampler: `ddim` follows the deterministic path, good with few steps; `ddpm` adds fresh noise each step.
        prediction: what the denoiser predicts: the noise (`epsilon`) or the clean chunk (`sample`).
        clip: largest magnitude of a normalised action; demonstrations and the estimates on the way are clipped to it.
        draws: noise levels drawn per chunk and training step. All share one pass of the language model, so that more of
            them cost little and give the gradient less variance.

    Raises:
        ValueError: an unknown option; `sample_steps` does not divide `train_steps`; another size is not possible.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        hidden: int = 256,
        blocks: int = 3,
        time_width: int = 32,
        dropout: float = 0.0,
        pooling: Pooling = "flatten",
        train_steps: int = 100,
        sample_steps: int = 10,
        sampler: Sampler = "ddim",
        prediction: Prediction = "epsilon",
        clip: float = 1.0,
        draws: int = 1,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if sampler not in get_args(Sampler):
            raise ValueError(f"DiffusionHead: sampler is one of {', '.join(get_args(Sampler))}, got {sampler!r}")
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"DiffusionHead: prediction is one of {', '.join(get_args(Prediction))}, got {prediction!r}"
            )
        if sample_steps < 1 or train_steps % sample_steps:
            raise ValueError(f"DiffusionHead: sample_steps must divide train_steps ({train_steps}), got {sample_steps}")
        if clip <= 0 or draws < 1:
            raise ValueError(f"DiffusionHead: clip and draws must be positive, got clip={clip}, draws={draws}")
        self.clip, self.draws, self.train_steps = clip, draws, train_steps
        self.pool = Pool(pooling, width, readout_tokens)
        size = horizon * action_dim
        self.denoiser = Denoiser(size, self.pool.width, hidden, blocks, time_width, dropout)
        # "trailing" starts at the noisiest level, which the pure noise we start from belongs to; "leading", the default
        # of diffusers, starts below it (Lin et al. 2023, arXiv 2305.08891, section 3.3).
        schedule: Any = DDPMScheduler if sampler == "ddpm" else DDIMScheduler
        self.scheduler = schedule(
            num_train_timesteps=train_steps,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=prediction,
            clip_sample=True,
            clip_sample_range=clip,
            timestep_spacing="trailing",
        )
        self.scheduler.set_timesteps(sample_steps)
        self.levels: list[int] = self.scheduler.timesteps.tolist()
        self.predicts_noise = prediction == "epsilon"

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        condition = self.pool(readout).repeat(self.draws, 1)
        # The denoiser sees the whole noisy chunk, so what padding holds is hidden from it here, not only in the mean.
        clean = actions.masked_fill(~mask.unsqueeze(-1), 0.0).clamp(-self.clip, self.clip).flatten(1)
        levels = torch.cat([draw_integers(self.train_steps, clean, generators) for _ in range(self.draws)])
        noise = torch.cat([draw_normal(clean.shape, clean, generators) for _ in range(self.draws)])
        clean = clean.repeat(self.draws, 1)
        predicted = self.denoiser(self.scheduler.add_noise(clean, noise, levels), levels, condition)
        error = F.mse_loss(predicted, noise if self.predicts_noise else clean, reduction="none")
        error = error.unflatten(-1, (self.horizon, self.action_dim))
        loss = masked_mean(error, mask.repeat(self.draws, 1))
        return {"loss": loss, "denoising": loss.detach()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        condition = self.pool(readout)
        rows = len(condition)
        noisy = draw_normal((rows, self.horizon * self.action_dim), condition, generators)
        for level in self.levels:
            levels = torch.full((rows,), level, device=noisy.device)
            predicted = self.denoiser(noisy, levels, condition)
            # DDIM draws nothing (eta = 0); DDPM draws row b from generators[b].
            source = None if generators is None else list(generators)
            noisy = self.scheduler.step(predicted, level, noisy, generator=source, return_dict=False)[0]
        return noisy.unflatten(-1, (self.horizon, self.action_dim))


class Denoiser(nn.Module):
    """Octo's score network: learned Fourier features of the noise level, then a residual MLP with layer norm.

    Args:
        size: numbers in one flattened chunk.
        condition: size of the vector it is conditioned on.
        hidden, blocks, time_width, dropout: see `DiffusionHead`.
    """

    def __init__(self, size: int, condition: int, hidden: int, blocks: int, time_width: int, dropout: float) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(time_width // 2) * 0.2)
        self.time = nn.Sequential(
            nn.Linear(time_width // 2 * 2, 2 * time_width), nn.SiLU(), nn.Linear(2 * time_width, time_width)
        )
        self.enter = nn.Linear(time_width + condition + size, hidden)
        self.blocks = nn.ModuleList(Block(hidden, dropout) for _ in range(blocks))
        self.leave = nn.Linear(hidden, size)
        for layer in (*self.time, self.enter, self.leave):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, noisy: Tensor, levels: Tensor, condition: Tensor) -> Tensor:
        """Noisy chunks (B, H x A) at noise levels (B,) to the prediction (B, H x A), float32 also under autocast."""
        angle = 2 * math.pi * levels.unsqueeze(-1) * self.frequencies
        time = self.time(torch.cat([angle.cos(), angle.sin()], dim=-1))
        x = self.enter(torch.cat([time, condition.to(time.dtype), noisy.to(time.dtype)], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.leave(F.silu(x)).float()


class Block(nn.Module):
    """Layer norm, a fourfold wider hidden layer, and around it."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Dropout(dropout),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 4 * hidden),
            nn.SiLU(),
            nn.Linear(4 * hidden, hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)
