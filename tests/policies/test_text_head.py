"""Actions in words: spelled by any tokenizer, learned, limited to what can be read, and read without evaluating."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from embodied.agent import Agent, create_agent
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.spec import ActionSpec, Embodiment, StateSpec
from policies.heads.text import TextHead
from policies.heads.wording import Named, make_wording

HORIZON = 2
ARM = ActionSpec(("x", "y", "gripper"), ("m", "m", "1"), (-1.0,) * 3, (1.0,) * 3, gripper=2, gripper_closed=-1)
PLAIN = ActionSpec(("x", "y", "z"), ("m",) * 3, (-1.0,) * 3, (1.0,) * 3)
SKILLS = ActionSpec(("turn", "turn left", "go"), ("1",) * 3, (0.0,) * 3, (1.0,) * 3, "categorical", "none", "none")
FORMS = {
    "integers": (PLAIN, {"form": "integers", "bins": 256}),
    "named": (ARM, {"form": "named", "bins": 21}),
    "names": (SKILLS, {}),
}


def learned(action=PLAIN, vocabulary=300, **options):
    """A tokenizer as `create_agent` trains it."""
    return TextTokenizer.train(["press the button", *TextHead.phrases(action, options)], vocabulary)


def sentencepiece():
    """A tokenizer in the manner of Llama's: single digits, spaces as a visible letter, no word begins without one."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *"0123456789+-;", *"abcdefghijklmnopqrstuvwxyz", "▁a"]
    bpe = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [("▁", "a")], unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", eos_token="</s>"))


def a_head(kind, tokenizer=None, **options):
    action, chosen = FORMS[kind]
    chosen = chosen | options
    dims = 1 if kind == "names" else 3
    return TextHead(16, HORIZON, dims, 2, action=action, tokenizer=tokenizer or learned(action, **chosen), **chosen)


def some_actions(form, rows=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    if form == "names":
        return torch.randint(3, (rows, HORIZON, 1), generator=random).float()
    return torch.rand(rows, HORIZON, 3, generator=random) * 2 - 1


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


every_form = pytest.mark.parametrize("form", FORMS)


def test_actions_are_called_as_rt2_and_people_call_them():
    integers = make_wording("integers", PLAIN, 256)
    assert integers.say(integers.encode(torch.tensor([[1.0, 0.0, -1.0]])).tolist()) == "255 127 0"
    terminate = make_wording("integers", dataclasses.replace(PLAIN, names=("end", "on", "x")), 256, [[0, 1]])
    chunk = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, -0.5]])
    assert terminate.say(terminate.encode(chunk).tolist()) == "1 191 0 63"
    named = make_wording("named", ARM, 201)
    chunk = torch.tensor([[0.35, -0.1, -1.0], [0.0, 1.0, 1.0]])
    assert named.say(named.encode(chunk).tolist()) == "x +35 y -10 gripper close x 0 y +100 gripper open"
    assert torch.allclose(named.decode(named.encode(chunk)), chunk, atol=1e-6)
    names = make_wording("named", SKILLS, 201)
    assert names.say([[1], [2]]) == "turn left; go;" and names.read("turn left; go;", 2) == [[1], [2]]


@given(st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6), st.sampled_from(["integers", "named"]))
def test_any_chunk_is_read_as_it_was_said_to_half_a_step(numbers, form):
    wording = make_wording(form, PLAIN, 201)
    chunk = torch.tensor(numbers).view(2, 3)
    read = wording.decode(torch.tensor(wording.read(wording.say(wording.encode(chunk).tolist()), 2)))
    assert (read - chunk).abs().max() <= (1 / 200 if form == "named" else 1 / 100) + 1e-6


@settings(max_examples=200)
@given(st.text(alphabet="0123456789 +-xyz;'()_.", max_size=30))
def test_what_is_no_chunk_is_not_read(text):
    wording = make_wording("integers", PLAIN, 256)
    words = text.split()
    valid = len(words) == 3 and all(w.isascii() and w.isdecimal() and str(int(w)) == w and int(w) < 256 for w in words)
    assert (wording.read(text, 1) is not None) == valid


def test_nothing_that_is_said_is_evaluated():
    for text in ("__import__('os')", "1 2 3 4", "1 2", "1 2 256", "1 2 +3", "1 2 3.0", "1 2 0x3", "1 2 ٣", ""):
        assert make_wording("integers", PLAIN, 256).read(text, 1) is None


