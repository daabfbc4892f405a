"""One multi-modal sample, the same for every reader, filter, processor and scorer: a conversation with pictures in it.

    Sample(
        id="coco/139",
        source="coco",
        messages=[
            {"role": "user", "content": [{"type": "image", "image": "val2017/000000000139.jpg"},
                                         {"type": "text", "text": "What room is this?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A living room."}]},
        ],
        meta={"answers": ["living room"]},
    )

Messages are those of `transformers`' chat templates, so a processor takes them as they are. Pictures and films are
text, never pixels: see `embodied.data.multimodal.media` for the three forms that such a reference has. A sample is
therefore always plain JSON, small, and cheap to pass between processes.

What is in `meta` has one name whatever the dataset calls it, the one by which scorers know it:

| key | what |
|---|---|
| `answers` | every accepted answer, texts; for VQAv2 and its kin one per person asked, the same one several times |
| `captions` | every description of the picture, texts |
| `options`, `answer` | what may be chosen, texts, and the place of the right one from 0 |
| `box`, `width`, `height` | corners x1, y1, x2, y2 of what is meant, and the size of the picture, all in pixels |
| `question_type`, `answer_type`, `category`, `split` | what figures are also given for each of |
| `question_id`, `image_id` | as the dataset counts them |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embodied.building import nearest

ROLES = ("system", "user", "assistant")
PARTS = ("image", "video", "text")
"""What a content part can be. A part is `{"type": t, t: value}`, and nothing else."""


class BrokenSample(ValueError):
    """A sample that cannot be used: its message is one line that names file, sample and what would be right.

    Args:
        reason: the kind of fault in few words (`missing image`, `unknown role`), by which faults are counted.
        detail: what is wrong and what would be right.
        file: the file that it was read from; empty where there is none.
        sample: the sample's id; empty where it is not known.
    """

    def __init__(self, reason: str, detail: str, file: object = "", sample: object = "") -> None:
        self.reason, self.detail = reason, detail
        self.file, self.sample = str(file), str(sample)
        place = [self.file] if self.file else []
        place += [f"sample '{self.sample}'"] if self.sample else []
        super().__init__(f"{', '.join(place)}: {detail}" if place else detail)

    def at(self, file: object = "", sample: object = "") -> BrokenSample:
        """The same fault, with the place where that is not known yet."""
        return BrokenSample(self.reason, self.detail, self.file or file, self.sample or sample)

    def __reduce__(self) -> tuple[Any, ...]:  # so that a worker process can pass it on
        return type(self), (self.reason, self.detail, self.file, self.sample)


@dataclass(frozen=True)
class Sample:
    """A conversation, or a document.

    A conversation is an optional system message, then user and assistant in turn, the user first. It ends with the
    assistant where the answer is known (what is trained on) and with the user where it is not. A document, such as a
    web page with pictures, is one assistant message: all of it is to be learned. An answer that is only to be read has
    `"weight": 0`, as in OpenAI's files for fine-tuning.

    Args:
        id: unique within the source.
        messages: `[{"role": ..., "content": [part, ...]}]`; a content that is text becomes one text part.
        source: the dataset's name.
        meta: whatever its scorer needs, as plain JSON (`answers`, `choices`, `boxes`, `question_type`).

    Raises:
        BrokenSample: a role or a part that does not exist, roles that do not alternate, a message without content.
    """

    id: str
    messages: list[dict[str, Any]]
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise BrokenSample("wrong field", f"a sample's id is a text that is not empty, got {self.id!r}")
        if not isinstance(self.source, str):
            raise BrokenSample("wrong field", f"source is the dataset's name, got {self.source!r}", sample=self.id)
        if not isinstance(self.meta, Mapping):
            raise BrokenSample("wrong field", f"meta is a mapping, got {self.meta!r:.80}", sample=self.id)
        try:
            object.__setattr__(self, "messages", _conversation(self.messages))
        except BrokenSample as fault:
            raise fault.at(sample=self.id) from None

    @property
    def answered(self) -> bool:
        """Whether it ends with what the assistant is to say."""
        return self.messages[-1]["role"] == "assistant"

    def question(self) -> list[dict[str, Any]]:
        """The messages up to the last answer: what a model is given when it is scored.

        Raises:
            BrokenSample: it is a document, in which nothing is asked.
        """
        asked = self.messages[:-1] if self.answered else self.messages
        if not asked or asked[-1]["role"] != "user":
            raise BrokenSample("wrong field", "it is a document: nothing is asked in it", sample=self.id)
        return asked

    def answer(self) -> str:
        """The text of the last answer; empty where there is none."""
        return text_of(self.messages[-1:]) if self.answered else ""

    def images(self) -> list[str]:
        """References of its pictures, in order."""
        return [part["image"] for part in self.parts() if part["type"] == "image"]

    def videos(self) -> list[str]:
        """References of its films, in order."""
        return [part["video"] for part in self.parts() if part["type"] == "video"]

    def text(self) -> str:
        """All that is said in it, one line per text part."""
        return text_of(self.messages)

    def parts(self) -> Iterator[dict[str, Any]]:
        """Its content parts, in order."""
        return (part for message in self.messages for part in message["content"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` undoes it.

        Raises:
            BrokenSample: meta holds something that JSON cannot say.
        """
        record = {"id": self.id, "source": self.source, "messages": self.messages, "meta": dict(self.meta)}
        try:
            return json.loads(json.dumps(record, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise BrokenSample("wrong field", f"it cannot be written as JSON: {error}", sample=self.id) from None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Sample:
        """Inverse of `to_dict`; only `id` and `messages` are needed.

        Raises:
            BrokenSample: a field is missing, unknown or of the wrong kind.
        """
        if not isinstance(record, Mapping):
            raise BrokenSample("wrong field", f"a sample is a mapping, got {record!r:.80}")
        known = ("id", "messages", "source", "meta")
        name = record.get("id", "")
        for key in record:
            if key not in known:
                raise BrokenSample("wrong field", f"a sample has no '{key}'{nearest(str(key), known)}", sample=name)
        for key in known[:2]:
            if key not in record:
                raise BrokenSample("wrong field", f"a sample needs '{key}'", sample=name)
        return cls(record["id"], record["messages"], record.get("source", ""), dict(record.get("meta") or {}))


def message(role: str, *parts: str | Mapping[str, Any]) -> dict[str, Any]:
    """A message of these parts: a text stands for a text part; see `image`."""
    return {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else dict(p) for p in parts]}


def image(reference: str) -> dict[str, str]:
    """A content part that is a picture."""
    return {"type": "image", "image": reference}


def video(reference: str) -> dict[str, str]:
    """A content part that is a film."""
    return {"type": "video", "video": reference}


def text_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """What is said in messages, one line per text part."""
    return "\n".join(p["text"] for m in messages for p in m["content"] if p["type"] == "text")


def _conversation(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise BrokenSample("wrong field", "messages is a list of {role, content} with at least one entry")
    read = [_message(number, one) for number, one in enumerate(messages)]
    said = read[1:] if read[0]["role"] == "system" else read
    if not said:
        raise BrokenSample("wrong field", "a system message alone is no conversation: a user's message follows it")
    if len(read) == 1 and said[0]["role"] == "assistant":
        return read
    for number, one in enumerate(said):
        if one["role"] != ("user", "assistant")[number % 2]:
            raise BrokenSample(
                "roles out of turn",
                f"message {number + len(read) - len(said)} is of the {one['role']}: user and assistant take turns, the "
                "user first, and a system message comes before all others",
            )
    return read


def _message(number: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or set(message) - {"weight"} != {"role", "content"}:
        raise BrokenSample("wrong field", f"message {number} is not {{role, content}}: {message!r:.80}")
    role, content, weight = message["role"], message["content"], message.get("weight", 1)
    if role not in ROLES:
        raise BrokenSample("unknown role", f"message {number} has the role {role!r}; there is {', '.join(ROLES)}")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise BrokenSample("wrong field", f"the content of message {number} is a list of parts, got {content!r:.80}")
    parts = [_part(number, part) for part in content]
    if not any(part["type"] != "text" or part["text"].strip() for part in parts):
        if role == "assistant":
            raise BrokenSample("empty answer", f"message {number}, of the assistant, says nothing")
        raise BrokenSample("empty message", f"message {number}, of the {role}, says nothing")
    if weight not in (0, 1) or ("weight" in message and role != "assistant"):
        raise BrokenSample(
            "wrong field",
            f"message {number}: weight is 0 (read, not learned) or 1 of an assistant's, got {weight!r:.80}",
        )
    return {"role": role, "content": parts} if weight else {"role": role, "content": parts, "weight": 0}


def _part(number: int, part: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in PARTS:
        raise BrokenSample(
            "wrong field", f"message {number} has a part that is none of {', '.join(PARTS)}: {part!r:.80}"
        )
    if set(part) != {"type", kind} or not isinstance(part[kind], str) or (kind != "text" and not part[kind]):
        wanted = f'{{"type": "{kind}", "{kind}": <{"text" if kind == "text" else "path"}>}}'
        raise BrokenSample("wrong field", f"message {number} has a part that is not {wanted}: {part!r:.80}")
    return {"type": kind, kind: part[kind]}
