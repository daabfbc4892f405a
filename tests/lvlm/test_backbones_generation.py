"""What a backbone says is what transformers' own generate says, whatever the batch, the padding and the prefix."""

import pytest
import torch
from transformers import AutoTokenizer, TextStreamer

from embodied.lvlm.adapters.base import Sight
from embodied.lvlm.backbones import cache
from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.backbones.encoder_decoder import EncoderDecoderBackbone
from embodied.lvlm.backbones.generation import generate, read, repeat, speak

LLAMA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 64, "vocab_size": 96, "max_position_embeddings": 64, "initializer_range": 0.3}
OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 96}
MPT = {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "vocab_size": 96, "max_seq_len": 64}
FAMILIES = {
    "llama": LLAMA,
    "gemma2": LLAMA | {"head_dim": 8, "sliding_window": 4},
    "opt": OPT | {"max_position_embeddings": 64, "init_std": 0.3},
    "mpt": MPT | {"initializer_range": 0.3},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 96, "state_size": 8, "initializer_range": 0.3},
}
WAYS = {"greedy": {}, "beams": {"num_beams": 3}, "several beams": {"num_beams": 3, "num_return_sequences": 2}}
ROWS = (7, 4)


def build(family):
    torch.manual_seed(0)
    return CausalBackbone({"model_type": family, **FAMILIES[family]}).eval()


def rows():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(4, 96, (length,), generator=generator) for length in ROWS]


def padded(parts, side):
    longest = max(len(part) for part in parts)
    ids, present = torch.zeros(len(parts), longest, dtype=torch.long), torch.zeros(len(parts), longest).bool()
    for i, part in enumerate(parts):
        where = slice(0, len(part)) if side == "right" else slice(longest - len(part), None)
        ids[i, where], present[i, where] = part, True
    return ids, present


def reference(backbone, row, **options):
    return backbone.model.generate(row[None], attention_mask=torch.ones(1, len(row)).long(), **options)[:, len(row) :]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_transformers_own_generate(family, way):
    backbone = build(family)
    options = WAYS[way] | {"max_new_tokens": 5}
    expected = torch.cat([reference(backbone, row, **options) for row in rows()])
    for side in ("left", "right"):
        ids, present = padded(rows(), side)
        assert torch.equal(speak(backbone, backbone.embed(ids), present, **options), expected)


def test_sampling_draws_as_transformers_draws():
    backbone = build("llama")
    ids, present = padded([rows()[0], rows()[0].flip(0)], "left")
    options = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "num_return_sequences": 2, "max_new_tokens": 5}
    torch.manual_seed(3)
    expected = backbone.model.generate(ids, attention_mask=present.long(), **options)[:, ids.shape[1] :]
    torch.manual_seed(3)
    assert torch.equal(speak(backbone, backbone.embed(ids), present, **options), expected)


def test_a_row_that_ended_is_filled_and_the_others_go_on():
    backbone = build("llama")
    first = [reference(backbone, row, max_new_tokens=6)[0] for row in rows()]
    end = int(first[0][2])
    assert end not in first[1][:3] and end not in first[0][:2]
    ids, present = padded(rows(), "left")
    said = speak(backbone, backbone.embed(ids), present, max_new_tokens=6, eos_token_id=end, pad_token_id=0)
    assert torch.equal(said[0], torch.cat([first[0][:3], torch.zeros(said.shape[1] - 3).long()]))
    assert torch.equal(said[1], first[1][: said.shape[1]])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_many_questions_behind_one_prefix_are_answered_as_if_each_was_read_with_it(family):
    backbone = build(family)
    picture, questions = torch.randint(4, 96, (8,), generator=torch.Generator().manual_seed(2)), rows()
    expected = torch.cat([reference(backbone, torch.cat([picture, q]), max_new_tokens=5) for q in questions])
    prefix = read(backbone, backbone.embed(picture[None]), torch.ones(1, 8).bool())
    for side in ("left", "right"):
        ids, present = padded(questions, side)
        both = read(backbone, backbone.embed(ids), present, before=repeat(prefix, 2))
        assert torch.equal(generate(backbone, both, max_new_tokens=5), expected)
    assert prefix.present.shape == (1, 8)
    alone = read(backbone, backbone.embed(questions[0][None]), torch.ones(1, ROWS[0]).bool(), before=prefix)
    assert torch.equal(generate(backbone, alone, max_new_tokens=5), expected[:1])
    assert torch.equal(generate(backbone, alone, max_new_tokens=5), expected[:1])  # what was read is left as it was


@torch.no_grad()
def test_what_was_read_on_is_spoken_behind_without_a_copy_and_is_left_as_it_was(monkeypatch):
    backbone, copies, place = build("llama"), [], cache._place
    ids, present = padded(rows(), "left")
    prefix = read(backbone, backbone.embed(ids[:1]), present[:1])
    prompt = read(backbone, backbone.embed(ids), present, before=repeat(prefix, 2))
    kept = [(keys.clone(), values.clone()) for keys, values in prompt.past]
    monkeypatch.setattr(cache, "_place", lambda *of: copies.append(of) or place(*of))
    said = generate(backbone, prompt, max_new_tokens=5)
    assert not copies
    on = read(backbone, backbone.embed(ids), present, before=prompt)
    sampled = generate(backbone, prompt, max_new_tokens=5, do_sample=True, temperature=9.0)
    assert copies and not torch.equal(sampled, said)
    assert torch.equal(generate(backbone, prompt, max_new_tokens=5), said)
    for (keys, values), (was, were) in zip(prompt.past, kept, strict=True):
        assert torch.equal(keys, was) and torch.equal(values, were)
    again = read(backbone, backbone.embed(ids), present, before=prompt)
    assert torch.equal(generate(backbone, on, max_new_tokens=5), generate(backbone, again, max_new_tokens=5))


