"""A chat template as data: what stands before, around and behind what each role says.

One YAML per family in `conf/chat`. Every string is literal but for what stands in braces; special tokens are written as
the family's tokenizer spells them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from embodied.lvlm.chat.media import Film, Measured
from embodied.lvlm.chat.pieces import Piece, Slot, Text, is_learned

Messages = Sequence[Mapping[str, Any]]
Measure = Callable[[Mapping[str, Any]], Measured | Film]
"""A content part of a picture or film, `{"type": "image", "image": ...}`, to how many tokens it takes."""

CONTENT, TOKENS = "{text}", "{tokens}"


class Template:
    """How a family writes a conversation.

    Args:
        user: `{text}` is what the user says, pictures included.
        assistant: what the model reads before it answers.
        answer: `{text}` is what it says. All of `answer` is learned: what ends the answer belongs into it, and a space
            before the first word, since tokenizers make one token of both.
        after: stands behind an answer and is not learned.
        end: stands behind the last answer and is learned, for families whose answers end where the next user begins.
        begin: before all else.
        system: `{text}` is the system message; null: it is part of the first user message, see `user_with_system`.
        user_with_system: the first user message then, with `{system}` and `{text}`.
        default_system: of conversations that have none; null: nothing.
        image: `{tokens}` are a picture's.
        tile, row_end, overview: for pictures in tiles, where the family names them: each tile (`{row}` and `{column}`
            from 1), what ends a row of them, and the whole picture; null: a picture is one run of tokens.
        video: `{frames}` are a film's.
        frame: each frame, with `{number}` from 1, `{seconds}` and `{tokens}`.
        marker: in text, stands for a picture of the same message.
        strip: whether spaces around each text are cut off, as the families' own templates do.
        questions: whether the text of users is read; without, only their pictures are (caption alignment).

    Raises:
        ValueError: a string without the part in braces that it needs.
    """

    def __init__(
        self,
        user: str,
        assistant: str,
        answer: str,
        after: str = "",
        end: str = "",
        begin: str = "",
        system: str | None = None,
        user_with_system: str | None = None,
        default_system: str | None = None,
        image: str = TOKENS,
        tile: str | None = None,
        row_end: str = "",
        overview: str | None = None,
        video: str = "{frames}",
        frame: str = TOKENS,
        marker: str = "<image>",
        strip: bool = True,
        questions: bool = True,
    ) -> None:
        needed = {"user": user, "answer": answer, "system": system, "user_with_system": user_with_system}
        for name, text in needed.items():
            if text is not None and text.count(CONTENT) != 1:
                raise ValueError(f"chat.{name} needs {CONTENT} once, got {text!r}")
        needed = {"image": image, "tile": tile, "overview": overview, "frame": frame}
        for name, text in needed.items():
            if text is not None and text.count(TOKENS) != 1:
                raise ValueError(f"chat.{name} needs {TOKENS} once, got {text!r}")
        if video.count("{frames}") != 1:
            raise ValueError(f"chat.video needs {{frames}} once, got {video!r}")
        if user_with_system is not None and user_with_system.count("{system}") != 1:
            raise ValueError(f"chat.user_with_system needs {{system}} once, got {user_with_system!r}")
        if default_system is not None and system is None and user_with_system is None:
            raise ValueError("chat.default_system needs chat.system or chat.user_with_system to say where it stands")
        if (tile is None) != (overview is None):
            raise ValueError("chat.tile and chat.overview belong together: give both or neither")
        self.user, self.assistant, self.answer, self.after, self.end, self.begin = (
            user,
            assistant,
            answer,
            after,
            end,
            begin,
        )
        self.system, self.user_with_system, self.default_system = system, user_with_system, default_system
        self.image, self.tile, self.row_end, self.overview = image, tile, row_end, overview
        self.video, self.frame, self.marker, self.strip, self.questions = video, frame, marker, strip, questions

    def render(self, messages: Messages, measure: Measure, prompt: bool = False) -> list[Piece]:
        """A checked conversation (`embodied.lvlm.chat.conversation`) as pieces.

        Args:
            messages: system (or none), then user and assistant in turn; or a document, one message of the assistant.
            measure: how many tokens each picture takes.
            prompt: whether the conversation is to be continued by an answer.

        Raises:
            ValueError: a system message where the family has no place for one; markers and pictures differ in number.
        """
        pieces: list[Piece] = [Text(self.begin)]
        system, turns = None, list(messages)
        if turns[0]["role"] == "system":
            system = self._plain(turns.pop(0))
        elif self.default_system is not None and turns[0]["role"] != "assistant":
            system = self.default_system
        if system is not None and self.system is not None:
            pieces.append(Text(self.system.replace(CONTENT, system)))
            system = None
        document = turns[0]["role"] == "assistant"
        for message in turns:
            if message["role"] == "user":
                around = self.user
                if system is not None:
                    if self.user_with_system is None:
                        raise ValueError("this chat template has no place for a system message")
                    around, system = self.user_with_system.replace("{system}", system), None
                pieces += self._said(around, message, measure, False, self.questions)
            else:
                if not document:
                    pieces.append(Text(self.assistant))
                pieces += self._said(self.answer, message, measure, is_learned(message))
                pieces.append(Text(self.after))
        if prompt:
            pieces.append(Text(self.assistant))
        elif turns[-1]["role"] == "assistant":
            pieces.append(Text(self.end, is_learned(turns[-1])))
        return pieces

    def _said(
        self, around: str, message: Mapping[str, Any], measure: Measure, learned: bool, words: bool = True
    ) -> Iterator[Piece]:
        before, after = around.split(CONTENT)
        yield Text(before, learned)
        for part in self._in_order(message):
            if part["type"] == "text":
                if words:
                    yield Text(part["text"], learned)
            else:
                yield from self._seen(measure(part))
        yield Text(after, learned)

    def _in_order(self, message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Its parts, pictures where their markers stand, text stripped at both ends of the message."""
        parts = list(message["content"])
        marks = sum(part["text"].count(self.marker) for part in parts if part["type"] == "text") if self.marker else 0
        if marks:
            pictures = [part for part in parts if part["type"] == "image"]
            if marks != len(pictures):
                raise ValueError(
                    f"the {message['role']}'s text has {marks} times {self.marker}, its message {len(pictures)} images"
                )
            left, placed = iter(pictures), []
            for part in parts:
                if part["type"] == "text":
                    for number, text in enumerate(part["text"].split(self.marker)):
                        placed += ([next(left)] if number else []) + ([{"type": "text", "text": text}] if text else [])
                elif part["type"] != "image":
                    placed.append(part)
            parts = placed
        if self.strip:
            parts = [dict(part) for part in parts]
            if parts and parts[0]["type"] == "text":
                parts[0]["text"] = parts[0]["text"].lstrip()
            if parts and parts[-1]["type"] == "text":
                parts[-1]["text"] = parts[-1]["text"].rstrip()
        return parts

    def _plain(self, message: Mapping[str, Any]) -> str:
        text = "".join(part["text"] for part in message["content"])
        return text.strip() if self.strip else text

    def _seen(self, seen: Measured | Film) -> Iterator[Piece]:
        if isinstance(seen, Measured):
            yield from self._picture(seen)
            return
        before, after = self.video.split("{frames}")
        yield Text(before)
        for number, (frame, seconds) in enumerate(zip(seen.frames, seen.seconds, strict=True), 1):
            text = self.frame.replace("{number}", str(number)).replace("{seconds}", f"{seconds:.1f}")
            yield from _around(text, frame.count)
        yield Text(after)

    def _picture(self, seen: Measured) -> Iterator[Piece]:
        if self.tile is None or self.overview is None or len(seen.runs) == 1:
            yield from _around(self.image, seen.count)
            return
        row, column = 1, 1
        for number, count in enumerate(seen.runs):
            if number == seen.overview:
                yield from _around(self.overview, count)
                continue
            yield from _around(self.tile.replace("{row}", str(row)).replace("{column}", str(column)), count)
            column += 1
            if column > seen.tiles[1]:
                yield Text(self.row_end)
                row, column = row + 1, 1


def _around(text: str, count: int) -> Iterator[Piece]:
    before, after = text.split(TOKENS)
    yield from (Text(before), Slot(count), Text(after))
