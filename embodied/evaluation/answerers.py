"""Who answers a policy that acts in words: a language model in a folder, a responder of your own, or a judge.

Judges (`embodied.evaluation.scorers.judges`) are programs and HTTP endpoints that answer a prompt with text, which is
all that is asked here; they see no pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from embodied.evaluation.scorers.judges import Judge, NoVerdict
from embodied.evaluation.tasks.base import Generation, Responder


class Answerer(ABC):
    """Answers prompts with text.

    Attributes:
        sees: whether it looks at pictures.
    """

    sees = False

    @abstractmethod
    def answer(self, prompts: Sequence[str], pictures: Sequence[Sequence[np.ndarray]]) -> list[str]:
        """One text per prompt.

        Args:
            prompts: P of them.
            pictures: of each prompt, uint8 (H, W, 3) each; they come before its words. Empty where `sees` is False.
        """


class ModelAnswerer(Answerer):
    """A language model with eyes.

    Args:
        folder: of a model, a checkpoint or a run, as `embodied-eval task=... policy=<folder>` takes it; or
        responder: anything that continues conversations.
        device: for a folder: auto, cpu, cuda, ...
        sees: False for a model without an encoder.
        max_new_tokens, temperature, top_p, stop, seed: see `Responder.respond`.

    Raises:
        ValueError: both or neither are given; the folder holds no model that talks.
    """

    def __init__(
        self,
        folder: str | None = None,
        responder: Any = None,
        device: str = "auto",
        sees: bool = True,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if (folder is None) == (responder is None):
            raise ValueError("ModelAnswerer: give the folder of a model, or a responder")
        self.generation = Generation(max_new_tokens, temperature, top_p, tuple(stop), seed)
        if folder is not None:
            from embodied.evaluation.tasks.loading import load_responder

            responder = load_responder(folder, device)
        if not isinstance(responder, Responder):
            raise ValueError(f"ModelAnswerer: {type(responder).__name__} has not the methods of a Responder")
        self.responder, self.sees = responder, sees

    def answer(self, prompts: Sequence[str], pictures: Sequence[Sequence[np.ndarray]]) -> list[str]:
        conversations = []
        for prompt, shown in zip(prompts, pictures, strict=True):
            parts: list[dict[str, Any]] = [{"type": "image", "image": Image.fromarray(each)} for each in shown]
            conversations.append([{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}])
        return self.responder.respond(conversations, **self.generation.to_dict())


class JudgeAnswerer(Answerer):
    """A program, or a model behind an endpoint that speaks OpenAI's chat completions.

    Args:
        judge: `CommandJudge` or `HTTPJudge`.
        tolerate: how many prompts may stay without an answer, which is then an empty one, before that is an error.

    Raises:
        ValueError: it is no judge.
    """

    def __init__(self, judge: Judge, tolerate: int = 0) -> None:
        if not isinstance(judge, Judge):
            raise ValueError(f"JudgeAnswerer: {type(judge).__name__} is no judge")
        self.judge, self.tolerate, self.silent = judge, tolerate, 0

    def answer(self, prompts: Sequence[str], pictures: Sequence[Sequence[np.ndarray]]) -> list[str]:
        return [self._ask(prompt) for prompt in prompts]

    def _ask(self, prompt: str) -> str:
        try:
            return self.judge.ask(prompt)
        except NoVerdict:
            self.silent += 1
            if self.silent > self.tolerate:
                raise
            return ""
