"""An encoder learns to see from captions alone, before any language model reads it: visual n-grams.

What a caption says are words and pairs of words; the maximum of the encoder's features over the picture predicts which
(Joulin et al. 2016, arXiv 1511.02251; Li et al. 2017, arXiv 1612.09161). One pass over a picture learns from all of
them at once, where a language model learns to look only once there is something to see. The predicting layer is thrown
away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.assistant import Assistant
from embodied.lvlm.chat.pieces import IGNORED
from embodied.training.encoder_lesson import EncoderLesson

Gram = tuple[int, ...]


class VisualWords(EncoderLesson):
    """An assistant whose encoder is being taught words.

    Args:
        assistant: its encoder learns; nothing else of it is used but its tokenizer.
        words: what to predict, as token ids; see `frequent`.

    Raises:
        ValueError: the assistant sees nothing, or there are no words.
    """

    objective = "words"

    def __init__(self, assistant: Assistant, words: Sequence[Gram]) -> None:
        super().__init__(assistant)
        if not words:
            raise ValueError("objective: words found no words in the answers of its data")
        self.words = {gram: place for place, gram in enumerate(words)}
        self.head = nn.Linear(self.encoder.dim, len(words))

    @classmethod
    def of(cls, assistant: Assistant, answers: Iterable[str]) -> VisualWords:
        """A lesson in the words of these answers."""
        return cls(
            assistant, frequent(assistant.tokenizer(f" {a}", add_special_tokens=False)["input_ids"] for a in answers)
        )

    def loss(self, batch: Mapping[str, Any], generators: Any = None) -> dict[str, Tensor]:
        """Binary cross-entropy of which words each sample's answers say, a mean over words and samples.

        Args:
            batch: of `Assistant.collate`; samples have one picture each.
            generators: none are needed.

        Raises:
            ValueError: a sample has no picture, or several.
        """
        pictures = self.pictures(batch)
        said = batch["labels"]
        targets = torch.zeros(len(said), len(self.words), device=said.device)
        for row, labels in enumerate(said.tolist()):
            found = {self.words[gram] for gram in grams(labels) if gram in self.words}
            targets[row, sorted(found)] = 1.0
        seen = torch.stack([features.amax(0) for features in self.vision.features(pictures)])
        loss = F.binary_cross_entropy_with_logits(self.head(seen), targets)
        return {"loss": loss}


def grams(labels: Iterable[int]) -> Iterator[Gram]:
    """Single tokens and pairs of neighbours among those that are learned."""
    before = IGNORED
    for token in labels:
        if token != IGNORED:
            yield (token,)
            if before != IGNORED:
                yield (before, token)
        before = token


def frequent(answers: Iterable[Sequence[int]], most: int = 512, least: int | None = None) -> list[Gram]:
    """The words and pairs that tell answers apart: said in at least `least` of them and not in nearly all.

    Args:
        answers: token ids of each.
        most: how many at most, the most frequent first.
        least: in how many answers a word is said; None: in one of a thousand, and in two.
    """
    counts: Counter[Gram] = Counter()
    total = 0
    for answer in answers:
        counts.update(set(grams(answer)))
        total += 1
    least = max(2, total // 1000) if least is None else least
    told = [(gram, count) for gram, count in counts.items() if least <= count < 0.95 * total]
    return [gram for gram, _ in sorted(told, key=lambda item: (-item[1], item[0]))[:most]]
