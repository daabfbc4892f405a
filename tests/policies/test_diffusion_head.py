"""The diffusion head's noise, steps and samples agree with the equations; it keeps what a regression averages away."""

import math

import pytest
import torch

from embodied.contracts import Readout
from policies.heads.denoisers.mlp import MLPDenoiser
from policies.heads.diffusion import DiffusionHead
from policies.heads.mlp import MLPHead

T = 100


def a_readout(batch):
    return Readout(torch.ones(batch, 1, 1, 8), torch.ones(batch, 1, dtype=torch.bool))


def seeded():
    return [torch.Generator().manual_seed(row) for row in range(4)]


def remaining_signal(t):
    """Nichol & Dhariwal 2021, equation 17, betas capped at 0.999: the cumulative product up to and with level t."""

    def f(s):
        return math.cos((s / T + 0.008) / 1.008 * math.pi / 2) ** 2

    return math.prod(1 - min(1 - f(s + 1) / f(s), 0.999) for s in range(t + 1))


class Ideal(torch.nn.Module):
    """The exact denoiser of chunks whose every number is N(mean, spread^2)."""

    fractions = False

    def __init__(self, mean, spread, prediction):
        super().__init__()
        self.mean, self.spread, self.prediction, self.calls = mean, spread, prediction, 0

    def condition(self, readout):
        return None

    def forward(self, noisy, levels, condition, mask=None):
        self.calls += 1
        a = torch.tensor([remaining_signal(int(t)) for t in levels[:1]], dtype=torch.float64)
        x = noisy.double()
        clean = self.mean + a.sqrt() * self.spread**2 / (a * self.spread**2 + 1 - a) * (x - a.sqrt() * self.mean)
        noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
        velocity = a.sqrt() * noise - (1 - a).sqrt() * clean
        return {"epsilon": noise, "sample": clean, "v_prediction": velocity}[self.prediction].float()


def test_noise_is_added_as_the_cosine_schedule_says():
    scheduler = DiffusionHead(8, 2, 2).training_schedule
    clean, noise = torch.full((T, 4), 0.7), torch.randn(T, 4)
    noisy = scheduler.add_noise(clean, noise, torch.arange(T))
    left = torch.tensor([remaining_signal(t) for t in range(T)])[:, None]
    assert torch.allclose(noisy, left.sqrt() * clean + (1 - left).sqrt() * noise, atol=1e-4)


def test_the_loss_asks_for_the_noise_that_was_added_at_all_levels(monkeypatch):
    head = DiffusionHead(8, 2, 2, draws=50)
    seen = {}

    def denoise(noisy, levels, condition, mask):
        seen.update(noisy=noisy, levels=levels)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(head.denoiser, "forward", denoise)
    actions = torch.rand(64, 2, 2)
    loss = head.loss(a_readout(64), actions, torch.ones(64, 2, dtype=torch.bool))["loss"]
    left = torch.tensor([remaining_signal(t) for t in range(T)])[seen["levels"]][:, None, None]
    noise = (seen["noisy"] - left.sqrt() * actions.repeat(50, 1, 1)) / (1 - left).sqrt()
    assert torch.allclose(loss, noise.square().mean(), rtol=1e-3)
    assert noise.mean().abs() < 0.05 and (noise.std() - 1).abs() < 0.05
    assert set(seen["levels"].tolist()) == set(range(T))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "sampler, steps", [("ddim", 10), ("ddim", 100), ("ddpm", 100), ("ddpm", 20), ("dpm", 5), ("dpm", 10), ("dpm", 20)]
)
def test_with_a_perfect_denoiser_a_sample_is_what_was_demonstrated(sampler, steps, prediction):
    head = DiffusionHead(8, 3, 2, sampler=sampler, sample_steps=steps, prediction=prediction)
    head.denoiser = Ideal(0.4, 0.0, prediction)
    assert torch.allclose(head.sample(a_readout(16)), torch.full((16, 3, 2), 0.4), atol=2e-3)
    assert head.denoiser.calls == steps


@pytest.mark.parametrize("sampler, steps", [("ddim", 50), ("ddpm", 100), ("dpm", 50)])
def test_with_a_perfect_denoiser_samples_spread_as_demonstrations_do(sampler, steps):
    torch.manual_seed(0)
    head = DiffusionHead(8, 4, 4, sampler=sampler, sample_steps=steps)
    head.denoiser = Ideal(0.2, 0.15, "epsilon")
    chunk = head.sample(a_readout(1000))
    assert (chunk.mean() - 0.2).abs() < 0.01 and (chunk.std() - 0.15).abs() < 0.015


def test_the_second_order_rule_is_closer_to_the_path_than_the_first_order_one():
    def error(sampler):
        torch.manual_seed(0)
        head = DiffusionHead(8, 4, 4, sampler=sampler, sample_steps=20)
        head.denoiser = Ideal(0.2, 0.15, "epsilon")
        return (head.sample(a_readout(1000)).std() - 0.15).abs()

    assert error("dpm") < 0.75 * error("ddim")


def test_it_starts_from_pure_noise_at_the_noisiest_level():
    assert DiffusionHead(8, 2, 2, train_steps=100, sample_steps=10).levels == list(range(99, 0, -10))


def test_samples_stay_within_clip():
    head = DiffusionHead(8, 2, 2, clip=0.5)
    head.denoiser = Ideal(3.0, 0.1, "epsilon")
    assert head.sample(a_readout(32)).abs().max() <= 0.5 + 1e-6


def test_demonstrations_beyond_clip_are_learned_as_far_as_samples_can_follow():
    head = DiffusionHead(8, 2, 2, clip=0.5)
    losses = [
        head.loss(a_readout(4), torch.full((4, 2, 2), size), torch.ones(4, 2, dtype=torch.bool), generators)["loss"]
        for size, generators in ((0.5, seeded()), (9.0, seeded()))
    ]
    assert torch.equal(*losses)


def test_it_keeps_two_ways_that_a_regression_averages():
    torch.manual_seed(0)
    actions = torch.where(torch.arange(64) % 2 == 0, 0.6, -0.6)[:, None, None].expand(64, 2, 1)
    mask, readout = torch.ones(64, 2, dtype=torch.bool), a_readout(64)
    diffusion = DiffusionHead(8, 2, 1, denoiser=MLPDenoiser(hidden=32), draws=4)
    heads = {"diffusion": diffusion, "mlp": MLPHead(8, 2, 1, distance="l2")}
    for head in heads.values():
        optimiser = torch.optim.Adam(head.parameters(), 2e-3)
        for _ in range(300):
            optimiser.zero_grad()
            head.loss(readout, actions, mask)["loss"].backward()
            optimiser.step()
    chunk = heads["diffusion"].sample(readout)
    assert (chunk.abs() - 0.6).abs().mean() < 0.1
    assert 0.3 < (chunk[:, 0] > 0).float().mean() < 0.7
    assert heads["mlp"].sample(readout).abs().max() < 0.1
