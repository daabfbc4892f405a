"""The consistency head's boundary, levels, loss and samples are those of the papers."""

import math

import pytest
import torch

from embodied.contracts import Readout
from policies.heads.consistency import ConsistencyHead
from policies.heads.denoisers.mlp import MLPDenoiser


def a_readout(batch):
    return Readout(torch.ones(batch, 1, 1, 8), torch.ones(batch, 1, dtype=torch.bool))


class Ideal(torch.nn.Module):
    """What the network must say for the exact consistency function of chunks of N(mean, spread^2) numbers."""

    fractions = False

    def __init__(self, head, mean, spread):
        super().__init__()
        self.low, self.high, self.data = head.sigma_min, head.sigma_max, head.sigma_data
        self.mean, self.spread, self.calls = mean, spread, 0

    def condition(self, readout):
        return None

    def forward(self, scaled, levels, condition, mask=None):
        self.calls += 1
        s = (self.low * (self.high / self.low) ** (levels.double() / 100))[:, None, None]
        noisy = scaled.double() * (s**2 + self.data**2).sqrt()
        # Along the probability-flow path, distance from the mean shrinks as the marginal's spread does.
        end = self.mean + (noisy - self.mean) * ((self.spread**2 + self.low**2) / (self.spread**2 + s**2)).sqrt()
        keep = self.data**2 / ((s - self.low) ** 2 + self.data**2)
        change = self.data * (s - self.low) / (s**2 + self.data**2).sqrt()
        return torch.where(change > 0, (end - keep * noisy) / change, 0.0).float()


def test_at_the_least_noise_nothing_is_changed():
    head = ConsistencyHead(8, 4, 2)
    chunk = torch.randn(3, 4, 2)
    least = torch.full((3,), head.sigma_min)
    assert torch.equal(head.end_of_path(chunk, least, head.denoiser.condition(a_readout(3))), chunk)


def test_both_levels_of_a_pair_drop_the_same_units():
    head = ConsistencyHead(8, 4, 2, denoiser=MLPDenoiser(hidden=32, dropout=0.5))
    dropped = []
    dropout = head.denoiser.blocks[0].net[0]
    dropout.register_forward_hook(lambda _, inputs, output: dropped.append((output == 0) & (inputs[0] != 0)))
    head.loss(a_readout(4), torch.zeros(4, 4, 2), torch.ones(4, 4, dtype=torch.bool))
    head.loss(a_readout(4), torch.zeros(4, 4, 2), torch.ones(4, 4, dtype=torch.bool))
    assert torch.equal(dropped[0], dropped[1]) and torch.equal(dropped[2], dropped[3])
    assert dropped[0].any() and not torch.equal(dropped[0], dropped[2])


def test_levels_are_spaced_as_in_edm_and_grow_ever_finer():
    head = ConsistencyHead(8, 4, 2, sigma_min=0.002, levels_first=10, levels_last=40, double_every=2)
    sigmas = head.sigmas(17, torch.zeros(1))
    expected = [(0.002 ** (1 / 7) + i / 17 * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7 for i in range(18)]
    assert torch.allclose(sigmas, torch.tensor(expected), rtol=1e-3)
    seen = []
    for _ in range(8):
        seen.append(head.level_count)
        head.loss(a_readout(2), torch.zeros(2, 4, 2), torch.ones(2, 4, dtype=torch.bool))
    assert seen == [10, 10, 20, 20, 40, 40, 40, 40]
    assert "passes" in head.state_dict()
    head.eval().loss(a_readout(2), torch.zeros(2, 4, 2), torch.ones(2, 4, dtype=torch.bool))
    assert int(head.passes) == 8


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_with_a_perfect_network_few_steps_give_what_was_demonstrated(steps):
    torch.manual_seed(0)
    head = ConsistencyHead(8, 4, 4, sample_steps=steps)
    head.denoiser = Ideal(head, 0.2, 0.15)
    chunk = head.sample(a_readout(1000))
    assert head.denoiser.calls == steps
    assert (chunk.mean() - 0.2).abs() < 0.01 and (chunk.std() - 0.15).abs() < 0.015


def test_neighbouring_levels_agree_for_a_perfect_network_and_disagree_for_another():
    torch.manual_seed(0)
    head = ConsistencyHead(8, 4, 4, levels_first=100, levels_last=100)
    # With next to no spread the path is straight, so that both levels of a pair, which share their noise, lie on it.
    head.denoiser = Ideal(head, 0.2, 0.0)
    actions, mask = torch.full((512, 4, 4), 0.2), torch.ones(512, 4, dtype=torch.bool)
    exact = head.loss(a_readout(512), actions, mask)["loss"]
    head.denoiser.mean = 0.5
    assert exact < 0.02 * head.loss(a_readout(512), actions, mask)["loss"]


def test_the_loss_is_the_pseudo_huber_distance_over_the_difference_of_levels(monkeypatch):
    head = ConsistencyHead(8, 2, 2)
    calls = []

    def end_of_path(noisy, sigma, condition, mask):
        calls.append((noisy, sigma))
        return noisy

    monkeypatch.setattr(head, "end_of_path", end_of_path)
    loss = head.loss(a_readout(64), torch.zeros(64, 2, 2), torch.ones(64, 2, dtype=torch.bool))["loss"]
    (ahead, more), (behind, less) = calls
    c = 0.00054 * math.sqrt(4)
    huber = ((ahead - behind).square().sum((1, 2)) + c**2).sqrt() - c
    assert (more > less).all()
    assert torch.allclose(loss, (huber / (more - less)).mean() / math.sqrt(4), rtol=1e-4)
