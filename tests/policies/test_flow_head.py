"""The flow head's field, loss and samples agree with the equations, and with transformers' pi-0 at the same weights."""

import math

import pytest
import torch
from transformers import PI0Config, PI0ForConditionalGeneration

from embodied.contracts import Readout
from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.observer import Prefix
from policies.heads.denoisers.expert import ActionExpert
from policies.heads.flow import FlowHead
from policies.heads.pi0 import load_pi0_expert

HORIZON, ACTIONS, STATE = 5, 2, 3
TEXT = {
    "model_type": "gemma",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 60,
}


@pytest.fixture(scope="module")
def pi0():
    """A random pi-0 whose weights are large enough to matter."""
    torch.manual_seed(0)
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 16, "image_size": 8}
    vision |= {"num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4, "vision_use_head": False}
    whole = {"model_type": "paligemma", "text_config": TEXT, "vision_config": vision, "projection_dim": 32}
    config = PI0Config(
        vlm_config=whole | {"image_token_id": 60, "hidden_size": 32},
        dit_config=TEXT | {"hidden_size": 16, "intermediate_size": 24},
        chunk_size=HORIZON,
        max_state_dim=STATE,
        max_action_dim=ACTIONS,
        loss_reduction="none",
    )
    model = PI0ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(scope="module")
def ours(pi0):
    """Our backbone and flow head with its weights."""
    backbone = CausalBackbone(config=dict(TEXT)).eval()
    weights = pi0.state_dict()
    language = "model.vlm.language_model."
    backbone.model.model.load_state_dict(
        {name.removeprefix(language): w for name, w in weights.items() if name.startswith(language)}
    )
    expert = ActionExpert(hidden=16, intermediate=24, state_token=True)
    head = FlowHead(32, HORIZON, ACTIONS, 1, expert, layers=backbone.layers, state_dim=STATE).eval()
    load_pi0_expert(head, weights)
    return backbone, head


@pytest.fixture(scope="module")
def observed(ours):
    """The same observations for both: what transformers reads, and our readout of it; one row is shorter."""
    torch.manual_seed(1)
    ids = torch.randint(0, 60, (3, 7))
    present = torch.tensor([[1] * 7, [1] * 7, [1] * 4 + [0] * 3])
    ids, state = ids.masked_fill(present == 0, 0), torch.randn(3, STATE)
    backbone, _ = ours
    embeddings = backbone.embed(ids)
    mask = present.bool().unsqueeze(1).expand(-1, 7, -1)
    hidden, cache = backbone(embeddings, mask, present.cumsum(-1) - 1, keep=True)
    prefix = Prefix(backbone, cache, present.bool(), hidden)
    readout = Readout(torch.zeros(3, 1, 1, 32), torch.ones(3, 1, dtype=torch.bool), prefix, state)
    theirs = {
        "input_ids": ids,
        "attention_mask": present,
        "pixel_values": torch.zeros(3, 1, 3, 8, 8),
        "pixel_attention_mask": torch.ones(3, 1, dtype=torch.bool),
        "state": state,
    }
    return theirs, readout


@torch.no_grad()
def test_the_velocity_and_the_loss_are_pi0s(pi0, ours, observed):
    theirs, readout = observed
    _, head = ours
    noise, actions = torch.randn(3, HORIZON, ACTIONS), torch.randn(3, HORIZON, ACTIONS)
    times = torch.tensor([0.001, 0.4, 1.0])
    positions = theirs["attention_mask"].cumsum(-1) - 1
    result = pi0(**theirs, position_ids=positions, noise=noise, timestep=times, actions=actions)
    t = times[:, None, None]
    velocity = head.velocity(t * noise + (1 - t) * actions, times, head.denoiser.condition(readout))
    assert velocity.abs().mean() > 0.1
    assert torch.allclose(velocity, result.logits, atol=1e-5)
    assert torch.allclose((velocity - (noise - actions)) ** 2, result.loss, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_the_sampled_chunk_is_pi0s(pi0, ours, observed):
    theirs, readout = observed
    _, head = ours
    noise = torch.randn(3, HORIZON, ACTIONS)
    chunk = head.integrate(noise, head.denoiser.condition(readout))
    assert torch.allclose(chunk, pi0.sample_actions(noise=noise, **theirs), atol=1e-5)


class Ideal(torch.nn.Module):
    """The exact velocity of chunks whose every number is N(mean, spread^2)."""

    fractions = True

    def __init__(self, mean, spread):
        super().__init__()
        self.mean, self.spread, self.times = mean, spread, []

    def condition(self, readout):
        return None

    def forward(self, noisy, times, condition, mask=None):
        self.times.append(float(times[0]))
        t, x = times[:, None, None].double(), noisy.double()
        variance = t**2 + (1 - t) ** 2 * self.spread**2
        off = (x - (1 - t) * self.mean) / variance
        return (t * off - self.mean - (1 - t) * self.spread**2 * off).float()


def a_readout(batch):
    return Readout(torch.ones(batch, 1, 1, 8), torch.ones(batch, 1, dtype=torch.bool))


@pytest.mark.parametrize("steps", [10, 100])
def test_with_a_perfect_field_samples_spread_as_eulers_steps_do(steps):
    torch.manual_seed(0)
    # The field is linear: each step shrinks distances from the mean's path by a factor that can be worked out.
    times = [1 - step / steps for step in range(steps)]
    factors = [1 - (t - (1 - t) * 0.15**2) / (t**2 + (1 - t) ** 2 * 0.15**2) / steps for t in times]
    head = FlowHead(8, 4, 4, sample_steps=steps)
    head.denoiser = Ideal(0.2, 0.15)
    chunk = head.sample(a_readout(1000))
    assert (chunk.mean() - 0.2).abs() < 0.01 and (chunk.std() - math.prod(factors)).abs() < 0.003
    assert steps == 10 or (chunk.std() - 0.15).abs() < 0.006
    assert len(head.denoiser.times) == steps and head.denoiser.times[0] == 1.0 and min(head.denoiser.times) > 0


def test_a_straight_path_is_followed_exactly():
    head = FlowHead(8, 4, 4, sample_steps=3)
    head.denoiser = Ideal(0.4, 0.0)
    assert torch.allclose(head.sample(a_readout(16)), torch.full((16, 4, 4), 0.4), atol=1e-5)


def test_training_times_follow_pi0s_distribution(monkeypatch):
    torch.manual_seed(0)
    head, seen = FlowHead(8, 1, 1, draws=50), []
    monkeypatch.setattr(head, "velocity", lambda noisy, times, condition, mask: seen.append(times) or noisy)
    head.loss(a_readout(400), torch.zeros(400, 1, 1), torch.ones(400, 1, dtype=torch.bool))
    drawn = (seen[0] - 0.001) / 0.999
    expected = torch.distributions.Beta(1.5, 1.0)
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn.mean() - expected.mean).abs() < 0.01 and (drawn.std() - expected.stddev).abs() < 0.01


def test_noisy_versions_of_a_chunk_share_the_prefix_and_do_not_see_each_other(ours, observed):
    _, readout = observed
    _, head = ours
    condition = head.denoiser.condition(readout)
    noisy, times = torch.randn(6, HORIZON, ACTIONS), torch.rand(6)
    together = head.velocity(noisy, times, condition)
    apart = [head.velocity(noisy[i : i + 3], times[i : i + 3], condition) for i in (0, 3)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
def test_an_expert_attends_the_observation_and_no_step_that_does_not_exist(adaptive, ours, observed):
    torch.manual_seed(0)
    backbone, _ = ours
    _, readout = observed
    head = FlowHead(32, HORIZON, ACTIONS, 1, ActionExpert(16, 24, adaptive_norm=adaptive), layers=backbone.layers)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    condition = head.denoiser.condition(readout)
    noisy, times, mask = torch.randn(3, HORIZON, ACTIONS), torch.rand(3), torch.arange(HORIZON).expand(3, -1) < 3
    one, other = (head.velocity(torch.where(mask[..., None], noisy, x), times, condition, mask) for x in (0.0, 9.0))
    assert torch.allclose(one[:, :3], other[:, :3], atol=1e-5)
    other = condition._replace(keys=[k + (1 - condition.present[:, None, :, None].float()) for k in condition.keys])
    assert torch.allclose(head.velocity(noisy, times, other), head.velocity(noisy, times, condition), atol=1e-5)
    other = condition._replace(values=[v + 1 for v in condition.values])
    assert not torch.allclose(head.velocity(noisy, times, other), head.velocity(noisy, times, condition), atol=1e-2)
    assert not torch.allclose(head.velocity(noisy, 1 - times, condition), head.velocity(noisy, times, condition))


@pytest.mark.parametrize("insulate", [False, True])
def test_the_gradient_reaches_the_language_model_unless_it_is_insulated(insulate, ours):
    backbone = CausalBackbone(config=dict(TEXT))
    head = FlowHead(32, HORIZON, ACTIONS, 1, ActionExpert(16, 24, insulate=insulate), layers=backbone.layers)
    ids, present = torch.arange(7)[None], torch.ones(1, 7, dtype=torch.bool)
    mask = present.unsqueeze(1).expand(-1, 7, -1)
    hidden, cache = backbone(backbone.embed(ids), mask, torch.arange(7)[None], keep=True)
    readout = Readout(hidden[:, None, -1:], present[:, :1], Prefix(backbone, cache, present, hidden))
    head.loss(readout, torch.zeros(1, HORIZON, ACTIONS), torch.ones(1, HORIZON, dtype=torch.bool))["loss"].backward()
    assert (backbone.embed.__self__.model.get_input_embeddings().weight.grad is None) == insulate


def test_weights_that_are_not_pi0s_are_refused_and_change_nothing(ours, pi0):
    backbone, _ = ours
    small = FlowHead(32, HORIZON, 1, 1, ActionExpert(16, 24, state_token=True), layers=backbone.layers, state_dim=2)
    load_pi0_expert(small, pi0.state_dict())  # fewer actions and states: the first ones
    assert torch.equal(small.denoiser.enter.weight, pi0.embed_action_time.action_in_proj.weight[:, :1])
    before = {name: weight.clone() for name, weight in small.state_dict().items()}
    incomplete = {name: weight * 2 for name, weight in pi0.state_dict().items() if "action_out" not in name}
    with pytest.raises(ValueError, match=r"there is no 'action_out_proj"):
        load_pi0_expert(small, incomplete)
    assert all(torch.equal(before[name], weight) for name, weight in small.state_dict().items())
    wide = FlowHead(32, HORIZON, 1, 1, ActionExpert(16, 32, state_token=True), layers=backbone.layers, state_dim=2)
    with pytest.raises(ValueError, match=r"the head wants \(32, 16\)"):
        load_pi0_expert(wide, pi0.state_dict())
    with pytest.raises(ValueError, match="needs an ActionExpert with state_token"):
        load_pi0_expert(FlowHead(32, HORIZON, 1), pi0.state_dict())