@torch.no_grad()
def test_a_prefix_may_see_itself_in_both_directions():
    backbone = build("llama")
    ids = rows()[0][None]
    both_ways = read(backbone, backbone.embed(ids), torch.ones(1, 7).bool(), mask=torch.ones(1, 7, 7).bool())
    hidden = backbone(backbone.embed(ids), torch.ones(1, 7, 7).bool(), torch.arange(7)[None])[0]
    assert torch.equal(both_ways.hidden, hidden[:, -1])
    said = generate(backbone, both_ways, max_new_tokens=1)
    assert torch.equal(said[:, 0], backbone.logits(hidden[:, -1]).argmax(-1))


@torch.no_grad()
def test_positions_in_three_axes_go_on_behind_the_furthest():
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    backbone = CausalBackbone({"model_type": "qwen2_vl_text", **LLAMA, "rope_parameters": rope}).eval()
    axes = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 2], [0, 1, 5, 2]]).unsqueeze(1)
    prompt = read(backbone, torch.randn(1, 4, 32), torch.ones(1, 4).bool(), positions=axes)
    assert prompt.next.tolist() == [6]
    assert generate(backbone, prompt, max_new_tokens=3).shape == (1, 3)


def test_tokens_arrive_as_they_are_chosen():
    backbone = build("llama")
    ids, present = padded(rows(), "left")
    heard = []
    said = speak(backbone, backbone.embed(ids), present, max_new_tokens=4, stream=heard.append)
    assert heard == said.T.tolist()


def test_a_streamer_of_transformers_hears_the_text(tmp_path, capsys):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(96)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    backbone = build("llama")
    row = rows()[0][None]
    said = speak(
        backbone,
        backbone.embed(row),
        torch.ones(1, 7).bool(),
        max_new_tokens=4,
        stream=TextStreamer(tokenizer, skip_prompt=False),
    )
    assert capsys.readouterr().out.split() == [f"w{i}" for i in said[0].tolist()]


def test_what_cannot_be_generated_is_refused_in_one_line():
    backbone = build("llama")
    ids, present = padded(rows(), "left")
    with pytest.raises(ValueError, match="GenerationConfig has no max_tokens"):
        speak(backbone, backbone.embed(ids), present, max_tokens=4)
    present[1] = False
    with pytest.raises(ValueError, match="row 1 of the prompt has no token"):
        speak(backbone, backbone.embed(ids), present)


def test_the_next_token_sees_what_the_last_real_one_saw():
    seen = torch.tensor([[[1, 0], [1, 1], [0, 0]], [[1, 0], [1, 0], [0, 1]]]).bool()
    present = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()  # padded right, padded left
    next_ = Sight(media=torch.randn(2, 2, 4), media_seen=seen, visual=~present).onward(present, times=2)
    assert next_.visual is None and next_.media.shape == (4, 2, 4)
    assert next_.media_seen.tolist() == [[[True, True]]] * 2 + [[[False, True]]] * 2
    assert next_.sighted.tolist() == [True] * 4
    text = Sight(visual=torch.zeros(2, 3).bool()).onward(present)
    assert text.sighted.tolist() == [False, False]


# Encoder and decoder

T5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 96}
T5 |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "initializer_factor": 0.3}


def flan():
    torch.manual_seed(0)
    return EncoderDecoderBackbone(T5).eval()


@torch.no_grad()
def test_an_encoder_decoder_reads_embeddings_as_its_own_class_reads_ids():
    backbone = flan()
    ids, present = padded(rows(), "right")
    labels = torch.tensor([[5, 6, 7], [8, 9, -100]])
    encoded = backbone.encode(backbone.embed(ids), present)
    own = backbone.model(input_ids=ids, attention_mask=present.long(), labels=labels)
    torch.testing.assert_close(backbone(encoded, present, labels), own.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(backbone.loss(encoded, present, labels), own.loss)


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_an_encoder_decoder_speaks_as_its_own_class_whatever_the_padding(way):
    backbone = flan()
    options = WAYS[way] | {"max_new_tokens": 5}
    expected = [backbone.model.generate(row[None], **options)[:, 1:] for row in rows()]
    ids, present = padded(rows(), "right")
    said = backbone.generate(backbone.encode(backbone.embed(ids), present), present, **options)
    per_row = said.unflatten(0, (2, -1))
    for got, want in zip(per_row, expected, strict=True):
        assert torch.equal(got[:, : want.shape[1]], want)


def test_an_encoder_decoder_streams_trains_and_is_refused_in_one_line(tmp_path):
    backbone = flan()
    ids, present = padded(rows()[:1], "right")
    encoded = backbone.encode(backbone.embed(ids), present)
    heard = []
    said = backbone.generate(encoded.detach(), present, max_new_tokens=3, stream=heard.append)
    assert [ids for step in heard for ids in step][-3:] == said[0].tolist()
    backbone.loss(encoded, present, torch.tensor([[5, 6]])).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    with torch.device("meta"):
        assert next(EncoderDecoderBackbone(T5).parameters()).is_meta
    assert EncoderDecoderBackbone(**backbone.resolved({"config": T5})).width == 32
    with pytest.raises(ValueError, match="cannot build an encoder-decoder 'llama'"):
        EncoderDecoderBackbone({"model_type": "llama", "vocab_size": 8})
    with pytest.raises(ValueError, match="no Hugging Face folder"):
        EncoderDecoderBackbone(checkpoint=str(tmp_path))
    with pytest.raises(ValueError, match="either a config or a checkpoint"):
        EncoderDecoderBackbone()
