"""Denoisers are the published networks, hide what does not exist, and serve any head."""

import pytest
import torch

from embodied.building import build
from embodied.contracts import Readout
from policies.heads.consistency import ConsistencyHead
from policies.heads.denoisers.base import Sizes
from policies.heads.denoisers.expert import ActionExpert
from policies.heads.denoisers.mlp import MLPDenoiser
from policies.heads.denoisers.transformer import TransformerDenoiser
from policies.heads.denoisers.unet import UNetDenoiser
from policies.heads.diffusion import DiffusionHead
from policies.heads.flow import FlowHead

DENOISERS = {
    "mlp": lambda: MLPDenoiser(hidden=32),
    "unet": lambda: UNetDenoiser([16, 32], time_width=16),
    "transformer": lambda: TransformerDenoiser(32, 2),
    "transformer, whole": lambda: TransformerDenoiser(32, 2, condition_blocks=1, causal=False),
}
every_denoiser = pytest.mark.parametrize("make", [pytest.param(m, id=name) for name, m in DENOISERS.items()])


def created(denoiser, horizon=8, action_dim=3, width=10, readout_tokens=1):
    denoiser.create(Sizes(width, horizon, action_dim, readout_tokens))
    return denoiser.eval()


def filled(module):
    """Weights that anyone can make again: waves, a different one for each."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            wave = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + i)
            p.copy_(wave.view(p.shape) * (0.3 if p.dim() == 1 else 0.1))
    return module


def test_the_unet_is_lerobots():
    """Printed by LeRobot 0.4.4's DiffusionConditionalUnet1d with these weights and inputs, in float64."""
    net = filled(created(UNetDenoiser([16, 32, 64], time_width=16)).double())
    noisy = torch.sin(torch.arange(2 * 8 * 3) * 0.37).view(2, 8, 3).double()
    told = torch.cos(torch.arange(20) * 0.5).view(2, 10).double()
    expected = [
        [[0.2525971482, 0.1719358118, -0.1980029495], [0.2715594241, 0.0578979664, -0.2632657000]],
        [[0.2525656280, 0.1715621303, -0.1981231477], [0.2719057411, 0.0574781840, -0.2637824527]],
    ]
    assert sum(p.numel() for p in net.parameters()) == 267731
    result = net(noisy, torch.tensor([3.0, 77.0]).double(), told)[:, ::7]
    assert torch.allclose(result, torch.tensor(expected), atol=1e-6)


def test_the_transformer_is_diffusion_policys():
    """Printed by Diffusion Policy's TransformerForDiffusion (not causal) with these weights and inputs, in float64."""
    net = filled(created(TransformerDenoiser(16, 2, causal=False), readout_tokens=2).double())
    noisy = torch.sin(torch.arange(2 * 8 * 3) * 0.37).view(2, 8, 3).double()
    told = torch.cos(torch.arange(40) * 0.5).view(2, 1, 2, 10).double()
    expected = [
        [[-0.0661450460, 0.1191939248, -0.0660883552], [-0.0749659614, 0.1091508220, -0.0613450373]],
        [[-0.0674296177, 0.1198831938, -0.0645239337], [-0.0804696951, 0.1116181084, -0.0548395613]],
    ]
    assert sum(p.numel() for p in net.parameters()) == 11427
    condition = net.condition(Readout(told, torch.ones(2, 1, dtype=torch.bool)))
    result = net(noisy, torch.tensor([3.0, 77.0]).double(), condition)[:, ::7]
    assert torch.allclose(result, torch.tensor(expected), atol=1e-6)


@every_denoiser
@pytest.mark.parametrize("horizon", [1, 5, 8])
def test_any_length_of_chunk_goes_through(make, horizon):
    net = created(make(), horizon)
    readout = Readout(torch.randn(2, 1, 1, 10), torch.ones(2, 1, dtype=torch.bool))
    noisy = torch.randn(2, horizon, 3)
    result = net(noisy, torch.tensor([3, 50]), net.condition(readout))
    assert result.shape == noisy.shape and result.isfinite().all()
    assert not torch.allclose(result[:, -1], net(-noisy, torch.tensor([3, 50]), net.condition(readout))[:, -1])


