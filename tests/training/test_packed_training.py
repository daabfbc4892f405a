"""Training on conversations that share rows is the training on the same ones apart, and goes on where it stopped."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from embodied.assistant import Assistant
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.lvlm.chat.packing import BestFit, SharedPrefix
from embodied.lvlm.chat.pieces import IGNORED, Encoded
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.training.conversations import ConversationStream
from embodied.training.feed import fetch, shares
from embodied.training.optimizer import AdamW
from embodied.training.processes import make_accelerator
from embodied.training.run_folder import RunFolder
from embodied.training.trainer import Settings, Trainer

CHAT = {
    "_target_": "embodied.lvlm.chat.template.Template",
    "user": "Q: {text} ",
    "assistant": "A:",
    "answer": " {text}</s>",
}
WORDS = ["red", "green", "blue", "one", "two", "three"]
LLAMA = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64,
}  # fmt: skip
CAUSAL = "embodied.lvlm.backbones.causal.CausalBackbone"
THREE_AXES = {
    "model_type": "qwen2_vl_text",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}
EYES = {
    "encoder": {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [16, 32], "size": 16},
    "connector": {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
    "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
}


class Lines:
    """Questions of very different lengths, every third with a picture."""

    def __init__(self, count, picture):
        self.count, self.picture = count, picture

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        seen = [{"type": "image", "image": self.picture}] if self.picture and index % 3 == 0 else []
        asked = " ".join(WORDS[i % 6] for i in range(1 + index * 7 % 23))
        content = [*seen, {"type": "text", "text": f"{index} {asked}"}]
        said = " ".join(WORDS[: 1 + index % 4])
        return Sample(f"line/{index}", [{"role": "user", "content": content}, {"role": "assistant", "content": said}])


@pytest.fixture
def picture(tmp_path):
    Image.effect_noise((16, 16), 90).save(tmp_path / "noise.png")
    return str(tmp_path / "noise.png")


def an_assistant(backbone=None, **parts):
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train([" ".join(WORDS), "Q: A: 0 1 2 3 4 5 6 7 8 9"], 300).tokenizer
    backbone = backbone or {"_target_": CAUSAL, "config": dict(LLAMA)}
    return Assistant(LVLM.from_config({"backbone": backbone, **parts}, len(tokenizer)), tokenizer, CHAT)


def a_stream(assistant, picture=None, packing=None, batch_size=8, **options):
    return ConversationStream(assistant, {"lines": Lines(24, picture)}, {}, batch_size, 3, packing=packing, **options)


def gradients(assistant, stream, step=0):
    assistant.zero_grad()
    loss = assistant.loss(stream.gather(stream.indices(step)))["loss"]
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in assistant.parameters() if p.grad is not None])


@pytest.mark.parametrize("attention", ["mask", "segments"])
@pytest.mark.parametrize("axes", [1, 3])
def test_a_packed_step_has_the_gradients_of_the_same_samples_apart(picture, attention, axes):
    backbone = {"_target_": CAUSAL, "config": LLAMA | (THREE_AXES if axes == 3 else {})}
    assistant = an_assistant(backbone, **EYES)
    assert assistant.model.backbone.axes == axes
    expected, apart = gradients(assistant, a_stream(assistant, picture))
    packed = a_stream(assistant, picture, BestFit(90, attention))
    batch = packed.gather(packed.indices(0))
    assert max(batch["layout"].rows) + 1 < len(batch["layout"].rows) == 8  # they do share rows
    loss, together = gradients(assistant, packed)
    assert abs(loss - expected) < 1e-6 and apart.abs().max() > 1e-3
    assert (together - apart).abs().max() < 1e-6


class Album(Lines):
    """Three questions about each picture, one after the other; the last one of each begins with words instead."""

    def __init__(self, folder):
        super().__init__(24, None)
        self.folder = folder
        for number in range(8):
            Image.effect_noise((16, 16), 40 + 20 * number).save(folder / f"{number}.png")

    def __getitem__(self, index):
        picture = {"type": "image", "image": str(self.folder / f"{index // 3}.png")}
        text = {"type": "text", "text": f"{WORDS[index % 6]} {' '.join(WORDS[: index % 4])}"}
        content = [text, picture] if index % 3 == 2 else [picture, text]
        asked = {"role": "user", "content": content}
        return Sample(f"album/{index}", [asked, {"role": "assistant", "content": WORDS[index % 5]}])


@pytest.mark.parametrize("tokens", [1024, 40])
@pytest.mark.parametrize("axes", [1, 3])
def test_a_picture_that_is_read_once_for_all_its_questions_has_the_gradients_of_each_question_apart(
    tmp_path, axes, tokens
):
    backbone = {"_target_": CAUSAL, "config": LLAMA | (THREE_AXES if axes == 3 else {})}
    assistant = an_assistant(backbone, **EYES)
    album, parts = Album(tmp_path), {}
    for name, packing in {"apart": None, "shared": SharedPrefix(tokens)}.items():
        stream = ConversationStream(assistant, {"album": album}, {}, 12, 3, packing=packing, together={"album": 3})
        assert {int(i) // 3 * 3 + k for i in stream.indices(0) for k in range(3)} == set(map(int, stream.indices(0)))
        parts[name] = gradients(assistant, stream)
    layout = stream.gather(stream.indices(0))["layout"]
    assert sum(map(bool, layout.shared)) == 4 and sum(layout.shared) == 4 * 19  # the picture's 16, and "Q: " before it
    assert max(layout.rows) == 0 if tokens == 1024 else max(layout.rows) > 3
    (loss, together), (expected, apart) = parts["shared"], parts["apart"]
    assert abs(loss - expected) < 1e-6 and apart.abs().max() > 1e-3
    assert (together - apart).abs().max() < 1e-6


def test_a_long_text_that_questions_begin_with_is_read_once_and_a_few_words_are_not():
    story = " ".join(WORDS * 4)

    class Stories:
        def __len__(self):
            return 12

        def __getitem__(self, index):
            asked = f"{index // 3} {story} {WORDS[index % 6]}" if index < 6 else f"{WORDS[index % 6]} {index}"
            answer = {"role": "assistant", "content": WORDS[index % 5]}
            return Sample(f"story/{index}", [{"role": "user", "content": asked}, answer])

    assistant, parts = an_assistant(), {}
    for name, packing in {"apart": None, "shared": SharedPrefix(1024)}.items():
        stream = ConversationStream(assistant, {"s": Stories()}, {}, 12, 3, packing=packing, together={"s": 3})
        parts[name] = gradients(assistant, stream)
    layout = stream.gather(stream.indices(0))["layout"]
    assert sum(map(bool, layout.shared)) == 4 and min(filter(None, layout.shared)) > 20
    (loss, together), (expected, apart) = parts["shared"], parts["apart"]
    assert abs(loss - expected) < 1e-6 and (together - apart).abs().max() < 1e-6


def test_what_is_learned_is_never_shared():
    alike = Encoded([1, 2, 3, 4, 5], [IGNORED, IGNORED, IGNORED, 4, 5], [True, False, False, False, False], ("a.png",))
    other = Encoded([1, 2, 3, 4, 6], [IGNORED, IGNORED, IGNORED, 4, 6], [True, False, False, False, False], ("a.png",))
    assert SharedPrefix().layout([alike, other]).shared == [0, 2]  # the token that 4 is told from is each one's own
    elsewhere = replace(other, media=("b.png",))
    assert SharedPrefix().layout([alike, elsewhere]).shared == [0, 0]


def test_each_sample_comes_once_in_an_epoch_in_an_order_of_the_seed(picture):
    assistant = an_assistant()
    streams = [a_stream(assistant), a_stream(assistant, packing=BestFit(200))]
    for stream in streams:
        assert sorted(int(i) for step in range(3) for i in stream.indices(step)) == list(range(24))
    for step in (5, 0, 2):  # any step, in any order
        assert list(streams[0].indices(step)) == list(streams[1].indices(step))


def test_parts_of_a_step_weigh_by_what_they_learn(picture):
    assistant = an_assistant()
    packed, apart = a_stream(assistant, packing=BestFit(200)), a_stream(assistant)
    rows = shares(8, 1, 2)
    parts, others = fetch(packed, 1, rows), fetch(apart, 1, rows)
    assert [part.kept for part in parts] == [part.kept for part in others]
    one = parts[0].row(2)  # a row of a part is a sample still, which is how a broken one is found
    torch.testing.assert_close(assistant.loss(one.batch), assistant.loss(others[0].row(2).batch))


def train(folder, packing, steps, resume=False, accumulate=1):
    settings = Settings(batch_size=8, max_steps=steps, accumulate=accumulate, device="cpu", precision="float32",
                        threads=1, save_every=2, log_every=2)  # fmt: skip
    run = RunFolder(folder, {}, resume)
    try:
        assistant = Assistant.from_pretrained(run.checkpoint) if run.checkpoint else an_assistant()
        stream = a_stream(assistant, packing=packing)
        Trainer(
            settings, assistant, stream, run, make_accelerator("cpu"), AdamW(lr=1e-2), lambda step: 1.0,
            say=lambda line: None,
        ).train()  # fmt: skip
    finally:
        run.close()
    return torch.cat([p.detach().flatten() for p in assistant.parameters()])


def test_a_packed_run_ends_where_the_padded_one_does_and_resumes_to_the_bit(tmp_path):
    packing = BestFit(120)
    whole = train(tmp_path / "whole", packing, 4)
    train(tmp_path / "halves", packing, 2)
    assert torch.equal(train(tmp_path / "halves", packing, 4, resume=True), whole)
    padded = train(tmp_path / "padded", None, 4)
    assert (padded - whole).abs().max() < 1e-4 < (padded - train(tmp_path / "two", None, 2)).abs().max()
    assert (train(tmp_path / "parts", packing, 4, accumulate=2) - whole).abs().max() < 1e-4


MAMBA = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}
T5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
PAIR = "embodied.lvlm.backbones.encoder_decoder.EncoderDecoderBackbone"


@pytest.mark.parametrize(
    "backbone, parts, says",
    [
        (None, EYES | {"placement": "beside"}, "beside the text they would be seen by the whole row"),
        ({"_target_": CAUSAL, "config": MAMBA}, {}, "a recurrent language model would carry"),
        ({"_target_": PAIR, "config": T5}, {}, "an encoder-decoder reads one conversation a row"),
    ],
)
def test_models_that_would_leak_are_refused_in_one_line(backbone, parts, says):
    with pytest.raises(ValueError, match=f"^packing is for [^\n]*{says}[^\n]*$"):
        a_stream(an_assistant(backbone, **parts), packing=BestFit(64))


def test_a_sample_longer_than_a_row_is_named_or_skipped(picture):
    with pytest.raises(BrokenSample, match=r"sample 'line/\d+': it has \d+ tokens, and a row .*tokens=30"):
        stream = a_stream(an_assistant(), packing=BestFit(30), batch_size=24)
        stream.gather(stream.indices(0))
    stream = a_stream(an_assistant(), packing=BestFit(30), batch_size=24, on_error="skip")
    assert max(stream.gather(stream.indices(0))["layout"].lengths) <= 30 and stream.samples.faults.total
