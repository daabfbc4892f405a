"""Packed, padded on either side or alone: the same loss, the same gradients, and no sample knows another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.chat.packing import BestFit, best_fit
from embodied.lvlm.chat.pieces import IGNORED, Encoded
from embodied.lvlm.chat.rows import lay
from embodied.lvlm.chat.segments import segmented, use_segments
from embodied.lvlm.model import LVLM
from embodied.lvlm.positions import in_three_axes

LENGTHS = (9, 3, 6, 14, 1, 5)


def a_sample(length, seed=0):
    g = torch.Generator().manual_seed(seed * 1000 + length)
    ids = torch.randint(2, 60, (length,), generator=g).tolist()
    learned = [bool(x) for x in torch.rand(length, generator=g) > 0.4]
    labels = [i if x else IGNORED for i, x in zip(ids, learned, strict=True)]
    return Encoded(ids, labels, [False] * length)


SAMPLES = [a_sample(length) for length in LENGTHS]
PACKED = [[SAMPLES[i] for i in group] for group in best_fit(LENGTHS, 15)]


def a_backbone(family="llama", **options):
    torch.manual_seed(0)
    config = {
        "model_type": family,
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
    }
    return CausalBackbone(config | options).eval()


def loss_and_gradients(backbone, rows, segments=False):
    backbone.zero_grad()
    model = LVLM(backbone)
    if segments:
        with segmented(rows.spans):
            loss = model.loss(rows.batch())["loss"]
            loss.backward()
    else:
        loss = model.loss(rows.batch())["loss"]
        loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])


def one_by_one(backbone):
    """Without any of our masks, positions or padding: transformers' own pass of each sample."""
    backbone.zero_grad()
    total = sum(sum(label != IGNORED for label in sample.labels[1:]) for sample in SAMPLES)
    losses = []
    for sample in SAMPLES:
        logits = backbone.model(input_ids=torch.tensor([sample.ids]), use_cache=False).logits[0, :-1]
        labels = torch.tensor(sample.labels[1:], dtype=torch.long)
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / total
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum(), torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])


FAMILIES = {
    "llama": {},
    "qwen2": {},
    "gemma2": {"head_dim": 4, "sliding_window": 4, "query_pre_attn_scalar": 4},
    "mistral": {"sliding_window": 6},
    "phi3": {"pad_token_id": 0},
}


HOW = ("right", "left", "packed", "packed left", "segments")


@pytest.mark.parametrize(
    "family, how", [(f, how) for f in FAMILIES for how in HOW if (f, how) != ("gemma2", "segments")]
)
def test_loss_and_gradients_are_those_of_each_sample_alone(family, how):
    backbone = a_backbone(family, **FAMILIES[family])
    loss, gradients = one_by_one(backbone)
    groups = PACKED if "packed" in how or how == "segments" else [[sample] for sample in SAMPLES]
    rows = lay(groups, side="left" if "left" in how else "right")
    if how == "segments":
        use_segments(backbone.model)
    ours, ours_gradients = loss_and_gradients(backbone, rows, how == "segments")
    assert torch.allclose(ours, loss, atol=1e-6) and gradients.abs().max() > 1e-3
    assert (ours_gradients - gradients).abs().max() < 1e-6


@pytest.mark.parametrize("segments", [False, True])
def test_a_packed_sample_knows_no_other(segments):
    backbone = a_backbone()
    if segments:
        use_segments(backbone.model)
    rows = lay(PACKED)
    other = lay([[a_sample(len(s), seed=9) if s is PACKED[0][0] else s for s in group] for group in PACKED])

    def read(rows):
        embeddings = backbone.embed(rows.ids).detach().requires_grad_()
        batch = rows.batch()
        with segmented(rows.spans):
            logits = backbone.logits(backbone(embeddings, batch.mask, batch.positions)[0])
        return embeddings, logits

    (embeddings, before), (_, after) = read(rows), read(other)
    changed = rows.owners == rows.owners[0, 0]
    assert len({owner for owner in rows.owners[0].tolist() if owner >= 0}) > 1  # it has company in its row
    assert torch.equal(before[~changed], after[~changed]) and not torch.equal(before[changed], after[changed])
    before[changed].square().sum().backward()
    assert not embeddings.grad[~changed].any() and embeddings.grad[changed].any()


def test_without_the_mask_it_would_know_them():
    """What the tests above guard against: the same row read as one text."""
    backbone, rows = a_backbone(), lay(PACKED)
    plain = backbone.model(input_ids=rows.ids).logits
    batch = rows.batch()
    ours = backbone.logits(backbone(backbone.embed(rows.ids), batch.mask, batch.positions)[0])
    first = rows.owners == rows.owners[0, 0]
    assert torch.allclose(plain[first], ours[first], atol=1e-5)
    assert not torch.allclose(plain[rows.present & ~first], ours[rows.present & ~first], atol=1e-3)


def test_the_first_token_of_a_sample_is_never_learned():
    sample = Encoded([5, 6], [5, 6], [False, False])
    assert lay([[sample, sample]]).labels.tolist() == [[IGNORED, 6, IGNORED, 6]]


def test_positions_in_three_axes_are_those_of_each_sample_alone():
    sample = Encoded([1, 2, 0, 0, 0, 0, 3], [IGNORED] * 7, [False] * 2 + [True] * 4 + [False], ("a.jpg",))
    rows = lay([[sample, sample], [sample]], side="left")
    positions = rows.batch(axes=3, grids=[(2, 2)] * 3).positions
    slots = torch.tensor([sample.slots])
    alone = in_three_axes(slots, torch.ones_like(slots), [(2, 2)])[:, 0]
    for row, start, end in rows.spans:
        assert torch.equal(positions[:, row, start:end], alone)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 90))
def test_each_sample_is_packed_once_and_rows_are_never_overfull(lengths, capacity):
    groups = best_fit(lengths, capacity)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in group) <= capacity for group in groups)
    assert len(groups) <= 11 / 9 * -(-sum(lengths) // capacity) * 2 + 1  # half full at worst
    emptier = [sum(lengths[i] for i in group) for group in groups]
    assert sum(2 * total <= capacity for total in emptier) <= 1


@pytest.mark.parametrize(
    "mistake, says",
    [
        (lambda: best_fit([5, 30], 20), "a sample of 30 tokens does not fit into a row of 20"),
        (lambda: BestFit(0), "packing.tokens must be at least 1"),
        (lambda: BestFit(attention="flash"), "one of mask, segments, got 'flash'"),
        (lambda: lay([[SAMPLES[0]]], side="middle"), "on the left or right, not 'middle'"),
        (lambda: lay([]), "at least one conversation"),
        (lambda: use_segments(a_backbone("gemma2", **FAMILIES["gemma2"]).model), "Gemma2ForCausalLM has no sdpa"),
    ],
)
def test_a_mistake_is_named(mistake, says):
    with pytest.raises(ValueError, match=says):
        mistake()
