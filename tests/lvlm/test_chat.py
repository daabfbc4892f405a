"""Labels by span, places for pictures, and what is refused, for every chat template."""

# ruff: noqa: E501  (published templates are one line each)

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

from embodied.building import build
from embodied.lvlm.chat.conversation import ChatEncoder
from embodied.lvlm.chat.jinja import JinjaTemplate
from embodied.lvlm.chat.media import Film, Measured, measure
from embodied.lvlm.chat.pieces import IGNORED, Slot, Text
from embodied.lvlm.chat.template import Template
from embodied.lvlm.resolution.grid import RowColumnTiles

CONFIGS = Path(__file__).resolve().parents[2] / "conf/chat"
FAMILIES = sorted(file.stem for file in CONFIGS.glob("*.yaml") if file.stem != "own")
SPECIAL = """<pad> <s> </s> <|im_start|> <|im_end|> <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <bos>
<start_of_turn> <end_of_turn> <|system|> <|user|> <|assistant|> <|end|> [gMASK] <sop> <end_of_utterance> <image>
<fake_token_around_image> <global-img> <|vision_start|> <|vision_end|> <row_1_col_1> <row_1_col_2>""".split()  # noqa: SIM905


def a_tokenizer(template=None):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    words = ["USER: what is this? ASSISTANT: a red cube is on the table"] * 3
    trainer = trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    bpe.train_from_iterator(words, trainer)
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=template
    )


TOKENIZER = a_tokenizer()