@every_denoiser
def test_several_noisy_versions_in_one_call_are_several_calls(make):
    torch.manual_seed(0)
    net = created(make())
    condition = net.condition(Readout(torch.randn(2, 1, 1, 10), torch.ones(2, 1, dtype=torch.bool)))
    noisy, levels = torch.randn(6, 8, 3), torch.arange(6) * 10
    together = net(noisy, levels, condition)
    apart = [net(noisy[i : i + 2], levels[i : i + 2], condition) for i in (0, 2, 4)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_the_transformer_looks_ahead_only_if_it_may(causal):
    net = created(TransformerDenoiser(32, 2, causal=causal))
    condition = net.condition(Readout(torch.randn(1, 1, 1, 10), torch.ones(1, 1, dtype=torch.bool)))
    noisy, level = torch.randn(1, 8, 3), torch.tensor([10])
    later = noisy.clone()
    later[:, 5:] += 1
    one, other = net(noisy, level, condition), net(later, level, condition)
    assert torch.allclose(one[:, :5], other[:, :5], atol=1e-6) == causal
    assert not torch.allclose(one[:, 5:], other[:, 5:], atol=1e-3)


def test_the_transformer_looks_at_no_step_that_does_not_exist():
    net = created(TransformerDenoiser(32, 2, causal=False))
    condition = net.condition(Readout(torch.randn(1, 1, 1, 10), torch.ones(1, 1, dtype=torch.bool)))
    noisy, level, mask = torch.randn(1, 8, 3), torch.tensor([10]), torch.arange(8)[None] < 5
    one, other = (net(torch.where(mask[..., None], noisy, x), level, condition, mask) for x in (0.0, 9.0))
    assert torch.allclose(one[:, :5], other[:, :5], atol=1e-6)


TWO_WAYS = {
    "flow": (lambda: FlowHead(8, 2, 1, denoiser=MLPDenoiser(hidden=32), draws=4), 200, 1e-2),
    "consistency": (lambda: ConsistencyHead(8, 2, 1, denoiser=MLPDenoiser(hidden=32), draws=4), 250, 1e-2),
    "diffusion, unet": (lambda: a_diffusion(UNetDenoiser([16, 32], time_width=16)), 100, 3e-3),
    "diffusion, transformer": (lambda: a_diffusion(TransformerDenoiser(32, 1)), 150, 5e-3),
}


def a_diffusion(denoiser):
    return DiffusionHead(8, 2, 1, denoiser=denoiser, draws=2, prediction="sample")


@pytest.mark.parametrize("make, steps, rate", [pytest.param(*case, id=name) for name, case in TWO_WAYS.items()])
def test_it_keeps_both_ways_that_a_regression_averages(make, steps, rate):
    torch.manual_seed(0)
    head = make()
    actions = torch.where(torch.arange(32) % 2 == 0, 0.6, -0.6)[:, None, None].expand(32, 2, 1)
    readout = Readout(torch.ones(32, 1, 1, 8), torch.ones(32, 1, dtype=torch.bool))
    optimiser = torch.optim.Adam(head.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        head.loss(readout, actions, torch.ones(32, 2, dtype=torch.bool))["loss"].backward()
        optimiser.step()
        schedule.step()
    chunk = torch.cat([head.sample(readout).detach() for _ in range(2)])
    assert (chunk.abs() - 0.6).abs().mean() < 0.2  # the average is 0.6 away
    assert 0.25 < (chunk[:, 0] > 0).float().mean() < 0.75


BASE = {"width": 8, "horizon": 4, "action_dim": 2}


@pytest.mark.parametrize(
    "target, wrong, says",
    [
        ("denoisers.unet.UNetDenoiser", {"channels": [12]}, "groups .8. must divide each of its channels"),
        ("denoisers.unet.UNetDenoiser", {"kernel": 4}, "kernel must be odd"),
        ("denoisers.transformer.TransformerDenoiser", {"heads": 3}, r"heads \(3\) must divide hidden \(128\)"),
        ("denoisers.expert.ActionExpert", {"hidden": 15}, "hidden must be even"),
        ("flow.FlowHead", BASE | {"sample_steps": 0}, "sample_steps must be at least 1"),
        ("flow.FlowHead", BASE | {"time_power": 0}, "time_power must be positive"),
        ("flow.FlowHead", BASE | {"denoiser": {"_target_": "policies.heads.mlp.MLPHead", **BASE}}, "no denoiser"),
        (
            "flow.FlowHead",
            BASE | {"denoiser": {"_target_": "policies.heads.denoisers.expert.ActionExpert"}},
            "was not told what they are like",
        ),
        ("consistency.ConsistencyHead", BASE | {"sigma_min": 90}, "noise must grow from sigma_min"),
        ("consistency.ConsistencyHead", BASE | {"levels_first": 1}, "levels must grow from at least 2"),
    ],
)
def test_a_mistaken_choice_is_named(target, wrong, says):
    with pytest.raises(ValueError, match=says) as raised:
        build({"_target_": f"policies.heads.{target}", **wrong})
    assert "\n" not in str(raised.value)


def test_an_expert_that_does_not_fit_is_refused():
    layers = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}
    with pytest.raises(ValueError, match="needs a body with a state"):
        FlowHead(8, 4, 2, denoiser=ActionExpert(state_token=True), layers=layers)
    with pytest.raises(ValueError, match="multiple of the 4 attention heads it has, got 30"):
        FlowHead(8, 4, 2, denoiser=ActionExpert(30), layers=layers | {"num_attention_heads": 4})
    with pytest.raises(ValueError, match="cannot build a 'lama'"):
        FlowHead(8, 4, 2, denoiser=ActionExpert(), layers=layers | {"model_type": "lama"})
