"""A released checkpoint's own jinja chat template, with labels by who speaks.

What is learned is found by rendering the conversation up to each answer, once with the generation prompt and once with
the answer: the difference is the answer. The jinja code runs in transformers' own sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from embodied.lvlm.chat.media import Measured
from embodied.lvlm.chat.pieces import Piece, Slot, Text, is_learned
from embodied.lvlm.chat.template import Measure, Messages


class JinjaTemplate:
    """The template that a tokenizer carries.

    Args:
        tokenizer: with a chat template.
        image: what the template writes for one picture (`<image>`, `<|image_pad|>`); its other text stays around it.
        video: what it writes for a film (`<video>`, `<|video_pad|>`), whose frames' tokens stand there one behind the
            other, as transformers' processors put them.

    Raises:
        ValueError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image: str = "<image>", video: str = "<video>") -> None:
        if not tokenizer.chat_template:
            raise ValueError("this tokenizer has no chat template of its own: choose one with chat=<family>")
        self.tokenizer, self.markers = tokenizer, {"image": image, "video": video}

    def render(self, messages: Messages, measure: Measure, prompt: bool = False) -> list[Piece]:
        """As `Template.render`.

        Raises:
            ValueError: the template refuses the conversation, rewrites what was said before, or shows other pictures
                and films than there are.
        """
        whole = self._text(messages, prompt)
        spans = []
        for number, message in enumerate(messages):
            if is_learned(message):
                start = len(self._beginning(whole, self._text(messages[:number], True)))
                said = self._beginning(whole, self._text(messages[: number + 1], False))
                spans.append((start, len(said.rstrip("\n"))))
        media = [part for message in messages for part in message["content"] if part["type"] != "text"]
        texts = re.split("(" + "|".join(map(re.escape, self.markers.values())) + ")", whole)
        expected = [self.markers[part["type"]] for part in media]
        if texts[1::2] != expected:
            said = " ".join(texts[1::2]) or "nothing"
            raise ValueError(
                f"the chat template writes {said} where the messages have {' '.join(expected) or 'nothing'}"
            )
        pieces: list[Piece] = []
        at = 0
        for number, text in enumerate(texts):
            if number % 2:
                seen = measure(media[number // 2])
                frames = [seen] if isinstance(seen, Measured) else seen.frames
                pieces.append(Slot(sum(frame.count for frame in frames)))
                at += len(text)
                continue
            cuts = sorted({0, len(text), *(min(max(edge - at, 0), len(text)) for span in spans for edge in span)})
            for start, end in pairwise(cuts):
                learned = any(a <= at + start and at + end <= b for a, b in spans)
                pieces.append(Text(text[start:end], learned))
            at += len(text)
        return pieces

    def _text(self, messages: Messages, prompt: bool) -> str:
        plain = [{"role": message["role"], "content": self._content(message)} for message in messages]
        try:
            return str(self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))
        except Exception as error:  # templates raise whatever they like, jinja's errors included
            raise ValueError(f"the tokenizer's chat template refuses this conversation: {error}") from None

    def _content(self, message: Mapping[str, Any]) -> Any:
        parts = message["content"]
        if all(part["type"] == "text" for part in parts):
            return "".join(part["text"] for part in parts)
        return [dict(part) for part in parts]

    def _beginning(self, whole: str, text: str) -> str:
        if not whole.startswith(text):
            raise ValueError(
                "this chat template rewrites earlier turns, so labels cannot be found: use one of conf/chat"
            )
        return text