def family(name) -> Template:
    return build(OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml")), (Template,))


def user(*parts):
    return {"role": "user", "content": [a_part(part) for part in parts]}


def assistant(text):
    return {"role": "assistant", "content": [a_part(text)]}


def system(text):
    return {"role": "system", "content": [a_part(text)]}


def a_part(part):
    return {"type": "text", "text": part} if isinstance(part, str) else part


def image(name="a.jpg"):
    return {"type": "image", "image": name}


def tokens(count):
    return lambda part: Measured((count,))


def learned(encoded, tokenizer=TOKENIZER):
    return tokenizer.decode([label for label in encoded.labels if label != IGNORED])


TALK = [user(image(), "What is this?"), assistant("A cube."), user("And that?"), assistant("USER: ASSISTANT: nothing")]


@pytest.mark.parametrize("name", FAMILIES)
def test_all_that_the_assistant_says_is_learned_and_nothing_else(name):
    template = family(name)
    encoded = ChatEncoder(TOKENIZER, template)(TALK, tokens(5))
    said = [template.answer.replace("{text}", text) for text in ("A cube.", "USER: ASSISTANT: nothing")]
    assert learned(encoded) == "".join(said) + template.end
    assert sum(encoded.slots) == 5 and encoded.media == ("a.jpg",)
    assert len(encoded.ids) == len(encoded.labels) == len(encoded.slots)
    for token, label, slot in zip(encoded.ids, encoded.labels, encoded.slots, strict=True):
        assert label in (IGNORED, token) and not (slot and label != IGNORED)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_of_weight_0_is_read_and_not_learned(name):
    template = family(name)
    encoder = ChatEncoder(TOKENIZER, template)
    first, last = ([*TALK[:at], TALK[at] | {"weight": 0}, *TALK[at + 1 :]] for at in (1, 3))
    assert encoder(first, tokens(5)).ids == encoder(last, tokens(5)).ids == encoder(TALK, tokens(5)).ids
    assert (
        learned(encoder(first, tokens(5)))
        == template.answer.replace("{text}", TALK[3]["content"][0]["text"]) + template.end
    )
    assert learned(encoder(last, tokens(5))) == template.answer.replace("{text}", "A cube.")
    with pytest.raises(ValueError, match="nothing is to be learned"):
        encoder([TALK[0], TALK[1] | {"weight": 0}], tokens(5))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(
    turns=st.lists(st.tuples(st.text("ab :\n<", min_size=1), st.text("ab :\n<", min_size=1)), min_size=1, max_size=3),
    pictures=st.lists(st.integers(1, 4), max_size=3),
)
def test_what_is_asked_at_inference_is_what_training_began_with(name, turns, pictures):
    """The prompt's ids are the first ids of training, so the model meets no boundary that it has not learned."""
    turns = [(question, answer) for question, answer in turns if question.strip() and answer.strip()]
    if not turns:
        return
    messages = [m for question, answer in turns for m in (user(question), assistant(answer))]
    messages[0]["content"] = [image(str(count)) for count in pictures] + messages[0]["content"]
    encoder = ChatEncoder(TOKENIZER, family(name))

    def count(part):
        return Measured((int(part["image"]),))

    whole, asked = encoder(messages, count), encoder(messages[:-1], count, prompt=True)
    assert whole.ids[: len(asked)] == asked.ids and sum(asked.slots) == sum(pictures)
    assert name == "plain" or whole.labels[len(asked) - 1] == IGNORED  # which has nothing between two captions
    assert whole.labels[len(asked)] != IGNORED


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_message_is_read_where_the_family_has_one(name):
    template, messages = family(name), [system("Be brief."), *TALK]
    if template.system is None and template.user_with_system is None:
        with pytest.raises(ValueError, match="sample 'x/1': this chat template has no place for a system message"):
            ChatEncoder(TOKENIZER, template)(messages, tokens(5), "x/1")
        return
    text = TOKENIZER.decode(ChatEncoder(TOKENIZER, template)(messages, tokens(5)).ids)
    assert "Be brief." in text and (template.default_system or "?missing") not in text


# The families' published jinja templates

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PUBLISHED = {
    "qwen": CHATML,
    "llama3": (
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = '<|begin_of_text|>' + "
        "content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ '<bos>' }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] "
        "| trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "phi": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
        "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
        "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + "
        "'\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '<s>' + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + '</s>' }}{% endif %}{% endfor %}"
    ),
    "mistral": (
        "{{ '<s>' }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + '</s>' }}{% endif %}"
        "{% endfor %}"
    ),
    "vicuna": (
        "{{ '<s>' }}{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
        "{{ messages[0]['content'] + ' ' }}{% else %}{% set rest = messages %}{% endif %}{% for message in rest %}{% if message['role'] == 'user' %}"
        "{{ 'USER: ' + message['content'] + ' ' }}{% else %}"
        "{{ 'ASSISTANT: ' + message['content'] + '</s>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
}
TEXTS = [user("What is this?"), assistant("A cube."), user("And that?"), assistant("It is a red ball.")]


@pytest.mark.parametrize(
    "name, with_system",
    [(name, False) for name in PUBLISHED]
    + [(name, True) for name in PUBLISHED if name not in ("gemma", "mistral")],  # whose templates refuse or drop them
)
def test_ours_is_the_published_jinja_template(name, with_system):
    messages = [system("Be brief."), *TEXTS] if with_system or name == "vicuna" else TEXTS
    tokenizer = a_tokenizer(PUBLISHED[name])
    ours, theirs = (ChatEncoder(tokenizer, t) for t in (family(name), JinjaTemplate(tokenizer)))
    plain = [{"role": m["role"], "content": m["content"][0]["text"]} for m in messages]
    assert ours(messages).ids == tokenizer.apply_chat_template(plain, tokenize=True)["input_ids"]
    assert theirs(messages) == ours(messages)
    asked = messages[:-1]
    reference = tokenizer.apply_chat_template(plain[:-1], tokenize=True, add_generation_prompt=True)["input_ids"]
    assert ours(asked, prompt=True).ids == theirs(asked, prompt=True).ids == reference


def test_labels_are_the_assistant_mask_of_transformers():
    marked = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
        "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    )
    tokenizer = a_tokenizer(marked)
    plain = [{"role": m["role"], "content": m["content"][0]["text"]} for m in TEXTS]
    reference = tokenizer.apply_chat_template(plain, return_dict=True, return_assistant_tokens_mask=True)
    ours = ChatEncoder(tokenizer, family("chatml"))(TEXTS)
    assert ours.ids == reference["input_ids"]
    assert [label != IGNORED for label in ours.labels] == [bool(m) for m in reference["assistant_masks"]]


def test_pictures_of_a_jinja_template_stand_where_it_writes_them():
    jinja = (
        "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '</s>' }}{% endfor %}"
    )
    tokenizer = a_tokenizer(jinja)
    messages = [user("a ", image("1"), " b", image("2")), assistant("c")]
    encoded = ChatEncoder(tokenizer, JinjaTemplate(tokenizer))(messages, lambda part: Measured((int(part["image"]),)))
    whole = tokenizer("a <image> b<image><image></s>c</s>", add_special_tokens=False)["input_ids"]
    marks = [token == tokenizer.convert_tokens_to_ids("<image>") for token in whole]
    assert encoded.slots == marks
    assert [i for i, s in zip(encoded.ids, marks, strict=True) if not s] == [
        i for i, s in zip(whole, marks, strict=True) if not s
    ]
    assert learned(encoded, tokenizer) == "c</s>"
    talk = [*messages, user("d"), assistant("e")]
    half = ChatEncoder(tokenizer, JinjaTemplate(tokenizer))([*talk[:1], talk[1] | {"weight": 0}, *talk[2:]], tokens(1))
    assert learned(half, tokenizer) == "e</s>"
    with pytest.raises(ValueError, match="has no chat template"):
        JinjaTemplate(a_tokenizer())
    deaf = JinjaTemplate(a_tokenizer(jinja.replace("<image>", "")))
    with pytest.raises(ValueError, match="writes nothing where the messages have <image> <image>"):
        ChatEncoder(tokenizer, deaf)(messages, lambda part: Measured((2,)))


def test_films_of_a_jinja_template_are_all_their_frames_where_it_writes_its_mark():
    """As transformers' processors of LLaVA-NeXT-Video and Qwen2-VL put a film's tokens: without a break."""
    jinja = (
        "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|>{% elif part['type'] == 'video' %}"
        "<|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '</s>' }}{% endfor %}"
    )
    template = JinjaTemplate(a_tokenizer(jinja), image="<|vision_start|>", video="<|vision_end|>")
    film = Film((Measured((3,)), Measured((3,))), (0.0, 1.0))
    messages = [user("see ", {"type": "video", "video": "f"}, " and ", image("1")), assistant("c")]
    pieces = template.render(messages, lambda part: film if part["type"] == "video" else Measured((2,)))
    assert "".join(f"[{p.count}]" if isinstance(p, Slot) else p.text for p in pieces) == "see [6] and [2]</s>c</s>"
    assert "".join(p.text for p in pieces if isinstance(p, Text) and p.learned) == "c</s>"


# Pictures and films


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (200, 190)])
def test_tiles_are_named_as_the_processor_of_idefics3_does(size):
    strategy = RowColumnTiles(4, 16, 64)
    layout = strategy.plan(*size)
    seen = measure(strategy, layout, [(2, 3)] * len(layout.views))
    pieces = family("idefics").render([user(image())], lambda part: seen)
    text = "".join("<image>" * p.count if isinstance(p, Slot) else p.text for p in pieces)
    names = SimpleNamespace(
        fake_image_token="<fake_token_around_image>",
        global_image_tag="<global-img>",
        image_token="<image>",
        image_seq_len=6,
    )
    grid = {"rows": [[layout.tiles[0]]], "cols": [[layout.tiles[1]]]}
    reference = Idefics3Processor.replace_image_token(names, grid, 0)
    assert text == f"<|begin_of_text|>User:{reference}<end_of_utterance>\n"
    assert sum(p.count for p in pieces if isinstance(p, Slot)) == strategy.count(layout, [(2, 3)] * len(layout.views))


