"""The flow head's field, loss and samples agree with the equations, and with transformers' pi-0 at the same weights."""

import pytest
import torch
from transformers import PI0Config, PI0ForConditionalGeneration

from embodied.contracts import Readout
from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.model import Prefix
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
