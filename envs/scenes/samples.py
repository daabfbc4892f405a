"""What is written about a split: chat samples for each task, and the same in the formats of official scorers.

A chat sample is a line of JSON: `id`, `source`, `messages` as transformers' chat templates take them (the path of a
picture or film is relative to the data set's folder), and `meta`, which holds what a scorer needs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.scenes.balance import Asked, Balance
from envs.scenes.dialogues import dialogue
from envs.scenes.film_questions import film_questions
from envs.scenes.grammar import captions, full
from envs.scenes.probes import SETTINGS, Probes
from envs.scenes.questions import Asker, Question
from envs.scenes.references import ASKED, boxed, in_text, references
from envs.scenes.settings import Settings
from envs.scenes.thoughts import FROM_NEAR, THINK, thought
from envs.scenes.visibility import Fact, from_left, from_near

SOURCE = "scenes"
TASKS = ("caption", "vqa", *(f"pope_{setting}" for setting in SETTINGS), "refer", "detect", "dialogue", "video")
ABOUT_PICTURES = tuple(task for task in TASKS if task != "video")
DESCRIBE = ("Describe the picture.", "What is on the table?", "What does the picture show?", "Write a caption.")
LIST = ("List all things with their boxes.", "Which things are where?", "Detect everything on the table.")
AGAIN = "Say that again from {order}."
_TABLE, _TALK, _PROBE, _REFER, _CAPTION, _FILM, _ORDER, _DETECT = 11, 12, 13, 14, 15, 16, 17, 18
"""Streams of random numbers, one per task: what one task asks does not depend on the others."""


@dataclass
class Picture:
    """A picture or a film: its number, its file, what it shows; for a film, what moves and what it shows in the end."""

    number: int
    file: str
    facts: list[Fact]
    end: list[Fact] = field(default_factory=list)
    motions: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Written:
    """All that is said about a split.

    Attributes:
        samples: by task, chat samples.
        asked: by `vqa`, `video` and the three settings of `pope`, (number, question) in the order of their samples.
        captions: by number of the picture, all its captions.
        references: (number, thing, box of pixels x1, y1, x2, y2, phrases).
    """

    samples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {task: [] for task in TASKS})
    asked: dict[str, list[Asked]] = field(default_factory=dict)
    captions: dict[int, list[str]] = field(default_factory=dict)
    references: list[tuple[int, int, Fact, list[str]]] = field(default_factory=list)


def write_split(settings: Settings, split: str, pictures: Sequence[Picture], films: Sequence[Picture]) -> Written:
    """Everything that is said about the pictures and films of a split."""
    vocabulary = settings.vocabulary()
    pairs = vocabulary.pairs(split)
    written = Written()
    asker = Asker(vocabulary, pairs, *settings.things)
    probes = Probes(pairs, [picture.facts for picture in pictures])
    balance, film_balance = Balance(settings.questions), Balance(settings.questions)

    def random(stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, stream, number])

    for setting in SETTINGS:
        written.asked[f"pope_{setting}"] = []
    for picture in pictures:
        number, facts = picture.number, picture.facts
        balance.add(number, asker.candidates(random(_TABLE, number), facts))
        for setting in SETTINGS:
            questions = probes.ask(random(_PROBE, number), facts, setting)
            written.asked[f"pope_{setting}"] += [(number, question) for question in questions]
        _talk(written, random(_TALK, number), split, picture)
        _caption(written, random(_CAPTION, number), split, picture)
        _refer(written, random(_REFER, number), split, picture, settings.size)
        _detect(written, random(_DETECT, number), split, picture, settings.size)
    for film in films:
        film_balance.add(film.number, film_questions(random(_FILM, film.number), film.facts, film.end, film.motions))
    written.asked["vqa"], written.asked["video"] = balance.balanced(), film_balance.balanced()
    files = {picture.number: picture.file for picture in pictures}
    film_files = {film.number: film.file for film in films}
    for task, asked in written.asked.items():
        kind, names = ("video", film_files) if task == "video" else ("image", files)
        for i, (number, question) in enumerate(asked):
            meta = _meta(task, number, i, question)
            parts = [{"type": kind, kind: names[number]}, _text(question.text)]
            written.samples[task].append(_sample(split, task, i, [(parts, question.answer)], meta))
    return written


def combined(written: Written, seed: int, pictures: Sequence[Picture], size: int) -> dict[str, list[dict[str, Any]]]:
    """Files that are made of those of the tasks, by name; see `envs.scenes.maker`."""
    thoughts = thought_through(written, seed, pictures, size)
    return {
        "all": by_picture(written, seed),
        "listed": listed_first(written, seed),
        "thought": thoughts,
        "told": told(thoughts),
        "again": said_again(written, pictures, size),
    }


def by_picture(written: Written, seed: int, tasks: Sequence[str] = ABOUT_PICTURES) -> list[dict[str, Any]]:
    """All samples of these tasks, those about the same picture beside each other and in a random order.

    What several settings of POPE ask alike is there once.
    """
    about: dict[int, dict[str, dict[str, Any]]] = {}
    for task in tasks:
        for sample in written.samples[task]:
            asked = json.dumps(sample["messages"])
            about.setdefault(sample["meta"]["image_id"], {}).setdefault(asked, sample)
    rows = []
    for number, samples_of_it in sorted(about.items()):
        those = list(samples_of_it.values())
        rows += [those[i] for i in np.random.default_rng([seed, _ORDER, number]).permutation(len(those))]
    return rows


def listed_first(written: Written, seed: int) -> list[dict[str, Any]]:
    """The samples of `vqa` and `refer`, picture by picture, each with the answer of `detect` to read before it.

    Whoever learns from them answers from a list that it made itself before (`task.first` of embodied-eval), as in
    Compositional Chain-of-Thought (Mitra et al. 2024, arXiv 2311.17076), where the list is a scene graph. The list has
    weight 0: it is learned from `detect`.
    """
    lists = {sample["meta"]["image_id"]: sample["messages"] for sample in written.samples["detect"]}
    rows = []
    for sample in by_picture(written, seed, ("vqa", "refer")):
        before = lists.get(sample["meta"]["image_id"])
        if before is not None:
            (asked, listed), (question, answer) = before, sample["messages"]
            turns = [asked, listed | {"weight": 0}, _wordy(question), answer]
            rows.append(sample | {"messages": turns})
    return rows


def thought_through(written: Written, seed: int, pictures: Sequence[Picture], size: int) -> list[dict[str, Any]]:
    """Those of `listed_first`, the questions of `vqa` asked to think, and with the thought before the answer."""
    facts = {picture.number: picture.facts for picture in pictures}
    thoughts = {
        sample["id"]: thought(question, facts[number], size)
        for sample, (number, question) in zip(written.samples["vqa"], written.asked["vqa"], strict=True)
    }
    rows = []
    for row in listed_first(written, seed):
        if row["id"] in thoughts:
            *before, question, answer = row["messages"]
            asked, said = f"{row['meta']['question']} {THINK}", thoughts[row["id"]]
            row["messages"] = [*before, question | {"content": [_text(asked)]}, answer | {"content": [_text(said)]}]
        rows.append(row)
    return rows


def told(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Conversations without their pictures: whoever learns from those of `thought_through` has to read the list.

    With the picture there, what is in it can be looked at again, and how to copy from a list is learned late.
    """
    return [row | {"messages": [_wordy(row["messages"][0]), *row["messages"][1:]]} for row in rows]