def test_frames_of_a_film_are_numbered_and_timed():
    film = Film((Measured((3,)), Measured((3,))), (0.0, 1.54))
    template = Template(user="{text}", assistant="", answer="{text}", frame="[{number} {seconds}s {tokens}]")
    part = {"type": "video", "video": "a.mp4"}
    pieces = template.render([{"role": "user", "content": [part, a_part("What?")]}], lambda part: film)
    assert "".join("#" * p.count if isinstance(p, Slot) else p.text for p in pieces) == "[1 0.0s ###][2 1.5s ###]What?"


def test_a_marker_in_the_text_is_where_the_picture_stands():
    encoder = ChatEncoder(TOKENIZER, family("chatml"))

    def count(part):
        return Measured(({"1": 2, "2": 3}[part["image"]],))

    marked = encoder([user(image("1"), image("2"), "see <image> and <image>!"), assistant("yes")], count)
    placed = encoder([user("see ", image("1"), " and ", image("2"), "!"), assistant("yes")], count)
    assert marked == placed


def test_a_document_is_learned_but_for_its_pictures():
    document = [{"role": "assistant", "content": [a_part("one "), image(), a_part(" two")]}]
    encoded = ChatEncoder(TOKENIZER, family("plain"))(document, tokens(4))
    assert learned(encoded) == "one  two\n" and sum(encoded.slots) == 4


