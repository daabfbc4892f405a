"""What holds for every head: it learns, ignores padding, survives saving, and a row minds its own business."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from embodied.building import build
from embodied.contracts import ActionHead
from policies.heads.categorical import GaussianHead
from policies.heads.consistency import ConsistencyHead
from policies.heads.denoisers.expert import ActionExpert
from policies.heads.denoisers.mlp import MLPDenoiser
from policies.heads.denoisers.transformer import TransformerDenoiser
from policies.heads.denoisers.unet import UNetDenoiser
from policies.heads.diffusion import DiffusionHead
from policies.heads.fast import FastHead
from policies.heads.flow import FlowHead
from policies.heads.gpt import GPTHead
from policies.heads.mixture import MixtureHead
from policies.heads.mlp import MLPHead
from policies.heads.rnn import RNNHead
from policies.heads.speaking import SpeakingHead
from policies.heads.token import TokenHead
from policies.heads.transformer import TransformerHead

WIDTH, HORIZON, ACTIONS = 16, 4, 3
LAYERS = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
LAYERS |= {"hidden_size": WIDTH, "head_dim": WIDTH}
"""What the tiny language model's layer is like, for heads that attend it."""


def fitted(head):
    """With what it learns from the training data before training."""
    chunks = torch.rand(200, HORIZON, ACTIONS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    head.fit(chunks, torch.ones(200, HORIZON, dtype=torch.bool))
    return head


HEADS = {
    "mlp": lambda: MLPHead(WIDTH, HORIZON, ACTIONS, 2, hidden=[64]),
    "mlp with gripper": lambda: MLPHead(WIDTH, HORIZON, ACTIONS, 2, hidden=[64], gripper=1, gripper_weight=0.5),
    "mlp, pooled": lambda: MLPHead(WIDTH, HORIZON, ACTIONS, 2, hidden=[64], pooling="mean", distance="smooth_l1"),
    "rnn": lambda: RNNHead(WIDTH, HORIZON, ACTIONS, 2, size=32, layers=2, window=3, hidden=[64], tanh=False),
    "rnn, whole episode, gripper": lambda: RNNHead(
        WIDTH, HORIZON, ACTIONS, 2, cell="gru", size=32, layers=1, window=None, hidden=[64], gripper=1
    ),
    "gpt": lambda: GPTHead(WIDTH, HORIZON, ACTIONS, 2, size=32, layers=1, window=3, hidden=[64], tanh=False),
    "transformer": lambda: TransformerHead(WIDTH, HORIZON, ACTIONS, 2, size=32, layers=1),
    "transformer, all steps": lambda: TransformerHead(WIDTH, HORIZON, ACTIONS, 2, "steps", size=32, layers=1),
    "mixture": lambda: MixtureHead(WIDTH, HORIZON, ACTIONS, 2, modes=3, hidden=[64]),
    "mixture of chunks": lambda: MixtureHead(WIDTH, HORIZON, ACTIONS, 2, per="chunk", sample_std=None, hidden=[64]),
    "token": lambda: TokenHead(WIDTH, HORIZON, ACTIONS, 2),
    "token, parallel": lambda: TokenHead(WIDTH, HORIZON, ACTIONS, 2, decoding="parallel"),
    "token, rt1": lambda: TokenHead(WIDTH, HORIZON, ACTIONS, 2, binning="rt1", temperature=1.0),
    "gaussian": lambda: GaussianHead(WIDTH, HORIZON, ACTIONS, 2, hidden=[64], sample_std=1.0),
    "fast": lambda: fitted(FastHead(WIDTH, HORIZON, ACTIONS, 2, vocabulary=200)),
    "fast, drawn": lambda: fitted(FastHead(WIDTH, HORIZON, ACTIONS, 2, vocabulary=200, temperature=1.0)),
    "token, drawn": lambda: TokenHead(WIDTH, HORIZON, ACTIONS, 2, temperature=1.0, pooling="mean"),
    "diffusion": lambda: DiffusionHead(WIDTH, HORIZON, ACTIONS, 2, MLPDenoiser(hidden=64), draws=2),
    "diffusion, ddpm": lambda: DiffusionHead(
        WIDTH, HORIZON, ACTIONS, 2, MLPDenoiser(hidden=64), sampler="ddpm", prediction="sample"
    ),
    "diffusion, unet, dpm": lambda: DiffusionHead(
        WIDTH, HORIZON, ACTIONS, 2, UNetDenoiser([16, 32], time_width=16), sampler="dpm", prediction="v_prediction"
    ),
    "diffusion, transformer": lambda: DiffusionHead(
        WIDTH, HORIZON, ACTIONS, 2, TransformerDenoiser(32, 2, condition_blocks=1), draws=2
    ),
    "flow": lambda: FlowHead(WIDTH, HORIZON, ACTIONS, 2, ActionExpert(32, 64), draws=2, layers=LAYERS),
    "flow, adaptive": lambda: FlowHead(
        WIDTH, HORIZON, ACTIONS, 2, ActionExpert(32, 64, adaptive_norm=True, insulate=True), draws=2, layers=LAYERS
    ),
    "flow, mlp": lambda: FlowHead(WIDTH, HORIZON, ACTIONS, 2, MLPDenoiser(hidden=64), draws=2),
    "consistency": lambda: ConsistencyHead(WIDTH, HORIZON, ACTIONS, 2, MLPDenoiser(hidden=64), draws=2),
}
every_head = pytest.mark.parametrize("head", [pytest.param(make, id=name) for name, make in HEADS.items()])


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def some_mask(batch=8):
    """The first rows end early, the last not at all."""
    return torch.arange(HORIZON) < torch.arange(1, batch + 1).clamp(max=HORIZON).unsqueeze(1)


def train(head, language_model, observe, target, steps, rate, batch=32):
    mask = torch.ones(batch, HORIZON, dtype=torch.bool)
    parameters = [*head.parameters(), *(language_model.parameters() if isinstance(head, SpeakingHead) else ())]
    optimiser = torch.optim.Adam(parameters, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        head.loss(observe(batch), target, mask)["loss"].backward()
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize(
    "name, steps, rate, allowed",
    [
        ("mlp", 200, 1e-2, 0.03),
        ("mlp, pooled", 200, 1e-2, 0.03),
        ("rnn", 200, 1e-2, 0.03),
        ("gpt", 150, 3e-3, 0.05),
        ("transformer", 150, 3e-3, 0.05),
        ("transformer, all steps", 200, 3e-3, 0.05),
        ("mixture", 300, 1e-2, 0.05),
        ("token", 300, 1e-2, 0.01),
        ("token, parallel", 300, 1e-2, 0.02),
        ("fast", 300, 1e-2, 0.04),
        ("diffusion", 500, 3e-3, 0.1),
        ("diffusion, transformer", 200, 5e-3, 0.15),
        ("flow", 300, 3e-3, 0.1),
        ("flow, adaptive", 200, 1e-2, 0.1),
        ("flow, mlp", 300, 3e-3, 0.1),
        ("consistency", 300, 3e-3, 0.1),
    ],
)
def test_learns_a_function_of_the_latest_step(name, steps, rate, allowed, language_model, observe):
    torch.manual_seed(0)
    target = observe(32).last.mean(1)[:, :ACTIONS].tanh().unsqueeze(1) * torch.linspace(0.2, 1, HORIZON)[:, None]
    head = HEADS[name]()
    train(head, language_model, observe, target, steps, rate)
    assert (head.sample(observe(32), generators(*range(32))) - target).abs().mean() < allowed


@every_head
def test_padding_changes_neither_loss_nor_gradient(head, language_model, observe):
    torch.manual_seed(0)
    head, mask = head(), some_mask()
    actions = torch.randn(8, HORIZON, ACTIONS).clamp(-1, 1)
    results = []
    for garbage in (0.5, 1e3, torch.nan):
        head.zero_grad(), language_model.zero_grad()
        chunk = torch.where(mask.unsqueeze(-1), actions, garbage)
        loss = head.loss(observe(), chunk, mask, generators(*range(8)))["loss"]
        loss.backward()
        gradients = [p.grad for p in [*head.parameters(), *language_model.parameters()] if p.grad is not None]
        results.append(torch.cat([loss.detach().view(1), *(g.flatten() for g in gradients)]))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert results[0].isfinite().all() and results[0].abs().sum() > 0


@every_head
def test_a_batch_without_a_single_real_step_has_no_loss(head, observe):
    nothing = torch.zeros(8, HORIZON, dtype=torch.bool)
    assert head().loss(observe(), torch.ones(8, HORIZON, ACTIONS), nothing)["loss"] == 0


@every_head
def test_parts_of_a_batch_weighted_by_what_they_kept_give_the_loss_of_the_whole(head, observe, rows):
    torch.manual_seed(0)
    head, mask, readout = head(), some_mask(), observe()
    actions = torch.rand(8, HORIZON, ACTIONS) * 2 - 1
    whole = head.loss(readout, actions, mask, generators(*range(8)))["loss"]
    total = 0
    for part in (slice(0, 3), slice(3, 8)):
        seeds = range(8)[part]
        total += (
            head.loss(rows(readout, part), actions[part], mask[part], generators(*seeds))["loss"] * mask[part].sum()
        )
    assert torch.allclose(total / mask.sum(), whole, rtol=1e-5)


@every_head
def test_saved_and_loaded_it_is_the_same_head(head, observe, tmp_path):
    torch.manual_seed(0)
    one, other = head(), head()
    save_file(one.state_dict(), tmp_path / "head.safetensors")
    different = other.sample(observe(), generators(*range(8)))
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    same = one.sample(observe(), generators(*range(8)))
    assert torch.equal(same, other.sample(observe(), generators(*range(8))))
    assert not torch.equal(same, different)


@every_head
def test_a_chunk_has_the_shape_that_was_asked_for(head, observe):
    chunk = head().sample(observe(5))
    assert chunk.shape == (5, HORIZON, ACTIONS) and chunk.dtype == torch.float32 and chunk.isfinite().all()


@every_head
def test_same_seed_same_chunk(head, observe):
    head = head()
    first, second = (head.sample(observe(), generators(*range(8))) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "name",
    ["mixture", "mixture of chunks", "token, drawn", "token, rt1", "fast, drawn", "diffusion", "diffusion, ddpm"],
)
def test_another_seed_another_chunk(name, observe):
    head = HEADS[name]()
    first, second = (head.sample(observe(), generators(*range(start, start + 8))) for start in (0, 100))
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_head
def test_a_row_does_not_depend_on_who_shares_its_batch(head, observe, rows):
    torch.manual_seed(0)
    head, readout = head(), observe()
    together = head.sample(readout, generators(*range(8)))
    for row in (0, 3, 7):
        alone = head.sample(rows(readout, slice(row, row + 1)), generators(row))
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    order = [5, 0, 7]
    assert torch.allclose(head.sample(rows(readout, order), generators(*order)), together[order], atol=1e-5)


@every_head
def test_the_loss_of_a_row_does_not_depend_on_who_shares_its_batch(head, observe, rows):
    torch.manual_seed(0)
    head, readout = head(), observe()
    actions, mask = torch.rand(8, HORIZON, ACTIONS), some_mask()
    one = torch.zeros(8, 1, dtype=torch.bool)
    one[3] = True
    alone = head.loss(rows(readout, [3]), actions[[3]], mask[[3]], generators(3))["loss"]
    assert torch.allclose(head.loss(readout, actions, mask & one, generators(*range(8)))["loss"], alone, rtol=1e-5)


@every_head
def test_history_that_does_not_exist_is_not_read(head, observe):
    head, readout = head(), observe()
    garbage = torch.where(readout.steps[:, :, None, None], readout.tokens, 1e3)
    chunk, other = (
        head.sample(dataclasses.replace(readout, tokens=tokens), generators(*range(8)))
        for tokens in (readout.tokens, garbage)
    )
    assert torch.equal(chunk, other)


@every_head
def test_the_loss_works_under_bfloat16_autocast(head, observe):
    head = head()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.loss(observe(), torch.rand(8, HORIZON, ACTIONS), some_mask())["loss"]
        chunk = head.sample(observe())
    loss.backward()
    assert loss.isfinite() and chunk.dtype == torch.float32


@every_head
def test_every_weight_gets_a_gradient(head, observe):
    head = head()
    head.loss(observe(), torch.rand(8, HORIZON, ACTIONS), some_mask())["loss"].backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "target, wrong, says",
    [
        ("mlp.MLPHead", {"horizon": 0}, "horizon must be at least 1"),
        ("mlp.MLPHead", {"gripper": 3}, "dimensions 0 to 2"),
        ("mlp.MLPHead", {"distance": "l3"}, "one of l1, l2, smooth_l1"),
        ("mlp.MLPHead", {"poolin": "mean"}, "did you mean 'pooling'"),
        ("mlp.MLPHead", {"pooling": "sum"}, "one of mean, max, flatten"),
        ("rnn.RNNHead", {"cell": "elman"}, "one of lstm, gru"),
        ("rnn.RNNHead", {"gripper": 3}, "RNNHead: gripper is dimension 3"),
        ("rnn.RNNHead", {"window": 0}, "window must be at least 1"),
        ("gpt.GPTHead", {"size": 10, "heads": 3}, "multiple of heads, got size=10, heads=3"),
        ("transformer.TransformerHead", {"attend": "all"}, "one of readout, steps, prefix"),
        ("transformer.TransformerHead", {"size": 12}, "multiple of 2 x heads, got size=12"),
        ("mixture.MixtureHead", {"per": "episode"}, "one of step, chunk"),
        ("mixture.MixtureHead", {"choose": "best"}, "one of draw, likeliest"),
        ("mixture.MixtureHead", {"modes": 0}, "got modes=0"),
        ("token.TokenHead", {"bins": 300}, "2 to 256"),
        ("token.TokenHead", {"temperature": -1}, "not be negative"),
        ("diffusion.DiffusionHead", {"sampler": "euler"}, "one of ddpm, ddim, dpm"),
        ("diffusion.DiffusionHead", {"prediction": "v"}, "one of epsilon, sample"),
        (
            "diffusion.DiffusionHead",
            {"train_steps": 100, "sample_steps": 30},
            r"must divide train_steps \(100\), got 30",
        ),
        ("diffusion.DiffusionHead", {"clip": 0}, "must be positive"),
    ],
)
def test_a_mistake_is_named(target, wrong, says):
    node = {"_target_": f"policies.heads.{target}", "width": WIDTH, "horizon": HORIZON, "action_dim": ACTIONS, **wrong}
    with pytest.raises(ValueError, match=says):
        build(node, (ActionHead,))


def test_a_readout_with_other_tokens_than_the_head_was_built_for_is_refused(observe):
    with pytest.raises(ValueError, match="built for 2 readout tokens, but got 1"):
        HEADS["mlp"]().sample(observe(tokens=1))
