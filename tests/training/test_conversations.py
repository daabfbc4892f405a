"""Batches of conversations are a function of the step, and broken samples stop it or are replaced and counted."""

import json

import pytest
import torch
from PIL import Image

from embodied.cli.zoo import entry
from embodied.data.multimodal.readers.chat import Chat
from embodied.data.multimodal.sample import BrokenSample
from embodied.training.conversations import ConversationStream
from embodied.training.exercise import tiny
from embodied.training.feed import fetch, shares


@pytest.fixture(scope="module")
def assistant():
    each = entry("llava-1.5")
    return tiny(each.row, each.chat)


@pytest.fixture
def sources(tmp_path):
    for i in range(4):
        Image.effect_noise((56, 56), 20 * (i + 1)).convert("RGB").save(tmp_path / f"{i}.png")
    asked = lambda i: [{"type": "image", "image": f"{i}.png"}, {"type": "text", "text": "what is it?"}]  # noqa: E731
    for name in ("one", "two"):
        lines = []
        for i in range(4):
            said = [{"type": "text", "text": "red " * (i + 1)}]
            messages = [{"role": "user", "content": asked(i)}, {"role": "assistant", "content": said}]
            lines.append(json.dumps({"id": f"{name}{i}", "messages": messages}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return lambda: {name: Chat(tmp_path / f"{name}.jsonl") for name in ("one", "two")}


def stream(assistant, sources, **options):
    return ConversationStream(assistant, sources(), {"one": 1.0, "two": 1.0}, 4, seed=3, **options)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("ids", "labels", "slots", "present"))


def test_a_step_is_the_same_whenever_it_is_asked_for(assistant, sources):
    first, second = stream(assistant, sources), stream(assistant, sources)
    for step in (0, 1):
        second.gather(second.indices(step))
    assert (first.indices(5) == second.indices(5)).all() and (first.row_seeds(5) == second.row_seeds(5)).all()
    assert same(first.gather(first.indices(5)), second.gather(second.indices(5)))
    assert sorted(first.name(i) for i in range(8)) == sorted(f"{s} {n}" for s in ("one", "two") for n in range(4))


def test_parts_hold_the_tokens_that_the_whole_learns(assistant, sources):
    apart = []
    for step in range(6):
        whole, parts = (fetch(stream(assistant, sources), step, shares(4, 1, count)) for count in (1, 2))
        apart.append({part.kept for part in parts})
        assert sum(part.kept for part in parts) == whole[0].kept > 0
    assert any(len(kept) == 2 for kept in apart), "parts of equal weight would prove nothing"


def test_a_broken_sample_stops_and_is_named(assistant, sources, tmp_path):
    (tmp_path / "2.png").unlink()
    broken = stream(assistant, sources)
    index = next(i for i in range(8) if broken.name(i) == "one 2")
    with pytest.raises(BrokenSample, match=r"2\.png"):
        broken.gather([index])


def test_or_the_next_of_its_source_stands_for_it_and_it_is_counted_once(assistant, sources, tmp_path):
    (tmp_path / "2.png").unlink()
    skipping = stream(assistant, sources, on_error="skip")
    broken, following = (next(i for i in range(8) if skipping.name(i) == f"one {n}") for n in (2, 3))
    for _ in range(2):
        assert same(skipping.gather([broken]), skipping.gather([following]))
    assert skipping.samples.faults.total == 1


def test_a_source_of_which_nothing_can_be_used_is_an_error(assistant, sources, tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(ValueError, match=r"no sample of '(one|two)' can be used"):
        stream(assistant, sources, on_error="skip").gather([0])
