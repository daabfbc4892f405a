"""FAST tokens are those of an independent implementation, survive the round trip, and always make a whole chunk."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.fft import dct, idct
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, trainers

from embodied.agent import Agent, create_agent
from embodied.building import build
from embodied.contracts import ActionHead
from embodied.spec import ActionSpec, Embodiment, StateSpec
from policies.heads.fast import FastCodec, FastHead, cosines, hold

HORIZON, ACTIONS = 8, 3


def motions(count=400, horizon=HORIZON, actions=ACTIONS, seed=0):
    """Smooth chunks in [-1, 1], as quantile normalisation leaves them."""
    generator = np.random.default_rng(seed)
    time = np.linspace(0, 1, horizon)[None, :, None]
    pace, phase = generator.uniform(0.5, 4, (count, 1, actions)), generator.uniform(0, 6.3, (count, 1, actions))
    return (np.sin(pace * time + phase) + 0.02 * generator.normal(size=(count, horizon, actions))).astype(np.float32)


class Published:
    """The published processor, written out: `fit`, `__call__` and `decode` of `UniversalActionProcessor`."""

    def __init__(self, chunks, vocabulary, scale, splitting=False):
        self.scale, coefficients = scale, [np.around(dct(chunk, axis=0, norm="ortho") * scale) for chunk in chunks]
        self.lowest = int(min(c.min() for c in coefficients))
        highest = int(max(c.max() for c in coefficients))
        self.bpe = ByteLevelBPETokenizer()._tokenizer if splitting else Tokenizer(models.BPE())
        alphabet = [chr(i) for i in range(highest - self.lowest + 1)]
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, min_frequency=2, special_tokens=[], initial_alphabet=alphabet,
            max_token_length=10000, show_progress=False,
        )  # fmt: skip
        self.bpe.train_from_iterator((self._text(c) for c in coefficients), trainer)

    def _text(self, coefficients):
        return "".join(map(chr, np.maximum(coefficients.flatten() - self.lowest, 0).astype(int)))

    def __call__(self, chunk):
        return self.bpe.encode(self._text(np.around(dct(chunk, axis=0, norm="ortho") * self.scale))).ids

    def decode(self, ids, shape):
        text = "".join(self.bpe.id_to_token(i) for i in ids)
        return idct(np.array([ord(c) + self.lowest for c in text]).reshape(shape) / self.scale, axis=0, norm="ortho")


def fitted(chunks=None, vocabulary=256, scale=10.0, **options):
    chunks = torch.from_numpy(motions() if chunks is None else chunks)
    head = FastHead(16, chunks.shape[1], chunks.shape[2], 2, vocabulary=vocabulary, scale=scale, **options)
    head.fit(chunks, torch.ones(chunks.shape[:2], dtype=torch.bool))
    return head


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_the_cosine_transform_is_scipys(size):
    numbers = np.random.default_rng(0).normal(size=(size, 4))
    assert np.allclose(cosines(size).numpy() @ numbers, dct(numbers, axis=0, norm="ortho"))


@pytest.mark.parametrize("vocabulary, scale", [(128, 4.0), (512, 10.0)])
def test_tokens_and_actions_are_those_of_the_published_processor(vocabulary, scale):
    chunks = motions()
    codec, theirs = fitted(chunks, vocabulary, scale).codec, Published(chunks, vocabulary, scale)
    for chunk, ids in zip(chunks[:100], codec.encode(torch.from_numpy(chunks[:100])), strict=True):
        assert ids == theirs(chunk)
        assert np.allclose(codec.decode(ids), theirs.decode(ids, chunk.shape), atol=1e-6)


def test_merging_across_the_chunk_takes_no_more_tokens_than_the_published_splitter():
    chunks = motions(1000)
    codec, theirs = fitted(chunks, 512).codec, Published(chunks, 512, 10.0, splitting=True)
    ours = sum(map(len, codec.encode(torch.from_numpy(chunks))))
    assert ours <= sum(len(theirs(chunk)) for chunk in chunks)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.01, 1.0))
def test_any_chunk_of_the_alphabet_survives_up_to_rounding(seed, size):
    codec = CODEC
    chunks = torch.from_numpy(size * motions(5, seed=seed))
    read = torch.stack([codec.decode(ids) for ids in codec.encode(chunks)])
    # The transform is orthonormal, so the squared error of a chunk is that of its rounded coefficients.
    assert ((read - chunks).square().sum(dim=(1, 2)) <= HORIZON * ACTIONS * (0.5 / 10) ** 2 + 1e-6).all()


CODEC = fitted().codec


def test_finer_scales_say_more_exactly_and_take_more_tokens():
    chunks = motions(800, horizon=16, actions=4)
    errors, tokens = [], []
    for scale in (2.0, 5.0, 10.0, 20.0):
        codec = fitted(chunks, 1024, scale).codec
        ids = codec.encode(torch.from_numpy(chunks))
        errors.append(float(np.abs(torch.stack([codec.decode(i) for i in ids]).numpy() - chunks).mean()))
        tokens.append(np.mean([len(i) for i in ids]))
        print(f"scale {scale:4.0f}: mean error {errors[-1]:.4f}, {tokens[-1]:.1f} tokens for {16 * 4} numbers")
    assert errors == sorted(errors, reverse=True) and tokens == sorted(tokens)
    assert tokens[2] < 16 * 4 / 2 and errors[2] < 0.03


def test_what_it_learned_travels_with_the_weights(tmp_path):
    chunks = torch.from_numpy(motions(20, seed=1))
    one, other = fitted(), FastHead(16, HORIZON, ACTIONS, 2, vocabulary=256)
    with pytest.raises(ValueError, match="no tokens yet"):
        other.codec.encode(chunks)
    save_file(one.state_dict(), tmp_path / "head.safetensors")
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert other.codec.encode(chunks) == one.codec.encode(chunks)
    save_file(fitted(motions(seed=2)).state_dict(), tmp_path / "head.safetensors")
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))  # what was remembered of the old ones is dropped
    assert other.codec.encode(chunks) != one.codec.encode(chunks)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_constrained_sentence_is_always_a_whole_chunk(temperature, observe):
    torch.manual_seed(0)
    head = fitted(temperature=temperature)
    with torch.no_grad():
        head.speak.weight.mul_(20)  # an untrained model that is sure of itself
    chunk = head.sample(observe(), [torch.Generator().manual_seed(i) for i in range(8)])
    assert chunk.isfinite().all() and head.unreadable == 0


def test_an_unconstrained_sentence_that_is_no_chunk_is_counted_and_nan(observe):
    torch.manual_seed(0)
    head = fitted(constrained=False, temperature=1.0)
    with torch.no_grad():
        head.speak.weight.zero_()  # any token is as likely as any other: hardly a sentence has the right length
    chunk = head.sample(observe(), [torch.Generator().manual_seed(i) for i in range(8)])
    wrong = chunk.isnan().flatten(1)
    assert (wrong.all(dim=1) == wrong.any(dim=1)).all() and 0 < wrong.all(dim=1).sum() == head.unreadable


def test_a_trained_model_ends_its_sentences_itself(observe, language_model):
    torch.manual_seed(0)
    chunks = torch.from_numpy(motions(8))
    head, mask = fitted(constrained=False), torch.ones(8, HORIZON, dtype=torch.bool)
    optimiser = torch.optim.Adam([*head.parameters(), *language_model.parameters()], 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        head.loss(observe(), chunks, mask)["loss"].backward()
        optimiser.step()
    shown = head.loss(observe(), chunks, mask)
    assert shown["token_accuracy"] == 1 and shown["chunk_tokens"] < HORIZON * ACTIONS
    rounded = torch.stack([head.codec.decode(ids) for ids in head.codec.encode(chunks)])
    assert torch.equal(head.sample(observe()), rounded) and head.unreadable == 0
    head.constrained = True
    assert torch.equal(head.sample(observe()), rounded)


def test_past_an_episodes_end_the_last_action_is_held():
    actions = torch.arange(6.0).view(2, 3, 1)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert hold(actions.masked_fill(~mask.unsqueeze(-1), torch.nan), mask).flatten().tolist() == [0, 1, 1, 0, 0, 0]
    assert hold(actions, torch.tensor([[False, True, False]] * 2)).flatten().tolist() == [1, 1, 1, 4, 4, 4]


def test_padding_is_no_chunk_to_learn_from():
    chunks = torch.from_numpy(motions(50))
    mask = torch.ones(50, HORIZON, dtype=torch.bool)
    mask[40:] = False
    one, other = (FastHead(16, HORIZON, ACTIONS, 2, vocabulary=256) for _ in range(2))
    one.fit(chunks[:40], mask[:40])
    other.fit(chunks.masked_fill(~mask.unsqueeze(-1), torch.nan), mask)
    assert torch.equal(one.codec.merges, other.codec.merges) and torch.equal(one.codec.alphabet, other.codec.alphabet)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"vocabulary": 1}, "vocabulary must be at least 2"),
        ({"scale": 0}, "scale positive"),
        ({"temperature": -1}, "not be negative"),
        ({"vocabulry": 7}, "did you mean 'vocabulary'"),
    ],
)
def test_a_mistake_is_named(wrong, says):
    sizes = {"width": 16, "horizon": HORIZON, "action_dim": ACTIONS}
    with pytest.raises(ValueError, match=says):
        build({"_target_": "policies.heads.fast.FastHead", **sizes, **wrong}, (ActionHead,))


def test_data_that_needs_more_tokens_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"more values than the vocabulary of 256 has tokens: normalise actions"):
        fitted(100 * motions(20))
    with pytest.raises(ValueError, match="not one chunk"):
        FastCodec(2, 2, 10, 1.0).fit(torch.zeros(0, 2, 2), 10)


def test_what_a_row_draws_next_does_not_depend_on_how_long_others_spoke(observe, rows):
    torch.manual_seed(0)
    head = fitted(temperature=1.0)
    generators = [torch.Generator().manual_seed(i) for i in range(8)]
    together = [head.sample(observe(), generators) for _ in range(2)]
    for row in (0, 5):
        generator = [torch.Generator().manual_seed(row)]
        for chunk in together:
            assert torch.equal(head.sample(rows(observe(), [row]), generator)[0], chunk[row])


def test_an_agent_learns_its_tokens_from_the_chunks_it_will_be_trained_on_and_keeps_them(tmp_path):
    body = Embodiment(
        "arm", ActionSpec(("x", "y"), ("m", "m"), (-9.0,) * 2, (9.0,) * 2), StateSpec(("a",), ("1",)), (), rate=10
    )
    random = np.random.default_rng(0)
    ends, moves = np.array([30, 75]), 5 + 3 * random.normal(size=(75, 2)).cumsum(axis=0).astype(np.float32)
    columns = {"action": moves, "observation.state": random.normal(size=(75, 1)).astype(np.float32)}
    normalize = {"_target_": "embodied.processing.normalize.Normalize", "key": "action", "mode": "quantiles"}
    backbone = {
        "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "intermediate_size": 32,
    }  # fmt: skip
    config = {
        "model": {
            "encoder": None,
            "connector": None,
            "order": ["task", "state"],
            "backbone": {"_target_": "embodied.lvlm.backbones.causal.CausalBackbone", "config": backbone},
            "state": {"_target_": "embodied.lvlm.encoders.state.StateEncoder", "hidden": 0},
        },
        "head": {"_target_": "policies.heads.fast.FastHead", "vocabulary": 300, "temperature": 1.0},
        "processing": {"actions": normalize},
        "execution": {"_target_": "policies.execution.RecedingHorizon"},
        "chunk": {"history": 1, "horizon": 6},
    }
    agent = create_agent(config, body, ["go"], columns, ends).eval()
    low, high = np.quantile(moves.astype(np.float64), (0.01, 0.99), axis=0)
    chunks = [
        (moves[np.minimum(np.arange(t, t + 6), 29 if t < 30 else 74)] - low) / (high - low) * 2 - 1 for t in range(75)
    ]
    coefficients = np.around(10 * dct(np.stack(chunks), axis=1, norm="ortho"))
    lowest, count = agent.head.codec.alphabet.tolist()
    assert (lowest, count) == (coefficients.min(), coefficients.max() - coefficients.min() + 1)
    agent.save_pretrained(tmp_path)
    batch = {"observation.state": torch.zeros(3, 1, 1), "observation_is_pad": torch.zeros(3, 1, dtype=torch.bool)}
    batch |= {"task": ["go"] * 3}
    chunk, other = (
        a.predict(batch, [torch.Generator().manual_seed(i) for i in range(3)])
        for a in (agent, Agent.from_pretrained(tmp_path))
    )
    assert chunk.isfinite().all() and torch.equal(chunk, other)
