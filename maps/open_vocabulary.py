"""An open-vocabulary bird's-eye view: the mean feature of what was seen in each cell, asked with words.

Huang et al. 2023, "Visual Language Maps for Robot Navigation" (ICRA). Pixel features that live in the space of a text
encoder (LSeg's, OpenSeg's) are averaged per cell; a cell's category is the text whose embedding is most like it.
Released: 1000 x 1000 cells of 5 cm, 512 features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maps.base import Memory
from maps.geometry import scatter_sum
from maps.grid import Columns, GridMemory, pixel_features


class OpenVocabularyMap(GridMemory):
    """Mean features of cells; the window of them becomes the tokens.

    Args:
        width, surroundings: see `maps.grid.GridMemory`.
        features: F of `observation.features.<camera>`, and of the texts asked for.
        low: what is lower than this above the floor, in metres, is left out (the floor would speak for what stands on
            it); negative: all is taken.

    Raises:
        ValueError: a size that no map has.
    """

    needs = ("features",)

    def __init__(
        self, width: int, features: int, low: float = 0.1, surroundings: Mapping[str, Any] | None = None
    ) -> None:
        if features < 1:
            raise ValueError(f"OpenVocabularyMap: features must be at least 1, got {features}")
        super().__init__(width, features, surroundings)
        self.features, self.low = features, low

    def columns(self) -> Columns:
        return {
            "sum": ((self.grid.cells, self.features), torch.float32, 0.0),
            "points": ((self.grid.cells,), torch.float32, 0.0),
        }

    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        points = self.place(memory, observation, slots)
        seen = points.seen & (points.heights > self.low)
        features = pixel_features(points.view)[seen]
        at = points.rows.unsqueeze(1) * self.grid.cells + points.cells
        cells, member = torch.unique(at[seen], return_inverse=True)
        where = cells // self.grid.cells, cells % self.grid.cells
        memory["sum"][where] = memory["sum"][where] + scatter_sum(features, member, len(cells))
        memory["points"][where] += scatter_sum(torch.ones_like(member, dtype=torch.float32), member, len(cells))

    def cells(self, memory: Memory, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        row = rows.unsqueeze(1)
        count = memory["points"][row, index]
        return memory["sum"][row, index] / count.clamp(min=1).unsqueeze(-1), count > 0

    def ask(self, memory: Memory, texts: Tensor) -> Tensor:
        """How alike each cell and each text are: cosines (B, Q, size, size); -1 where nothing was seen.

        Args:
            memory: of B slots.
            texts: (Q, F) embeddings, in the space of the features.

        Raises:
            ValueError: embeddings of another width.
        """
        if texts.shape[-1] != self.features:
            raise ValueError(f"texts have {texts.shape[-1]} features, but this map was made for {self.features}")
        cosine = nn.functional.normalize(memory["sum"], dim=-1) @ nn.functional.normalize(texts, dim=-1).T
        return self.picture(torch.where(memory["points"].unsqueeze(-1) > 0, cosine, torch.full_like(cosine, -1.0)))

    def categories(self, memory: Memory, texts: Tensor) -> Tensor:
        """(B, size, size), int64: which of the texts (Q, F) each cell is most like; -1 where nothing was seen."""
        most = self.ask(memory, texts).argmax(1)
        return torch.where(self.picture(memory["points"] > 0), most, -1)

    def find(self, memory: Memory, text: Tensor) -> tuple[Tensor, Tensor]:
        """Where something is: the place (B, 2) of the cell most like a text (F,), metres from where the episode
        began, and its cosine (B,), -1 where nothing was seen."""
        best = self.ask(memory, text.unsqueeze(0)).flatten(1).max(1)
        return self.grid.centres(best.indices), best.values
