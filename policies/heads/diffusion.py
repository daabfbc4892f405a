"""Denoise a chunk of continuous actions step by step, conditioned on the readout.

The language model runs once per observation, then a denoiser (`policies.heads.denoisers`) takes noise out of the chunk.
It keeps the modes of demonstrations that disagree. With the `mlp` denoiser this is Octo's head (Ghosh et al. 2024,
arXiv 2405.12213), with `unet` or `transformer` Diffusion Policy (Chi et al. 2023, arXiv 2303.04137). Schedules and
sampling steps are diffusers' (DDPM: Ho et al. 2020, DDIM: Song et al. 2021, DPM-Solver++: Lu et al. 2022), with the
squared cosine schedule of Nichol & Dhariwal 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor
from torch.nn import functional as F

from embodied.contracts import Generators, Readout, draw_integers, masked_mean
from policies.heads.denoisers.base import Denoiser
from policies.heads.denoising import DenoisingHead

Sampler = Literal["ddpm", "ddim", "dpm"]
Prediction = Literal["epsilon", "sample", "v_prediction"]
SCHEDULES: dict[str, Any] = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler}


class DiffusionHead(DenoisingHead):
    """Diffusion over chunks.

    Args:
        width, horizon, action_dim, readout_tokens, denoiser, draws, layers, state_dim: see `DenoisingHead`.
        train_steps: how many noise levels there are.
        sample_steps: how many of them sampling visits, evenly spaced from the noisiest; divides `train_steps`.
        sampler: `ddim` follows the deterministic path, good with few steps; `dpm` follows the same path more closely,
            by a second-order multistep rule; `ddpm` adds fresh noise each step.
        prediction: what the denoiser predicts: the noise (`epsilon`), the clean chunk (`sample`), or the mixture of
            both of Salimans & Ho 2022 (`v_prediction`).
        clip: largest magnitude of a normalised action; demonstrations and the estimates on the way are clipped to it.

    Raises:
        ValueError: an unknown option; `sample_steps` does not divide `train_steps`; another size is not possible.
    """

    clip: float

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        denoiser: Denoiser | None = None,
        train_steps: int = 100,
        sample_steps: int = 10,
        sampler: Sampler = "ddim",
        prediction: Prediction = "epsilon",
        clip: float = 1.0,
        draws: int = 1,
        layers: Mapping[str, Any] | None = None,
        state_dim: int = 0,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, denoiser, clip, draws, layers, state_dim)
        if sampler not in get_args(Sampler):
            raise ValueError(f"DiffusionHead: sampler is one of {', '.join(get_args(Sampler))}, got {sampler!r}")
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"DiffusionHead: prediction is one of {', '.join(get_args(Prediction))}, got {prediction!r}"
            )
        if sample_steps < 1 or train_steps % sample_steps:
            raise ValueError(f"DiffusionHead: sample_steps must divide train_steps ({train_steps}), got {sample_steps}")
        self.train_steps, self.sample_steps, self.prediction = train_steps, sample_steps, prediction
        # "trailing" starts at the noisiest level, which the pure noise we start from belongs to; "leading", the default
        # of diffusers, starts below it (Lin et al. 2023, arXiv 2305.08891, section 3.3).
        common = {
            "num_train_timesteps": train_steps,
            "beta_schedule": "squaredcos_cap_v2",
            "timestep_spacing": "trailing",
        }
        # diffusers' DPM-Solver cannot clip to a range, so it is given the clean chunk that we estimate and clip.
        self.estimates = sampler == "dpm"
        clipping = {} if self.estimates else {"clip_sample": True, "clip_sample_range": clip}
        told = "sample" if self.estimates else prediction
        self.scheduler = SCHEDULES[sampler](**common, **clipping, prediction_type=told)
        self.training_schedule: Any = DDPMScheduler(**common)
        self.scheduler.set_timesteps(sample_steps)
        self.levels: list[int] = self.scheduler.timesteps.tolist()

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        levels = torch.cat([draw_integers(self.train_steps, actions, generators) for _ in range(self.draws)])
        noise = self.noise(len(actions), actions, generators, self.draws)
        clean, mask = self.prepare(actions, mask)
        noisy = self.training_schedule.add_noise(clean, noise, levels)
        predicted = self.denoiser(noisy, self._counted(levels), self.denoiser.condition(readout), mask)
        target = {"epsilon": noise, "sample": clean}.get(self.prediction)
        if target is None:
            target = self.training_schedule.get_velocity(clean, noise, levels)
        loss = masked_mean(F.mse_loss(predicted, target, reduction="none"), mask)
        return {"loss": loss, "denoising": loss.detach()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        condition = self.denoiser.condition(readout)
        rows = len(readout.tokens)
        noisy = self.noise(rows, readout.tokens, generators)
        self.scheduler.set_timesteps(self.sample_steps)  # a multistep rule remembers steps, and starts afresh here
        for level in self.levels:
            levels = torch.full((rows,), level, device=noisy.device)
            predicted = self.denoiser(noisy, self._counted(levels), condition)
            if self.estimates:
                predicted = self._clean(predicted, noisy, level)
            # DDIM (eta = 0) and DPM-Solver draw nothing; DDPM draws row b from generators[b].
            source = None if generators is None else list(generators)
            noisy = self.scheduler.step(predicted, level, noisy, generator=source, return_dict=False)[0]
        return noisy

    def _clean(self, predicted: Tensor, noisy: Tensor, level: int) -> Tensor:
        """The clean chunk that a prediction amounts to, clipped."""
        left = float(self.training_schedule.alphas_cumprod[level])
        signal, noise = left**0.5, (1 - left) ** 0.5
        if self.prediction == "epsilon":
            predicted = (noisy - noise * predicted) / signal
        elif self.prediction == "v_prediction":
            predicted = signal * noisy - noise * predicted
        return self.limit(predicted)

    def _counted(self, levels: Tensor) -> Tensor:
        """Levels as this denoiser takes them."""
        return levels / self.train_steps if self.denoiser.fractions else levels
