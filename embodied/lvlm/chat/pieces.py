"""A rendered conversation as pieces of text and places for pictures, and these as token ids with labels by span.

What is learned is decided where a piece is rendered, by who speaks, and carried to the tokens by the tokenizer's
offsets. Nothing is ever searched for in the text, so a word that looks like a role cannot shift a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that is read and not learned, as in torch and transformers."""


@dataclass(frozen=True)
class Text:
    """Some text, and whether it is to be learned."""

    text: str
    learned: bool = False


@dataclass(frozen=True)
class Slot:
    """A place for `count` tokens of a picture."""

    count: int


Piece = Text | Slot


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether what a message says is to be learned: an assistant's is, unless its `weight` is 0."""
    return bool(message["role"] == "assistant" and message.get("weight", 1))


@dataclass(frozen=True)
class Encoded:
    """One conversation as token ids, all of one length N.

    Attributes:
        ids: N; the placeholder at slots.
        labels: N; the id where it is learned, `IGNORED` elsewhere.
        slots: N; whether a token of a picture stands here.
        media: references of its pictures and films, in the order of their slots.
    """

    ids: list[int]
    labels: list[int]
    slots: list[bool]
    media: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def encode(
    pieces: Sequence[Piece], tokenizer: PreTrainedTokenizerBase, placeholder: int = 0, media: Sequence[str] = ()
) -> Encoded:
    """Pieces to token ids.

    Text between two slots is tokenised as a whole, so its tokens are those of the tokenizer's own chat template. A
    token is learned where it holds a character that is.

    Raises:
        ValueError: the tokenizer is none of the fast ones, which alone know where in the text a token lies.
    """
    if not tokenizer.is_fast:
        raise ValueError("labels by span need a fast tokenizer (tokenizer.json): this one knows no offsets")
    ids: list[int] = []
    labels: list[int] = []
    slots: list[bool] = []
    waiting: list[Text] = []

    def spell() -> None:
        text = "".join(piece.text for piece in waiting)
        learned = [piece.learned for piece in waiting for _ in piece.text]
        waiting.clear()
        if not text:
            return
        spelled = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(spelled["input_ids"], spelled["offset_mapping"], strict=True):
            ids.append(token)
            labels.append(token if any(learned[start:end]) else IGNORED)
            slots.append(False)

    for piece in pieces:
        if isinstance(piece, Text):
            waiting.append(piece)
            continue
        spell()
        ids += [placeholder] * piece.count
        labels += [IGNORED] * piece.count
        slots += [True] * piece.count
    spell()
    return Encoded(ids, labels, slots, tuple(media))