@every_form
@pytest.mark.parametrize("made", ["learned", "sentencepiece"])
def test_every_tokenizer_spells_what_is_read_back(form, made):
    head = a_head(form, sentencepiece() if made == "sentencepiece" else None)
    actions = some_actions(form, rows=50)
    ids, _ = head._sentences(head.wording.encode(actions))
    read = torch.stack([head._read([i for i in row if i >= 0][:-1]) for row in ids.tolist()])
    assert torch.equal(read, head.wording.decode(head.wording.encode(actions)))


def test_a_tokenizer_trained_for_it_has_one_token_per_integer():
    action, options = FORMS["integers"]
    tokenizer = learned(action, 1024, **options)
    assert all(len(tokenizer.spell(str(number))) == 1 for number in range(256))


@every_form
def test_its_loss_is_the_surprise_at_the_text_word_by_word(form, observe):
    """Written out with the tokenizer on the whole text, row by row, padding left out."""
    torch.manual_seed(0)
    head, readout, actions = a_head(form), observe(), some_actions(form)
    mask = torch.tensor([[True, True], [True, False]] * 4)
    total, slots = 0.0, head.slots
    for row in range(8):
        steps = int(mask[row].sum())
        text = head.wording.say(head.wording.encode(actions[row, :steps]).tolist())
        ids = head.tokenizer.spell(text) + ([head.tokenizer.end] if steps == HORIZON else [])
        prefix = readout.prefix
        prefix = type(prefix)(prefix.model, [prefix.keys[0][[row]]], [prefix.values[0][[row]]], prefix.present[[row]])
        opening = head.opening(readout.last.flatten(1))[row].view(1, 1, -1)
        hidden, _ = prefix.extend(torch.cat([opening, prefix.embed(torch.tensor([ids[:-1]]))], dim=1))
        shares = prefix.logits(hidden)[0].log_softmax(-1)
        total -= shares[range(len(ids)), ids].sum()
    loss = head.loss(readout, actions, mask)["loss"]
    assert torch.allclose(loss, total / (12 * slots), rtol=1e-5)


@every_form
def test_whatever_the_model_prefers_a_constrained_text_can_be_read(form, observe, language_model):
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            language_model.speak.weight.normal_(std=3)
        head = a_head(form, temperature=float(seed > 0))
        chunk = head.sample(observe(), seeds(*range(8)))
        assert chunk.isfinite().all() and head.unreadable == 0
        assert torch.equal(head.wording.decode(head.wording.encode(chunk)), chunk) or form == "integers"


@every_form
def test_an_unconstrained_text_that_cannot_be_read_is_counted_and_nan(form, observe):
    torch.manual_seed(0)
    head = a_head(form, constrained=False, temperature=1.0)
    chunk = head.sample(observe(), seeds(*range(8)))
    assert chunk.isnan().all() and head.unreadable == 8


def test_a_token_that_is_no_word_makes_a_text_unreadable():
    head = a_head("integers")
    ids = [i for _ in range(6) for i in head.tokenizer.spell("7")]
    assert head._read(ids) is not None
    assert head._read([*ids, 299]) is None and head._read([*ids, head.tokenizer.tokenizer.pad_token_id]) is None


