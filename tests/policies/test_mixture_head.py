"""The mixture head's likelihood is torch's own, and it keeps apart what an average would spoil."""

import pytest
import torch
from torch import distributions as D

from embodied.contracts import Readout
from policies.heads.mixture import MixtureHead

WIDTH, HORIZON, ACTIONS = 8, 4, 3


def a_readout(batch=6):
    generator = torch.Generator().manual_seed(0)
    return Readout(torch.randn(batch, 1, 2, WIDTH, generator=generator), torch.ones(batch, 1, dtype=torch.bool))


def some_mask():
    return torch.arange(HORIZON) < torch.tensor([1, 2, 3, 4, 4, 4]).unsqueeze(1)


def test_the_loss_of_steps_is_the_mean_surprise_of_torchs_mixture():
    torch.manual_seed(0)
    head, actions, mask = MixtureHead(WIDTH, HORIZON, ACTIONS, 2), torch.rand(6, HORIZON, ACTIONS) * 2 - 1, some_mask()
    means, stds, logits = head.mixture(a_readout())
    mixture = D.MixtureSameFamily(D.Categorical(logits=logits), D.Independent(D.Normal(means, stds), 1))
    surprise = -mixture.log_prob(actions)
    assert torch.allclose(head.loss(a_readout(), actions, mask)["loss"], surprise[mask].mean(), rtol=1e-5)
    assert means.abs().max() <= 1 and stds.min() >= 1e-4 and means.shape == (6, HORIZON, 5, ACTIONS)


def test_the_loss_of_chunks_is_that_of_one_mixture_over_what_the_mask_keeps():
    torch.manual_seed(0)
    head = MixtureHead(WIDTH, HORIZON, ACTIONS, 2, per="chunk")
    actions, mask = torch.rand(6, HORIZON, ACTIONS) * 2 - 1, some_mask()
    means, stds, logits = head.mixture(a_readout())
    total = 0
    for row in range(6):
        n = int(mask[row].sum())
        chunks = D.Independent(D.Normal(means[row, :n].transpose(0, 1), stds[row, :n].transpose(0, 1)), 2)
        total -= D.MixtureSameFamily(D.Categorical(logits=logits[row, 0]), chunks).log_prob(actions[row, :n])
    assert torch.allclose(head.loss(a_readout(), actions, mask)["loss"], total / mask.sum(), rtol=1e-5)


def learned(per, **options):
    """A head that saw two ways to go, each half of the time, from the same observation."""
    torch.manual_seed(0)
    head = MixtureHead(WIDTH, HORIZON, 1, 2, modes=4, per=per, hidden=[32], **options)
    readout = Readout(torch.ones(32, 1, 2, WIDTH), torch.ones(32, 1, dtype=torch.bool))
    way = torch.tensor([-0.6, 0.6]).repeat(16)
    actions = way[:, None, None].expand(-1, HORIZON, 1)
    optimiser = torch.optim.Adam(head.parameters(), 5e-3)
    for _ in range(250):
        optimiser.zero_grad()
        noisy = actions + 0.05 * torch.randn(32, HORIZON, 1)
        head.loss(readout, noisy, torch.ones(32, HORIZON, dtype=torch.bool))["loss"].backward()
        optimiser.step()
    return head


def draws(head, rows=200):
    readout = Readout(torch.ones(rows, 1, 2, WIDTH), torch.ones(rows, 1, dtype=torch.bool))
    return head.sample(readout, [torch.Generator().manual_seed(i) for i in range(rows)]).squeeze(-1)


@pytest.mark.parametrize("per", ["step", "chunk"])
def test_both_ways_are_drawn_and_nothing_between(per):
    chunks = draws(learned(per))
    assert ((chunks.abs() - 0.6).abs() < 0.15).float().mean() > 0.98
    assert 0.35 < (chunks > 0).float().mean() < 0.65
    same = (chunks.sign() == chunks[:, :1].sign()).all(1).float().mean()
    assert same == 1 if per == "chunk" else same < 0.5  # one choice for all steps, or one for each


def test_the_likeliest_mode_without_noise_is_always_the_same():
    head = learned("chunk", choose="likeliest", sample_std=0)
    chunks = draws(head, 5)
    assert torch.equal(chunks, chunks[:1].expand_as(chunks)) and (chunks.abs() - 0.6).abs().max() < 0.15


@pytest.mark.parametrize("sample_std, expected", [(1e-4, 1e-4), (0.2, 0.2), (None, 0.05)])
def test_noise_is_as_wide_as_configured_or_learned(sample_std, expected):
    head = learned("chunk", choose="likeliest", sample_std=sample_std)
    assert draws(head, 500).std(0).mean().item() == pytest.approx(expected, rel=0.35)
