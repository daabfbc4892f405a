"""Action tokens follow OpenVLA's conventions and are decoded as they were learned."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.heads.binning import OpenVLABinning, RT1Binning
from policies.heads.token import TokenHead

BINNING = OpenVLABinning(1, 256)


def openvla_encode(action, vocabulary):
    """`ActionTokenizer.__call__` of the official code, without its text tokenizer."""
    return vocabulary - np.digitize(np.clip(action, -1.0, 1.0), np.linspace(-1, 1, 256))


def openvla_decode(ids, vocabulary):
    """`ActionTokenizer.decode_token_ids_to_actions` of the official code."""
    bins = np.linspace(-1, 1, 256)
    centers = (bins[:-1] + bins[1:]) / 2.0
    return centers[np.clip(vocabulary - ids - 1, a_min=0, a_max=centers.shape[0] - 1)]


@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=50), st.sampled_from([300, 32000]))
def test_bins_are_those_of_openvla(numbers, vocabulary):
    actions = np.array(numbers, dtype=np.float32)
    ids = vocabulary - 256 + BINNING.encode(torch.from_numpy(actions))
    assert np.array_equal(ids.numpy(), openvla_encode(actions, vocabulary))
    assert np.allclose(BINNING.decode(ids - vocabulary + 256), openvla_decode(ids.numpy(), vocabulary), atol=1e-7)


def test_bins_are_those_of_openvla_on_and_beside_every_edge():
    edges = np.linspace(-1, 1, 256).astype(np.float32)
    actions = np.concatenate([edges, np.nextafter(edges, np.float32(2)), np.nextafter(edges, np.float32(-2))])
    ids = 1000 - 256 + BINNING.encode(torch.from_numpy(actions))
    assert np.array_equal(ids.numpy(), openvla_encode(actions, 1000))


def test_all_256_bins_occur():
    assert BINNING.encode(torch.linspace(-1, 1, 5000)).unique().tolist() == list(range(256))


def test_a_number_survives_its_bin_to_half_a_bin():
    numbers = torch.linspace(-1, 1, 1001)
    assert (BINNING.decode(BINNING.encode(numbers)) - numbers).abs().max() <= 1 / 255 + 1e-6


def rt1_encode(action, vocab_size):
    """`RT1ActionTokenizer.tokenize` of the official code, for bounds -1 and 1."""
    scaled = (np.clip(action, np.float32(-1), np.float32(1)) - np.float32(-1)) / np.float32(2)
    return (scaled * np.float32(vocab_size - 1)).astype(np.int32)


@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=50), st.sampled_from([2, 17, 256]))
def test_bins_are_those_of_rt1_which_truncates(numbers, bins):
    actions = np.array(numbers, dtype=np.float32)
    binning = RT1Binning(len(actions), bins)
    encoded = binning.encode(torch.from_numpy(actions))
    assert np.array_equal(encoded.numpy(), rt1_encode(actions, bins))
    decoded = encoded.numpy().astype(np.float32) / (bins - 1) * 2 - 1
    assert np.allclose(binning.decode(encoded), decoded, atol=1e-6)


def test_rt1_and_openvla_read_the_top_and_the_middle_differently():
    numbers = torch.tensor([[1.0], [0.0], [-1.0]])
    assert RT1Binning(1).encode(numbers).flatten().tolist() == [255, 127, 0]
    assert RT1Binning(1).decode(torch.tensor([[255], [0]])).flatten().tolist() == [1.0, -1.0]
    assert BINNING.decode(BINNING.encode(numbers)).flatten().tolist() == pytest.approx([1 - 1 / 255, 0, -1 + 1 / 255])


def test_a_one_hot_choice_is_one_token_and_a_token_that_is_no_choice_reads_as_the_first():
    binning = RT1Binning(5, 256, one_hot=[[1, 2, 3]])
    actions = torch.tensor([[0.5, 0, 0, 1, -1], [1, 0, 1, 0, 1]])
    bins = binning.encode(actions)
    assert binning.slots == 3 and bins.tolist() == [[191, 2, 0], [255, 1, 255]]
    assert binning.decode(bins)[:, 1:4].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert binning.decode(torch.tensor([[0, 3, 0], [0, 255, 0]]))[:, 1:4].tolist() == [[1, 0, 0]] * 2


def test_a_chunk_with_a_one_hot_choice_is_spoken_and_understood(observe):
    torch.manual_seed(0)
    head = TokenHead(16, 2, 5, 2, binning="rt1", one_hot=[[1, 2, 3]], decoding="parallel")
    chunk = head.sample(observe())
    assert chunk.shape == (8, 2, 5) and (chunk[..., 1:4].sum(-1) == 1).all()
    assert head.loss(observe(), chunk, torch.ones(8, 2, dtype=torch.bool))["token_l1"] < 1e-6


def test_parallel_decoding_asks_the_language_model_once_and_its_placeholders_see_one_another(observe, language_model):
    torch.manual_seed(0)
    head, readout, calls = TokenHead(16, 4, 3, 2, decoding="parallel"), observe(), []
    language_model.key.register_forward_hook(lambda *_: calls.append(1))
    head.sample(readout)
    assert len(calls) == 1
    with torch.no_grad():
        logits = readout.prefix.logits(head._answers(readout.prefix, readout))
        head.placeholders[-1] += 1
        moved = readout.prefix.logits(head._answers(readout.prefix, readout))
    assert (logits[:, 0] - moved[:, 0]).abs().max() > 1e-4  # the first token hears of the last placeholder


def test_parallel_decoding_takes_the_tokens_its_loss_finds_likeliest(observe):
    torch.manual_seed(0)
    head, readout = TokenHead(16, 4, 3, readout_tokens=2, decoding="parallel"), observe()
    shown = head.loss(readout, head.sample(readout), torch.ones(8, 4, dtype=torch.bool))
    assert shown["token_accuracy"] == 1 and shown["token_l1"] < 1e-6


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"decoding": "fast"}, "one of autoregressive, parallel, got 'fast'"),
        ({"binning": "rt2"}, "one of openvla, rt1, got 'rt2'"),
        ({"one_hot": [[0, 1]]}, "choose binning=rt1"),
        ({"binning": "rt1", "one_hot": [[2, 3]]}, "one_hot has 3, but an action has dimensions 0 to 2"),
        ({"binning": "rt1", "one_hot": [[0, 1], [1, 2]]}, "in one_hot twice"),
        ({"binning": "rt1", "one_hot": [[0]]}, "has 2 to 256 dimensions"),
    ],
)
def test_what_cannot_be_binned_is_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        TokenHead(16, 4, 3, **wrong)


def test_cached_greedy_decoding_takes_the_tokens_that_one_pass_over_the_sentence_finds_likeliest(observe):
    torch.manual_seed(0)
    head, readout = TokenHead(16, 4, 3, readout_tokens=2), observe()
    chunk = head.sample(readout)
    shown = head.loss(readout, chunk, torch.ones(8, 4, dtype=torch.bool))
    assert shown["token_accuracy"] == 1 and shown["token_l1"] < 1e-6


def test_the_loss_is_the_language_models_own_surprise_at_the_sentence(observe):
    """Written out token by token with the cache, where the head does it in one pass."""
    torch.manual_seed(0)
    head, readout = TokenHead(16, 2, 2, readout_tokens=2), observe()
    actions = torch.rand(8, 2, 2) * 2 - 1
    ids = torch.from_numpy(openvla_encode(actions.numpy(), 300)).flatten(1)
    prefix, surprise = readout.prefix, torch.zeros(8)
    token = head.opening(readout.last.flatten(1)).unsqueeze(1)
    for i in range(4):
        hidden, prefix = prefix.extend(token)
        surprise -= prefix.logits(hidden[:, -1]).log_softmax(-1).gather(1, ids[:, i : i + 1]).squeeze(1)
        token = prefix.embed(ids[:, i : i + 1])
    loss = head.loss(readout, actions, torch.ones(8, 2, dtype=torch.bool))["loss"]
    assert torch.allclose(loss, surprise.mean() / 4, rtol=1e-5)


def test_it_says_nothing_but_actions_even_when_words_are_likelier(language_model, observe):
    with torch.no_grad():
        language_model.speak.bias[:44] += 100.0
    chunk = TokenHead(16, 4, 3, 2, temperature=1.0).sample(observe())
    assert (chunk.flatten().unsqueeze(1) == BINNING.centres).any(1).all()


def test_drawn_tokens_follow_the_models_shares(language_model, observe, rows):
    with torch.no_grad():
        language_model.speak.weight.zero_()
        language_model.speak.bias.fill_(-100.0)
        language_model.speak.bias[-1], language_model.speak.bias[-255] = np.log(0.25), np.log(0.75)
    head = TokenHead(16, 1, 1, 2, temperature=1.0)
    generators = [torch.Generator().manual_seed(seed) for seed in range(1000)]
    drawn = head.sample(rows(observe(1), [0] * 1000), generators).flatten()
    assert drawn.unique().tolist() == pytest.approx([-1 + 1 / 255, 1 - 1 / 255])
    assert abs((drawn < 0).float().mean() - 0.25) < 4 * (0.25 * 0.75 / 1000) ** 0.5


def test_without_a_prefix_or_room_in_the_vocabulary_it_says_so(language_model, observe):
    with pytest.raises(ValueError, match="without its prefix"):
        TokenHead(16, 4, 3, 2).sample(dataclasses.replace(observe(), prefix=None))
    language_model.words = torch.nn.Embedding(256, 16)
    with pytest.raises(ValueError, match="256 token ids of its own, but the vocabulary has 256"):
        TokenHead(16, 4, 3, 2).sample(observe())
