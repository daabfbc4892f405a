"""A model that answers questions about pictures from a file, as a user's own responder would be."""

import json
from pathlib import Path


class Answering:
    """Answers a conversation with what a file of `{text of the last user turn: answer}` says, `default` otherwise.

    Args:
        file: JSON.
        default: what it says to anything else.
        fails_after: raise KeyboardInterrupt after so many batches.

    Attributes:
        asked: every batch, as it came.
    """

    def __init__(self, file=None, default="", fails_after=None):
        self.answers = json.loads(Path(file).read_text()) if file else {}
        self.default, self.fails_after = default, fails_after
        self.asked, self.settings = [], []

    def respond(self, conversations, **settings):
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked.append(conversations)
        self.settings.append(settings)
        return [self.answers.get(said(conversation), self.default) for conversation in conversations]

    def loglikelihood(self, conversations, continuations):
        right = [self.answers.get(said(c), self.default) for c in conversations]
        return [(0.0 if a == b else -float(len(b)), a == b) for a, b in zip(right, continuations, strict=True)]

    def describe(self):
        return {"name": "answering", "template": "{{ messages }}"}


def said(conversation):
    """The text of the last turn."""
    return "".join(part["text"] for part in conversation[-1]["content"] if part["type"] == "text")
