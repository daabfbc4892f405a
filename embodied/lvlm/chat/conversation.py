"""Conversations to token ids: checked, rendered, labelled, and never cut through a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from embodied.lvlm.chat.pieces import IGNORED, Encoded, Piece, encode
from embodied.lvlm.chat.template import Measure, Messages

ROLES = ("system", "user", "assistant")


class Renders(Protocol):
    """`Template` and `JinjaTemplate`."""

    def render(self, messages: Messages, measure: Measure, prompt: bool = False) -> list[Piece]: ...


def no_media(part: Mapping[str, Any]) -> Any:
    """The measure of conversations without pictures."""
    raise ValueError(f"there is a part of type {part['type']}, and nothing that says how many tokens it takes")


class ChatEncoder:
    """Conversations to token ids with labels.

    Args:
        tokenizer: a fast one.
        template: how the family writes a conversation.
        max_tokens: the longest allowed; null: any.
        drop_turns: whether earlier turns without pictures are left out, whole, of conversations that are too long;
            otherwise such a conversation is an error.
        placeholder: the id at slots; null: the tokenizer's padding, or 0. The model puts pictures' tokens there.

    Raises:
        ValueError: `max_tokens` is not positive.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Renders,
        max_tokens: int | None = None,
        drop_turns: bool = False,
        placeholder: int | None = None,
    ) -> None:
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"ChatEncoder: max_tokens must be at least 1, got {max_tokens}")
        self.tokenizer, self.template, self.max_tokens, self.drop_turns = tokenizer, template, max_tokens, drop_turns
        pad = tokenizer.pad_token_id
        self.placeholder = placeholder if placeholder is not None else pad if isinstance(pad, int) else 0

    def __call__(
        self, messages: Messages, measure: Measure = no_media, sample: str = "", prompt: bool = False
    ) -> Encoded:
        """A conversation for training, or with `prompt` one that the model is to continue.

        Args:
            messages: `[{"role": ..., "content": [part, ...]}]`, parts as in transformers' chat templates; an
                answer with `"weight": 0` is read and not learned.
            measure: how many tokens a picture takes, by the model's own resolution strategy.
            sample: its id, for messages to the user.

        Raises:
            ValueError: one line that names the sample: an unknown role, roles out of turn, an empty answer, markers and
                pictures that differ in number, more tokens than allowed, nothing to learn.
        """
        where = f"sample '{sample}': " if sample else ""
        try:
            turns = checked(messages, prompt)
            encoded = self._fitting(turns, measure, prompt)
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None
        if not prompt and all(label == IGNORED for label in encoded.labels):
            raise ValueError(f"{where}nothing in it is said by the assistant, so nothing is to be learned")
        return encoded

    def pair(self, messages: Messages, measure: Measure = no_media, sample: str = "") -> tuple[Encoded, list[int]]:
        """For encoder-decoders: the prompt of the last answer, and the ids of that answer alone.

        Raises:
            ValueError: see `__call__`; the last message is not the assistant's.
        """
        if not messages or messages[-1].get("role") != "assistant" or len(messages) < 2:
            raise ValueError(f"sample '{sample}': an encoder-decoder learns the answer to a question; it has none")
        whole = self(messages, measure, sample)
        asked = self(messages[:-1], measure, sample, prompt=True)
        if whole.ids[: len(asked)] == asked.ids:
            return asked, [token for token in whole.labels[len(asked) :] if token != IGNORED]
        # turns were dropped from one and not from the other, or a token spans the two: the labels still are by span
        last = max(i for i, label in enumerate(whole.labels) if label == IGNORED and i < _last_learned(whole.labels))
        return asked, [token for token in whole.labels[last + 1 :] if token != IGNORED]

    def _fitting(self, turns: list[dict[str, Any]], measure: Measure, prompt: bool) -> Encoded:
        encoded = self._encode(turns, measure, prompt)
        needed = len(encoded)
        while self.max_tokens is not None and len(encoded) > self.max_tokens:
            shorter = without_a_turn(turns) if self.drop_turns else None
            if shorter is None:
                pictures = f", {sum(encoded.slots)} of them for pictures" if encoded.media else ""
                hint = "even without its earlier turns" if self.drop_turns else "drop_turns leaves out earlier ones"
                raise ValueError(
                    f"it needs {needed} tokens{pictures}; at most {self.max_tokens} are allowed, and neither a picture "
                    f"nor a turn is ever cut ({hint})"
                )
            turns = shorter
            encoded = self._encode(turns, measure, prompt)
        return encoded

    def _encode(self, turns: list[dict[str, Any]], measure: Measure, prompt: bool) -> Encoded:
        media = [part[part["type"]] for turn in turns for part in turn["content"] if part["type"] != "text"]
        return encode(self.template.render(turns, measure, prompt), self.tokenizer, self.placeholder, media)


def checked(messages: Messages, prompt: bool = False) -> list[dict[str, Any]]:
    """The messages with a list of parts each, if they are a conversation.

    Raises:
        ValueError: they are not, in one line.
    """
    turns = []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"message {number} has the role {role!r}; there is {', '.join(ROLES)}")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])
        for part in parts:
            if part.get("type") not in ("text", "image", "video") or part["type"] not in part:
                raise ValueError(f"message {number} has a part that is no text, image or video: {part!r:.80}")
        if not any(part["type"] != "text" or part["text"].strip() for part in parts):
            raise ValueError(f"message {number}, of the {role}, is empty")
        if role == "system" and any(part["type"] != "text" for part in parts):
            raise ValueError("a system message has text alone")
        turns.append({"role": role, "content": parts, "weight": message.get("weight", 1)})
    said = turns[1:] if turns and turns[0]["role"] == "system" else turns
    if not said:
        raise ValueError("there is no message of a user or assistant in it")
    document = len(turns) == 1 and said[0]["role"] == "assistant"
    for number, turn in enumerate(said):
        wanted = "assistant" if document else ("user", "assistant")[number % 2]
        if turn["role"] != wanted:
            place = number + len(turns) - len(said)
            raise ValueError(f"message {place} is of the {turn['role']} where the {wanted}'s turn is")
    if prompt and said[-1]["role"] != "user":
        raise ValueError("it ends with the assistant: there is nothing to answer")
    return turns


def without_a_turn(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The conversation without its earliest question and answer that hold no picture; None: there is none to spare."""
    first = 1 if turns[0]["role"] == "system" else 0
    for at in range(first, len(turns) - 2, 2):
        if all(part["type"] == "text" for turn in turns[at : at + 2] for part in turn["content"]):
            return [*turns[:at], *turns[at + 2 :]]
    return None


def _last_learned(labels: Sequence[int]) -> int:
    return max(i for i, label in enumerate(labels) if label != IGNORED)