def said_again(written: Written, pictures: Sequence[Picture], size: int) -> list[dict[str, Any]]:
    """The lists of `detect` without their pictures, and then the same things with their boxes in each other order.

    Nearly all that is said stands there already, elsewhere, so that every number of it teaches to look up what follows
    a name (induction heads: Olsson et al. 2022, arXiv 2209.11895). A list repeated as it is teaches to count on.
    """
    facts = {picture.number: picture.facts for picture in pictures}
    rows = []
    for sample in written.samples["detect"]:
        left = from_left(facts[sample["meta"]["image_id"]])
        near = from_near(left)
        asked, listed = sample["messages"]
        for words, order in (("right to left", left[::-1]), ("near to far", near), ("far to near", near[::-1])):
            again = {"role": "user", "content": [_text(AGAIN.format(order=words))]}
            answer = {"role": "assistant", "content": [_text(", ".join(boxed(fact, size) for fact in order))]}
            if len(order) > 1:
                rows.append(sample | {"messages": [_wordy(asked), listed | {"weight": 0}, again, answer]})
    return rows


def _wordy(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn without its picture."""
    return turn | {"content": [part for part in turn["content"] if part["type"] == "text"]}


def _meta(task: str, number: int, place: int, question: Question) -> dict[str, Any]:
    meta: dict[str, Any] = {"question": question.text, "answers": [question.answer]}
    if task.startswith("pope"):
        return (
            {"question_id": place + 1, "image_id": number} | meta | {"label": question.answer, "category": question.key}
        )
    kinds = {"question_type": question.kind, "answer_type": question.answer_type}
    return {"question_id": place + 1, "video_id" if task == "video" else "image_id": number} | meta | kinds


def _talk(written: Written, random: np.random.Generator, split: str, picture: Picture) -> None:
    said = dialogue(random, picture.facts)
    if said:
        turns = [([_text(question)], answer) for question, answer, _ in said]
        turns[0][0].insert(0, {"type": "image", "image": picture.file})
        meta = {"image_id": picture.number, "words": [word for _, _, word in said]}
        _add(written, split, "dialogue", turns, meta)


def _caption(written: Written, random: np.random.Generator, split: str, picture: Picture) -> None:
    found = captions(random, picture.facts)
    if found:
        written.captions[picture.number] = found
        parts = [{"type": "image", "image": picture.file}, _text(DESCRIBE[random.integers(len(DESCRIBE))])]
        objects = sorted({f"{fact.colour} {fact.shape}" for fact in picture.facts})
        meta = {"image_id": picture.number, "captions": found, "objects": objects}
        _add(written, split, "caption", [(parts, found[0])], meta)


def _refer(written: Written, random: np.random.Generator, split: str, picture: Picture, size: int) -> None:
    for i, fact in enumerate(picture.facts):
        phrases = references(random, fact, picture.facts)
        if not phrases:
            continue
        written.references.append((picture.number, i, fact, phrases))
        phrase = phrases[0]
        asked = ASKED[random.integers(len(ASKED))].format(x=phrase)
        parts = [{"type": "image", "image": picture.file}, _text(asked)]
        meta = {"image_id": picture.number, "phrase": phrase, "box": list(fact.box), "width": size, "height": size}
        _add(written, split, "refer", [(parts, in_text(fact.box, size))], meta)


def _detect(written: Written, random: np.random.Generator, split: str, picture: Picture, size: int) -> None:
    """All things that are seen, from left to right, as grounded captions have them: `small red ball [x1,y1,x2,y2]`.

    Behind that, where there are several, their names again from near to far.
    """
    seen = from_left(picture.facts)
    if seen:
        answer = ", ".join(boxed(fact, size) for fact in seen)
        if len(seen) > 1:
            answer += f". {FROM_NEAR}: {', '.join(full(fact) for fact in from_near(seen))}."
        parts = [{"type": "image", "image": picture.file}, _text(LIST[random.integers(len(LIST))])]
        boxes = [list(fact.box) for fact in seen]
        meta = {"image_id": picture.number, "phrases": [full(fact) for fact in seen], "boxes": boxes}
        _add(written, split, "detect", [(parts, answer)], meta | {"width": size, "height": size})


def _add(written: Written, split: str, task: str, turns: Sequence[tuple[list[Any], str]], meta: dict[str, Any]) -> None:
    written.samples[task].append(_sample(split, task, len(written.samples[task]), turns, meta))


def _sample(
    split: str, task: str, place: int, turns: Sequence[tuple[list[Any], str]], meta: dict[str, Any]
) -> dict[str, Any]:
    messages = []
    for parts, answer in turns:
        messages.append({"role": "user", "content": parts})
        messages.append({"role": "assistant", "content": [_text(answer)]})
    return {"id": f"{split}/{task}/{place + 1}", "source": SOURCE, "messages": messages, "meta": meta}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
