"""An assistant learns what its conversations say, answers it, and answers the same however it is asked."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from embodied.assistant import Assistant
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer

OWN = Path(__file__).resolve().parents[1] / "conf/chat/own.yaml"
CHAT = {
    "_target_": "embodied.lvlm.chat.template.Template",
    "user": "Q: {text} ",
    "assistant": "A:",
    "answer": " {text}</s>",
    "image": "{tokens}",
}
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "white": (240, 240, 240)}
QUESTIONS = ("which colour is it?", "is it red?", "say it twice")


def model_node(**parts):
    return {
        "encoder": {
            "_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem",
            "widths": [16, 32],
            "size": 16,
        },
        "connector": {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
        "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
        "backbone": {
            "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
            "config": {
                "model_type": "llama",
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "tie_word_embeddings": True,
            },
        },
    } | parts


def answer(question: str, colour: str) -> str:
    if question == QUESTIONS[0]:
        return colour
    return {True: "yes", False: "no"}[colour == "red"] if question == QUESTIONS[1] else f"{colour} {colour}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 30), colour).save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in COLOURS}


def asked(picture: str, question: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]


def samples(pictures: dict[str, str]) -> list[Sample]:
    return [
        Sample(
            f"{colour}/{i}",
            [
                *asked(picture, question),
                {"role": "assistant", "content": [{"type": "text", "text": answer(question, colour)}]},
            ],
        )
        for colour, picture in pictures.items()
        for i, question in enumerate(QUESTIONS)
    ]


def new(**options) -> Assistant:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train([*QUESTIONS, "Q: A: yes no", *COLOURS], 400).tokenizer
    return Assistant(LVLM.from_config(model_node(), len(tokenizer)), tokenizer, CHAT, **options)


@pytest.fixture(scope="module")
def trained(pictures) -> Assistant:
    assistant = new()
    batch = assistant.batch(samples(pictures))
    optimizer = torch.optim.AdamW(assistant.parameters(), 3e-3)
    assistant.train()
    for _ in range(120):
        loss = assistant.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return assistant.eval()


def test_it_answers_what_it_learned_from_the_picture(trained, pictures):
    said = trained.respond([asked(pictures[c], q) for c in COLOURS for q in QUESTIONS], max_new_tokens=8)
    assert said == [answer(q, c) for c in COLOURS for q in QUESTIONS]


def test_answers_depend_neither_on_the_batch_nor_on_its_padding(trained, pictures):
    conversations = [asked(pictures[c], q) for c in COLOURS for q in QUESTIONS]
    together = trained.respond(conversations, max_new_tokens=8)
    assert together == [trained.respond([each], max_new_tokens=8)[0] for each in conversations]


def test_many_questions_on_one_picture_read_it_once(trained, pictures, monkeypatch):
    seen = []
    encode = type(trained.model.vision.encoder).encode
    monkeypatch.setattr(
        type(trained.model.vision.encoder),
        "encode",
        lambda self, pixels: seen.append(len(pixels)) or encode(self, pixels),
    )
    said = trained.ask(pictures["green"], QUESTIONS, max_new_tokens=8)
    assert said == [answer(question, "green") for question in QUESTIONS]
    assert seen == [1]


def test_saved_and_loaded_it_is_the_same(trained, pictures, tmp_path: Path):
    trained.save_pretrained(tmp_path / "model")
    again = Assistant.from_pretrained(tmp_path / "model")
    batch = trained.batch(samples(pictures)[:4])
    assert torch.equal(again.loss(batch)["loss"], trained.loss(batch)["loss"])


def test_the_template_that_a_tokenizer_carries_is_a_word_too(pictures, tmp_path: Path):
    """`chat=own`: a conversation reads as with the same template of ours, and is saved with the tokenizer."""
    ours = new()
    ours.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}Q: {% for p in m['content'] %}{% if p['type'] == 'image' %}"
        "<image>{% else %} {{ p['text'] }}{% endif %}{% endfor %}{% else %} A: {{ m['content'] }}</s>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
    )
    own = Assistant(ours.model, ours.tokenizer, OmegaConf.to_container(OmegaConf.load(OWN)))
    row = own.lesson(samples(pictures)[0])
    slots = sum(row.encoded.slots)
    said = own.tokenizer.decode([i for i, slot in zip(row.encoded.ids, row.encoded.slots, strict=True) if not slot])
    assert slots == sum(ours.lesson(samples(pictures)[0]).encoded.slots) > 0
    assert said.split() == f"Q:  {QUESTIONS[0]} A: {answer(QUESTIONS[0], next(iter(COLOURS)))}</s>".split()
    own.save_pretrained(tmp_path / "model")
    again = Assistant.from_pretrained(tmp_path / "model")
    batch = own.batch(samples(pictures)[:2])
    assert torch.equal(again.loss(batch)["loss"], own.loss(batch)["loss"])


def test_likelihood_is_that_of_greedy_answers(trained, pictures):
    conversation = asked(pictures["blue"], QUESTIONS[0])
    likely, unlikely = trained.loglikelihood([conversation, conversation], ["blue", "red"])
    assert likely[1] and not unlikely[1]
    assert likely[0] > unlikely[0]


def test_a_sample_without_its_picture_is_named(tmp_path):
    gone = Sample("lost/7", [*asked(str(tmp_path / "gone.png"), "what?"), {"role": "assistant", "content": "no"}])
    with pytest.raises(BrokenSample, match=r"lost/7.*gone\.png|gone\.png.*lost/7"):
        new().batch([gone])


def test_a_picture_is_never_cut(pictures):
    with pytest.raises(BrokenSample, match=r"red/0.*needs .* tokens"):
        new(max_tokens=10).batch(samples(pictures)[:1])
