"""Teaching an encoder words: which words, from which features, and that only the encoder and the predictor learn."""

import pytest
import torch
from PIL import Image

from embodied.assistant import Assistant
from embodied.data.multimodal.sample import Sample
from embodied.lvlm.chat.pieces import IGNORED
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.training.stages import check_stages
from embodied.training.visual_words import VisualWords, frequent, grams

CHAT = {"_target_": "embodied.lvlm.chat.template.Template", "user": "{text}", "assistant": "A", "answer": " {text}</s>"}
NODE = {
    "encoder": {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [8, 16], "size": 16},
    "connector": {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
    "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
    "backbone": {
        "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
        "config": {
            "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "intermediate_size": 32,
        },
    },
}  # fmt: skip
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def an_assistant():
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train([*COLOURS, "a thing A"], 300).tokenizer
    return Assistant(LVLM.from_config(NODE, len(tokenizer)), tokenizer, CHAT)


def samples(folder):
    found = []
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
        asked = {"role": "user", "content": [{"type": "image", "image": str(folder / f"{name}.png")}]}
        found.append(Sample(name, [asked, {"role": "assistant", "content": f"a {name} thing"}]))
    return found


def words_of(assistant, texts):
    return frequent([assistant.tokenizer(f" {text}")["input_ids"] for text in texts], least=1)


def test_words_and_pairs_of_neighbours_are_counted_once_an_answer():
    assert list(grams([IGNORED, 5, 6, IGNORED, 7])) == [(5,), (6,), (5, 6), (7,)]
    answers = [[1, 2, 2], [1, 2], [1, 3], [1, 4, 2]]
    assert frequent(answers, least=2) == [(2,), (1, 2)]  # 1 is in all of them and tells nothing; 3 and 4 are too rare
    assert frequent(answers, most=1, least=2) == [(2,)]


def test_an_encoder_learns_which_words_are_said_and_nothing_else_of_the_model_moves(tmp_path):
    assistant = an_assistant()
    before = {name: value.clone() for name, value in assistant.state_dict().items()}
    learner = VisualWords(assistant, words_of(assistant, [f"a {name} thing" for name in COLOURS]))
    batch = assistant.batch(samples(tmp_path))
    optimizer = torch.optim.Adam(learner.parameters(), 0.02)
    losses = []
    for _ in range(60):
        loss = learner.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    moved = {name for name, value in assistant.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("model.vision.encoder.") for name in moved)

    learner.save_pretrained(tmp_path / "saved")
    again = VisualWords(Assistant.from_pretrained(tmp_path / "saved"), list(learner.words))
    again.load_head(tmp_path / "saved")
    assert torch.equal(again.loss(batch)["loss"], learner.loss(batch)["loss"])
    fewer = VisualWords(an_assistant(), list(learner.words)[:2])
    with pytest.raises(ValueError, match="predicts other words than this data has"):
        fewer.load_head(tmp_path / "saved")


def test_the_loss_is_that_of_the_largest_features_and_the_words_of_each_answer(tmp_path):
    assistant = an_assistant()
    words = words_of(assistant, [f"a {name} thing" for name in COLOURS])
    learner = VisualWords(assistant, words)
    batch = assistant.batch(samples(tmp_path))
    total = []
    for row, name in enumerate(COLOURS):
        pixels = torch.stack([batch["pictures"][row][0].views[0][0]])
        largest = assistant.model.vision.encoder.encode(pixels)[0].amax(0)
        ids = assistant.tokenizer(f" a {name} thing</s>")["input_ids"]
        said = torch.tensor([float(gram in set(grams(ids))) for gram in words])
        odds = learner.head(largest).sigmoid()
        total.append(-(said * odds.log() + (1 - said) * (1 - odds).log()))
    torch.testing.assert_close(learner.loss(batch)["loss"], torch.stack(total).mean())


def test_what_cannot_be_taught_is_said_in_one_line(tmp_path):
    assistant = an_assistant()
    blind = Assistant(
        LVLM.from_config({"backbone": NODE["backbone"]}, len(assistant.tokenizer)), assistant.tokenizer, CHAT
    )
    with pytest.raises(ValueError, match="this model has none"):
        VisualWords(blind, [(1,)])
    with pytest.raises(ValueError, match="found no words"):
        VisualWords(assistant, [])
    text = Sample("t", [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "red"}])
    with pytest.raises(ValueError, match="samples of one picture, and one has 0"):
        VisualWords(assistant, [(1,)]).loss(assistant.batch([text]))
    stage = {"train": {"encoder": "full", "backbone": "full"}, "data": ["pairs"], "lr": 1.0, "objective": "words"}
    with pytest.raises(ValueError, match="the encoder alone learns"):
        check_stages({"see": stage}, "stages")
    with pytest.raises(ValueError, match=r"see\.objective is sounds, not one of answers, words, regions"):
        check_stages({"see": stage | {"objective": "sounds"}}, "stages")