def test_the_plain_template_reads_a_picture_and_learns_its_caption():
    pieces = family("plain").render([user(image(), "Describe it."), assistant("A cube.")], tokens(2))
    assert pieces[0] == Text("<s>") and "Describe" not in "".join(p.text for p in pieces if isinstance(p, Text))


def test_an_encoder_decoder_reads_the_question_and_learns_the_answer():
    asked, answer = ChatEncoder(TOKENIZER, family("flan_t5")).pair(TALK[:2], tokens(3))
    assert sum(asked.slots) == 3 and TOKENIZER.decode(answer) == " A cube.</s>"


# What is too long, or wrong


def test_what_is_too_long_is_refused_with_its_numbers():
    needed = len(ChatEncoder(TOKENIZER, family("vicuna"))(TALK, tokens(50)))
    with pytest.raises(ValueError, match=rf"sample 'coco/1': it needs {needed} tokens, 50 of them for .* at most 60"):
        ChatEncoder(TOKENIZER, family("vicuna"), max_tokens=60)(TALK, tokens(50), "coco/1")
    assert len(ChatEncoder(TOKENIZER, family("vicuna"), max_tokens=needed)(TALK, tokens(50))) == needed


def test_earlier_turns_are_dropped_whole_and_never_a_picture():
    template = family("chatml")
    talk = [system("Be brief."), *TALK[:2], user("one?"), assistant("1"), user("two?"), assistant("2")]
    without = [*talk[:3], *talk[5:]]
    short = ChatEncoder(TOKENIZER, template)(without, tokens(9))
    encoder = ChatEncoder(TOKENIZER, template, max_tokens=len(short), drop_turns=True)
    assert encoder(talk, tokens(9)) == short
    with pytest.raises(ValueError, match="even without its earlier turns"):
        ChatEncoder(TOKENIZER, template, max_tokens=len(short) - 1, drop_turns=True)(talk, tokens(9))


@pytest.mark.parametrize(
    "messages, says",
    [
        ([{"role": "human", "content": "hi"}], "message 0 has the role 'human'; there is system, user, assistant"),
        ([user("hi"), assistant(" ")], "message 1, of the assistant, is empty"),
        ([user("hi"), user("hi")], "message 1 is of the user where the assistant's turn is"),
        ([system("hi")], "no message of a user"),
        (
            [user("<image> <image>", image()), assistant("a")],
            "the user's text has 2 times <image>, its message 1 images",
        ),
        ([user("<image>?"), assistant("a")], "the user's text has 1 times <image>, its message 0 images"),
        ([user("hi")], "nothing is to be learned"),
        ([user({"type": "audio"})], "no text, image or video"),
    ],
)
def test_a_broken_sample_is_one_line_that_names_it(messages, says):
    with pytest.raises(ValueError, match=says) as caught:
        ChatEncoder(TOKENIZER, family("chatml"))(messages, tokens(2), "file.json/7")
    assert str(caught.value).startswith("sample 'file.json/7': ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"user": "USER:"}, r"chat.user needs \{text\} once"),
        ({"image": "<img>"}, r"chat.image needs \{tokens\} once"),
        ({"tile": "{tokens}"}, "belong together"),
        ({"default_system": "x"}, "to say where it stands"),
    ],
)
def test_a_template_that_says_too_little_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Template(**({"user": "{text}", "assistant": "", "answer": "{text}"} | wrong))
