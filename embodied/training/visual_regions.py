"""An encoder learns to see where which things are, before any language model reads it: dense detection.

Every cell of the encoder's grid says whether a thing is there, which words and pairs of words its description has, and
how far it reaches to the left, up, right and down (FCOS: Tian et al. 2019, arXiv 1904.01355; boxes by generalised IoU:
Rezatofighi et al. 2019, arXiv 1902.09630). The descriptions are free text, as in a grounded caption, `small red ball
[120,40,480,999], cone [...]`; boxes are x1, y1, x2, y2 from 0 to 999. One pass over a picture teaches all its cells,
where a language model would have to find each thing by a word of its answer. The head is thrown away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.assistant import Assistant
from embodied.lvlm.chat.pieces import IGNORED
from embodied.training.encoder_lesson import EncoderLesson
from embodied.training.visual_words import Gram, frequent, grams

REGION = re.compile(r"([^\[\],;]+?)\s*\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\]")
GRID = 999.0
MIDDLE = 0.5
"""The part of a box, from its middle on, whose cells are to find it."""
WEIGHTS = {"thing": 4.0, "words": 2.0, "boxes": 1.0}
"""Of the parts of the loss: means over many cells, or over many words, are small."""
Region = tuple[str, tuple[float, float, float, float]]


class VisualRegions(EncoderLesson):
    """An assistant whose encoder is being taught things and their boxes.

    Args:
        assistant: its encoder learns; nothing else of it is used but its tokenizer.
        words: of descriptions, as token ids; see `frequent`.

    Raises:
        ValueError: the assistant sees nothing, or there are no words.
    """

    objective = "regions"

    def __init__(self, assistant: Assistant, words: Sequence[Gram]) -> None:
        super().__init__(assistant)
        if not words:
            raise ValueError("objective: regions found no `description [x1,y1,x2,y2]` in the answers of its data")
        self.words = {gram: place for place, gram in enumerate(words)}
        self.head = nn.Linear(self.encoder.dim, 1 + len(words) + 4)
        with torch.no_grad():
            self.head.bias.zero_()
            self.head.bias[0] = -math.log(19)  # one cell of twenty has a thing: as focal loss begins (Lin et al. 2017)
            self.head.bias[-4:] = -2.0

    @classmethod
    def of(cls, assistant: Assistant, answers: Iterable[str]) -> VisualRegions:
        phrases = chain.from_iterable((phrase for phrase, _ in regions(answer)) for answer in answers)
        return cls(assistant, frequent(_ids(assistant, phrase) for phrase in phrases))

    def loss(self, batch: Mapping[str, Any], generators: Any = None) -> dict[str, Tensor]:
        """Of all cells, whether there is a thing; of those with one, its words and its box; means over each.

        Args:
            batch: of `Assistant.collate`; samples have one picture of one view each.
            generators: none are needed.

        Returns:
            `loss`, and its parts `thing` (binary cross-entropy), `words` (the same, mean over words) and `boxes`
            (1 - generalised IoU).

        Raises:
            ValueError: a sample has no picture, several, or one of several views.
        """
        pictures = self.pictures(batch)
        things, words, boxes, predicted = [], [], [], []
        for picture, features, labels in zip(
            pictures, self.vision.features(pictures), batch["labels"].tolist(), strict=True
        ):
            if (views := len(picture.views)) != 1:
                raise ValueError(f"objective: regions learns from pictures of one view, and one has {views}")
            rows, columns = self.encoder.grid(*picture.views[0][0].shape[-2:])
            said = str(self.assistant.tokenizer.decode([token for token in labels if token != IGNORED]))
            thing, word, box = self._targets(regions(said), rows, columns)
            things.append(thing.to(features.device))
            words.append(word.to(features.device))
            boxes.append(box.to(features.device))
            predicted.append(self.head(features))
        told, thing = torch.cat(predicted), torch.cat(things)
        there = thing > 0
        parts = {"thing": F.binary_cross_entropy_with_logits(told[:, 0], thing)}
        found, target = told[there], torch.cat(boxes)[there]
        if len(found):
            parts["words"] = F.binary_cross_entropy_with_logits(found[:, 1:-4], torch.cat(words)[there])
            reach = F.softplus(found[:, -4:])
            parts["boxes"] = (1 - generalised_iou(around(target[:, 4:], reach), target[:, :4])).mean()
        else:
            parts["words"] = parts["boxes"] = told.sum() * 0
        return {"loss": torch.stack([WEIGHTS[name] * part for name, part in parts.items()]).sum(), **parts}

    def _targets(self, things: Sequence[Region], rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """For each cell: whether a thing is there (N,), its words (N, W), its box and the cell's middle (N, 6)."""
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        middles = torch.stack([x.flatten(), y.flatten()], -1)
        thing = torch.zeros(rows * columns)
        words = torch.zeros(rows * columns, len(self.words))
        boxes = torch.cat([torch.zeros(rows * columns, 4), middles], -1)
        for phrase, box in sorted(things, key=lambda one: -area(one[1])):  # of two in one cell, the smaller
            edges = torch.tensor(box)
            centre, half = (edges[:2] + edges[2:]) / 2, (edges[2:] - edges[:2]) / 2
            inside = ((middles - centre).abs() <= MIDDLE * half).all(-1)
            inside[(middles - centre).abs().sum(-1).argmin()] = True  # small things have a cell of their own too
            thing[inside] = 1.0
            said = {self.words[gram] for gram in grams(_ids(self.assistant, phrase)) if gram in self.words}
            words[inside] = F.one_hot(torch.tensor(sorted(said), dtype=torch.long), len(self.words)).sum(0).float()
            boxes[inside, :4] = edges
        return thing, words, boxes


def regions(text: str) -> list[Region]:
    """The descriptions of a text and their boxes, x1, y1, x2, y2 from 0 to 1."""
    return [
        (phrase.strip(), tuple(int(edge) / GRID for edge in edges))  # type: ignore[misc]
        for phrase, *edges in REGION.findall(text)
    ]


def area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def around(middles: Tensor, reach: Tensor) -> Tensor:
    """Boxes (N, 4) that reach so far, (N, 4), from middles (N, 2) to the left, up, right and down."""
    return torch.cat([middles - reach[:, :2], middles + reach[:, 2:]], -1)


def generalised_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Of pairs of boxes (N, 4), x1, y1, x2, y2; in [-1, 1]."""
    sizes = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1) for b in (boxes, others)]
    inner = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    outer = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    both, hull = inner.prod(-1), outer.prod(-1).clamp(min=1e-9)
    union = (sizes[0] + sizes[1] - both).clamp(min=1e-9)
    return both / union - (hull - union) / hull


def _ids(assistant: Assistant, phrase: str) -> list[int]:
    ids: list[int] = assistant.tokenizer(f" {phrase}", add_special_tokens=False)["input_ids"]
    return ids
