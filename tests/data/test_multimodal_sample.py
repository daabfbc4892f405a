"""A multi-modal sample says what is wrong with it in one line, and survives being written down."""

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.data.multimodal import BrokenSample, Sample, image, message, video
from embodied.data.multimodal.readers.chat import Chat, write_chat

WORDS = st.text(min_size=1, max_size=20).filter(str.strip)
PARTS = st.one_of(
    WORDS.map(lambda text: {"type": "text", "text": text}),
    st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}\.jpg", fullmatch=True).map(image),
    st.from_regex(r"[a-z]{1,8}\.mp4", fullmatch=True).map(video),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def samples(draw):
    turns = draw(st.integers(1, 5))
    roles = [("user", "assistant")[i % 2] for i in range(turns)]
    if draw(st.booleans()):
        roles = ["system", *roles]
    messages = [message(role, *draw(st.lists(PARTS, min_size=1, max_size=4))) for role in roles]
    return Sample(draw(WORDS), messages, draw(st.text(max_size=8)), draw(st.dictionaries(WORDS, JSON, max_size=3)))


@settings(max_examples=60, deadline=None)
@given(samples())
def test_a_sample_survives_json(sample):
    assert Sample.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample


def placed(one, folder):
    """A message whose files are in a folder."""
    parts = [p if p["type"] == "text" else {**p, p["type"]: f"{folder}/{p[p['type']]}"} for p in one["content"]]
    return message(one["role"], *parts)


@settings(max_examples=25, deadline=None)
@given(st.lists(samples(), min_size=1, max_size=5))
def test_samples_survive_a_file_of_lines_whatever_is_in_them(tmp_path_factory, some):
    folder = tmp_path_factory.mktemp("chat")
    here = [
        Sample(str(n), [placed(m, folder) for m in one.messages], one.source or "given", one.meta)
        for n, one in enumerate(some)
    ]
    assert write_chat(folder / "samples.jsonl", here) == len(here)
    read = Chat(folder / "samples.jsonl")
    assert list(read) == here
    assert [read[i] for i in reversed(range(len(read)))] == here[::-1]


def test_text_stands_for_a_text_part_and_what_is_asked_and_answered_can_be_told_apart():
    sample = Sample("1", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    assert sample.messages[0]["content"] == [{"type": "text", "text": "Hi"}]
    assert sample.question() == sample.messages[:1] and sample.answer() == "Hello" and sample.answered
    asked = Sample("1", [{"role": "user", "content": "Hi"}])
    assert asked.question() == asked.messages and asked.answer() == "" and not asked.answered


def test_a_document_is_one_message_of_the_assistant_and_nothing_is_asked_in_it():
    page = Sample("page", [message("assistant", "First.", image("a.jpg"), "Second.")])
    assert page.images() == ["a.jpg"] and page.text() == "First.\nSecond."
    with pytest.raises(BrokenSample, match="nothing is asked"):
        page.question()


USER, ANSWER = message("user", image("x.jpg"), "What?"), message("assistant", "That.")


@pytest.mark.parametrize(
    "messages, reason, says",
    [
        ([], "wrong field", "at least one entry"),
        ("hello", "wrong field", "a list of"),
        ([{"role": "human", "content": "x"}], "unknown role", "has the role 'human'; there is system, user, assistant"),
        ([USER, USER], "roles out of turn", "message 1 is of the user"),
        ([ANSWER, USER], "roles out of turn", "message 0 is of the assistant"),
        ([USER, message("system", "x")], "roles out of turn", "a system message comes before all others"),
        ([message("system", "x")], "wrong field", "a user's message follows"),
        ([USER, message("assistant", "  \n")], "empty answer", "message 1, of the assistant, says nothing"),
        ([message("user", "")], "empty message", "message 0, of the user, says nothing"),
        ([{"role": "user", "content": "x", "name": "Bob"}], "wrong field", "not {role, content}"),
        ([{"role": "user", "content": "x", "weight": 0}], "wrong field", "weight is 0"),
        ([message("user", "x"), message("assistant", "y") | {"weight": 0.5}], "wrong field", "got 0.5"),
        ([{"role": "user", "content": 3}], "wrong field", "a list of parts, got 3"),
        ([{"role": "user", "content": [{"type": "audio", "audio": "x"}]}], "wrong field", "none of image, video, text"),
        ([{"role": "user", "content": [{"type": "image", "path": "x"}]}], "wrong field", '"image": <path>'),
        ([{"role": "user", "content": [{"type": "image", "image": ""}]}], "wrong field", '"image": <path>'),
    ],
)
def test_a_broken_conversation_is_told_in_one_line_with_its_sample(messages, reason, says):
    with pytest.raises(BrokenSample) as caught:
        Sample("q7", messages)
    assert caught.value.reason == reason and caught.value.sample == "q7"
    assert says in str(caught.value) and "sample 'q7'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "record, says",
    [
        ({"messages": [USER]}, "needs 'id'"),
        ({"id": "1"}, "needs 'messages'"),
        ({"id": "1", "messages": [USER], "sauce": "x"}, "no 'sauce'; did you mean 'source'"),
        ({"id": 3, "messages": [USER]}, "a sample's id is a text"),
        ([], "a sample is a mapping"),
    ],
)
def test_a_record_that_is_no_sample_is_told_by_its_field(record, says):
    with pytest.raises(BrokenSample, match=says):
        Sample.from_dict(record)


def test_meta_that_json_cannot_say_is_refused_when_written():
    with pytest.raises(BrokenSample, match="'1': it cannot be written as JSON"):
        Sample("1", [USER], meta={"score": float("nan")}).to_dict()


def test_a_fault_keeps_its_place_on_its_way_between_processes():
    fault = BrokenSample("missing image", "the image is missing", "a.jpg").at("other.json", "q1")
    copy = pickle.loads(pickle.dumps(fault))
    assert (copy.reason, copy.file, copy.sample, str(copy)) == ("missing image", "a.jpg", "q1", str(fault))
    assert str(fault) == "a.jpg, sample 'q1': the image is missing"