@every_form
def test_it_learns_what_to_say(form, observe, language_model):
    torch.manual_seed(0)
    head, actions, mask = a_head(form, constrained=False), some_actions(form), torch.ones(8, HORIZON, dtype=torch.bool)
    optimiser = torch.optim.Adam([*head.parameters(), *language_model.parameters()], 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        shown = head.loss(observe(), actions, mask)
        shown["loss"].backward()
        optimiser.step()
    assert shown["token_accuracy"] == 1
    readout = observe()
    said = head.wording.decode(head.wording.encode(actions))
    assert torch.equal(head.sample(readout), said) and head.unreadable == 0
    head.constrained = True
    assert torch.equal(head.sample(readout), said)


@every_form
def test_padding_hides_completely(form, observe, language_model):
    torch.manual_seed(0)
    head, actions, found = a_head(form), some_actions(form), []
    mask = torch.arange(HORIZON) < torch.arange(8).unsqueeze(1)
    for garbage in (0.5, 1e3, torch.nan):
        head.zero_grad(), language_model.zero_grad()
        loss = head.loss(observe(), torch.where(mask.unsqueeze(-1), actions, garbage), mask)["loss"]
        loss.backward()
        gradients = [p.grad for p in [*head.parameters(), *language_model.parameters()] if p.grad is not None]
        found.append(torch.cat([loss.detach().view(1), *(g.flatten() for g in gradients)]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]) and found[0].isfinite().all()
    assert head.loss(observe(), actions, torch.zeros_like(mask))["loss"] == 0


@every_form
def test_a_row_minds_its_own_business_in_loss_and_in_chunks_that_follow_each_other(form, observe, rows):
    torch.manual_seed(0)
    head, actions = a_head(form, temperature=1.0), some_actions(form)
    mask = torch.arange(HORIZON) < torch.arange(1, 9).unsqueeze(1)
    whole = head.loss(observe(), actions, mask)["loss"]
    parts = sum(
        head.loss(rows(observe(), part), actions[part], mask[part])["loss"] * mask[part].sum()
        for part in ([0, 5, 1], [2, 3, 7, 4, 6])
    )
    assert torch.allclose(parts / mask.sum(), whole, rtol=1e-5)
    together = seeds(*range(8))
    first, second = head.sample(observe(), together), head.sample(observe(), together)
    for row in (0, 5):
        alone = seeds(row)
        assert torch.equal(head.sample(rows(observe(), [row]), alone)[0], first[row])
        assert torch.equal(head.sample(rows(observe(), [row]), alone)[0], second[row])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("body", ["arm", "walker"])
def test_an_agent_speaks_and_is_loaded_with_its_tokenizer(body, tmp_path):
    action = ARM if body == "arm" else SKILLS
    embodiment = Embodiment(body, action, StateSpec(("a",), ("1",)), (), rate=1)
    random = np.random.default_rng(0)
    moves = random.uniform(-1, 1, (20, 3)) if body == "arm" else random.integers(0, 3, (20, 1))
    config = {
        "model": {
            "encoder": None, "connector": None, "order": ["task", "state"],
            "backbone": {
                "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
                "config": {
                    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "num_key_value_heads": 2, "intermediate_size": 32,
                },
            },
            "state": {"_target_": "embodied.lvlm.encoders.state.StateEncoder", "hidden": 0},
        },
        "head": {"_target_": "policies.heads.text.TextHead", "temperature": 1.0},
        "processing": {},
        "execution": {"_target_": "policies.execution.RecedingHorizon"},
        "chunk": {"history": 1, "horizon": HORIZON},
    }  # fmt: skip
    columns = {"action": moves.astype(np.float32), "observation.state": np.zeros((20, 1), np.float32)}
    agent = create_agent(config, embodiment, ["go there"], columns, np.array([20])).eval()
    agent.save_pretrained(tmp_path / "agent")
    batch = {"observation.state": torch.zeros(4, 1, 1), "observation_is_pad": torch.zeros(4, 1, dtype=torch.bool)}
    batch |= {"task": ["go there"] * 4}
    chunks = agent.predict(batch, seeds(0, 1, 2, 3))
    assert chunks.isfinite().all() and chunks.shape == (4, HORIZON, len(moves[0]))
    assert torch.equal(Agent.from_pretrained(tmp_path / "agent").predict(batch, seeds(0, 1, 2, 3)), chunks)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"form": "verse"}, "one of integers, named, got 'verse'"),
        ({"bins": 20}, "must be odd and at least 3, got 20"),
        ({"one_hot": [[0, 1]]}, "choose form=integers"),
        ({"form": "integers", "bins": 300}, "2 to 256"),
        ({"temperature": -1.0}, "not be negative"),
    ],
)
def test_a_mistake_is_named(options, says):
    with pytest.raises(ValueError, match=says):
        a_head("named", learned(ARM, bins=21), **options)


def test_tokenizers_that_cannot_say_it_are_refused():
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1, "</s>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    deaf = TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>"))
    with pytest.raises(ValueError, match="cannot spell '0'"):
        a_head("integers", deaf)
    endless = learned()
    endless.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no token that ends a text"):
        a_head("integers", endless)


def test_a_language_model_that_is_smaller_than_the_tokenizer_is_refused(observe):
    with pytest.raises(ValueError, match="has only 300: its tokenizer is another one"):
        a_head("integers", learned(PLAIN, 1024, form="integers", bins=256)).sample(observe())


def test_names_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="same name"):
        make_wording("named", dataclasses.replace(SKILLS, names=("go", "go", "stop")), 3)
    with pytest.raises(ValueError, match="no semicolon"):
        make_wording("named", dataclasses.replace(SKILLS, names=("go;", "left", "stop")), 3)
    assert Named(dataclasses.replace(PLAIN, names=("a b", "y", "z")), 3).phrases[0] == ["a_b -1", "a_b 0", "a_b +1"]
