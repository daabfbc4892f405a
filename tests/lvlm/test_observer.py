"""The observer reads what is there, nothing that is not, and can be continued from its prefix."""

import pytest
import torch

from embodied.lvlm.observer import Observer
from embodied.lvlm.tokenizers.text import TextTokenizer

BACKBONE = {
    "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
    "config": {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "tie_word_embeddings": True,
    },
}
MODEL = {
    "encoder": {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [8, 16, 16, 16]},
    "connector": {"_target_": "embodied.lvlm.connectors.resampler.PerceiverResampler", "queries": 3, "heads": 2},
    "backbone": BACKBONE,
    "state": {"_target_": "embodied.lvlm.encoders.state.StateEncoder", "hidden": 8},
}
TASKS = ["press the button", "open the door of the house"]


def a_model(cameras=("front", "hand"), history=1, seed=0, **options):
    torch.manual_seed(seed)
    tokenizer = TextTokenizer.train(TASKS, 300)
    return Observer.from_config(MODEL | options, tokenizer, cameras, state_dim=4, history=history).eval()


def a_batch(rows=2, history=1, cameras=("front", "hand"), size=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    frames = {
        f"observation.images.{c}": torch.randint(0, 256, (rows, history, size, size, 3), generator=g, dtype=torch.uint8)
        for c in cameras
    }
    return frames | {
        "observation.state": torch.randn(rows, history, 4, generator=g),
        "observation_is_pad": torch.zeros(rows, history, dtype=torch.bool),
        "task": [TASKS[i % 2] for i in range(rows)],
    }


def rows_of(batch, rows):
    return {k: [v[i] for i in rows] if isinstance(v, list) else v[rows] for k, v in batch.items()}


@pytest.mark.parametrize("attention", ["bidirectional", "causal", "stepwise", "framewise"])
@pytest.mark.parametrize("history", [1, 3])
def test_a_row_does_not_depend_on_its_neighbours_or_their_padding(attention, history):
    model, batch = a_model(history=history, attention=attention), a_batch(rows=4, history=history)
    together = model(batch).last
    for row in range(4):  # alone, the short instruction has no padding at all
        assert torch.allclose(model(rows_of(batch, [row])).last[0], together[row], atol=1e-5)


def test_every_input_reaches_the_readout():
    model, batch = a_model(history=2), a_batch(history=2)
    before = model(batch).last
    changes = {
        "observation.images.front": lambda x: 255 - x,
        "observation.images.hand": lambda x: 255 - x,
        "observation.state": lambda x: x + 1,
        "task": lambda x: x[::-1],
    }
    for key, change in changes.items():
        assert (model(batch | {key: change(batch[key])}).last - before).abs().max() > 1e-5, key


def test_frames_before_the_episode_began_are_never_seen():
    model, batch = a_model(history=3), a_batch(history=3)
    batch["observation_is_pad"][:, 0] = True
    other = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    other["observation.images.front"][:, 0] = 255
    other["observation.state"][:, 0] = 1e3
    assert torch.equal(model(batch).last, model(other).last)


def test_stepwise_readouts_never_look_ahead():
    model, batch = a_model(history=3, attention="stepwise"), a_batch(history=3)
    later = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    later["observation.state"][:, 2] += 5
    before, after = model(batch).tokens, model(later).tokens
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.allclose(before[:, 2], after[:, 2])


def test_framewise_readouts_are_those_of_each_frame_by_itself():
    model, batch = a_model(history=3, attention="framewise"), a_batch(history=3)
    readout = model(batch)
    assert readout.tokens.shape == (2, 3, 1, model.width) and readout.prefix is None and model.ages is None
    alone = a_model(history=1)
    alone.load_state_dict(model.state_dict())
    for step in range(3):
        frame = {k: v[:, step : step + 1] if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        assert torch.allclose(readout.tokens[:, step], alone(frame).last, atol=1e-5)
        assert torch.allclose(model(frame).last, alone(frame).last, atol=1e-6)  # any number of frames may be given


def test_the_prefix_offers_the_hidden_states_it_was_read_with():
    model, batch = a_model(), a_batch()
    packed, _ = model.read(batch)
    hidden, _ = model.backbone(packed.tokens, packed.mask, packed.positions)
    prefix = model(batch).prefix
    assert torch.allclose(prefix.hidden, hidden, atol=1e-6)
    new, longer = prefix.extend(torch.randn(2, 3, model.width))
    assert (
        torch.equal(longer.hidden, torch.cat([prefix.hidden, new], 1))
        and longer.present.shape[1] == longer.hidden.shape[1]
    )


def test_swapping_cameras_matters_although_they_share_an_encoder():
    model, batch = a_model(), a_batch()
    swapped = batch | {
        "observation.images.front": batch["observation.images.hand"],
        "observation.images.hand": batch["observation.images.front"],
    }
    assert (model(batch).last - model(swapped).last).abs().max() > 1e-5


def test_the_prefix_is_causal_like_the_language_model_itself():
    model, batch = a_model(attention="causal"), a_batch(rows=1)
    packed, _ = model.read(batch)
    hidden, _ = model.backbone(packed.tokens, packed.mask, packed.positions)
    reference = model.backbone.model.base_model(inputs_embeds=packed.tokens).last_hidden_state
    assert torch.allclose(hidden, reference, atol=1e-6)


def test_extending_a_prefix_in_pieces_is_one_pass():
    model, batch = a_model(attention="causal"), a_batch(rows=2)
    prefix = model(batch).prefix
    new = torch.randn(2, 5, model.width, generator=torch.Generator().manual_seed(1))
    whole, _ = prefix.extend(new)
    first, longer = prefix.extend(new[:, :2])
    rest, _ = longer.extend(new[:, 2:])
    assert torch.allclose(torch.cat([first, rest], 1), whole, atol=1e-5)
    again, _ = prefix.extend(new)  # the prefix was left as it was
    assert torch.equal(again, whole)


def test_gradients_flow_through_the_prefix_into_the_encoder():
    model = a_model()
    hidden, _ = model(a_batch()).prefix.extend(torch.randn(2, 3, model.width))
    hidden.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoders.parameters())


def test_the_observation_passes_the_backbone_once_however_often_it_is_continued(monkeypatch):
    model, seen = a_model(), []
    forward = model.backbone.forward
    monkeypatch.setattr(model.backbone, "forward", lambda *a, **k: (seen.append(a[0].shape[1]), forward(*a, **k))[1])
    prefix = model(a_batch()).prefix
    length = seen[0]
    for _ in range(4):
        prefix.extend(torch.randn(2, 1, model.width))
    assert seen == [length, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"order": ["task", "image"]}, "did you mean 'images'"),
        ({"conector": {}}, "did you mean 'connector'"),
        ({"attention": "casual"}, "one of bidirectional, causal, stepwise, framewise"),
        ({"backbone": BACKBONE | {"config": {"model_type": "lama"}}}, "causal 'lama'"),
        ({"connector": MODEL["connector"] | {"querys": 3}}, "did you mean 'queries'"),
    ],
)
def test_a_mistake_is_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        a_model(**wrong)(a_batch())


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi", "opt", "mistral"])
def test_any_causal_model_of_transformers_is_a_backbone(family):
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if family == "opt":
        size = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "word_embed_proj_dim": 32,
        }
    if family in ("qwen2", "mistral"):
        size["num_key_value_heads"] = 2
    model = a_model(backbone={"_target_": BACKBONE["_target_"], "config": {"model_type": family, **size}})
    readout = model(a_batch())
    assert readout.last.shape == (2, 1, 32) and readout.prefix.vocabulary == len(model.tokenizer) + 256
