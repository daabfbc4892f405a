"""VLFM's value map: how promising each cell is, by the score of the views that saw it, the surer the more central.

Yokoyama et al. 2024, "VLFM" (ICRA), and its official code (`vlfm/mapping/value_map.py`). A view has a score from a
vision-language model ("is there a chair ahead?"). It goes to the cells of the camera's cone, up to the deepest pixel
of their column, with confidence cos^2(angle / (field of view / 2) * 90 degrees), remapped from [0, 1] to [0.25, 1].
Where a new confidence is below 0.35 and below the old one, the new value is dropped; else values and confidences are
averaged, weighted by confidence: v = (c1 v1 + c2 v2) / (c1 + c2), c = (c1^2 + c2^2) / (c1 + c2); or the surer stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from embodied.building import nearest
from maps.base import Memory
from maps.grid import Columns, GridMemory
from maps.sight import look

VALUE = "observation.value"
FUSIONS = ("weighted", "surest")


class ValueMap(GridMemory):
    """Values of C scores and one confidence per cell; the window of them becomes the tokens.

    Reads `observation.value`, (B, C) or (B, V, C): the scores of each view.

    Args:
        width, surroundings: see `maps.grid.GridMemory`.
        scores: C.
        least: confidence at the edge of the cone.
        threshold: confidences below it don't replace surer ones.
        fusion: `weighted` or `surest`.

    Raises:
        ValueError: a size or a fusion that there is not.
    """

    def __init__(
        self,
        width: int,
        scores: int = 1,
        least: float = 0.25,
        threshold: float = 0.35,
        fusion: str = "weighted",
        surroundings: Mapping[str, Any] | None = None,
    ) -> None:
        if scores < 1 or not 0 < least <= 1:
            raise ValueError(f"ValueMap: scores={scores} should be at least 1 and least={least} in (0, 1]")
        if fusion not in FUSIONS:
            raise ValueError(f"ValueMap has no fusion '{fusion}'{nearest(fusion, FUSIONS)}")
        super().__init__(width, scores + 1, surroundings)
        self.scores, self.least, self.threshold, self.fusion = scores, least, threshold, fusion

    @property
    def reads(self) -> tuple[str, ...]:
        return *super().reads, VALUE

    def columns(self) -> Columns:
        return {
            "value": ((self.grid.cells, self.scores), torch.float32, 0.0),
            "confidence": ((self.grid.cells,), torch.float32, 0.0),
        }

    @torch.no_grad()
    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        points = self.place(memory, observation, slots)
        depth = points.view.depth
        scores = self._scores(observation, depth)
        reach = depth.amax(2)
        for view in range(depth.shape[1]):
            sight = look(self.grid, points.agents[:, view], reach[:, view], self.field_of_view, self.far)
            angle = sight.bearing / math.radians(self.field_of_view / 2) * (math.pi / 2)
            sure = angle.cos() ** 2 * (1 - self.least) + self.least
            row, which = sight.seen.nonzero(as_tuple=True)
            at = points.rows[row], sight.cells[row, which]
            self._fuse(memory, at, scores[row, view], sure[row, which])

    def _scores(self, observation: Mapping[str, Any], depth: Tensor) -> Tensor:
        if VALUE not in observation:
            raise ValueError(f"a value map needs {VALUE}; the observation has {', '.join(sorted(observation))}")
        scores = torch.as_tensor(observation[VALUE]).to(depth.device, torch.float32)
        scores = scores.unsqueeze(1) if scores.ndim == 2 else scores
        if scores.shape != (*depth.shape[:2], self.scores):
            wanted = (*depth.shape[:2], self.scores)
            raise ValueError(f"{VALUE} is {tuple(scores.shape)}, but should be {wanted}: episodes, views, scores")
        return scores

    def _fuse(self, memory: Memory, at: tuple[Tensor, Tensor], value: Tensor, sure: Tensor) -> None:
        """New values (N, C) and confidences (N,) of cells, each at most once."""
        before, known = memory["value"][at], memory["confidence"][at]
        sure = torch.where((sure < self.threshold) & (sure < known), torch.zeros_like(sure), sure)
        if self.fusion == "surest":
            surer = sure > known
            memory["value"][at] = torch.where(surer.unsqueeze(-1), value, before)
            memory["confidence"][at] = torch.where(surer, sure, known)
            return
        both = (known + sure).clamp(min=1e-12)
        memory["value"][at] = (before * known.unsqueeze(-1) + value * sure.unsqueeze(-1)) / both.unsqueeze(-1)
        memory["confidence"][at] = (known**2 + sure**2) / both

    def cells(self, memory: Memory, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        row = rows.unsqueeze(1)
        confidence = memory["confidence"][row, index]
        return torch.cat([memory["value"][row, index], confidence.unsqueeze(-1)], dim=-1), confidence > 0

    def values(self, memory: Memory) -> Tensor:
        """(B, C, size, size): the values; 0 where nothing was seen."""
        return self.picture(memory["value"])

    def best_within(self, memory: Memory, slot: int, places: Tensor, radius: float = 0.5, score: int = 0) -> Tensor:
        """(N,) the highest value within `radius` metres of places (N, 2), metres from the grid's middle."""
        known = memory["confidence"][slot] > 0
        cells = known.nonzero().squeeze(1)
        if not len(cells):
            return torch.zeros(len(places), device=memory.device)
        away = torch.cdist(places.to(memory.device, torch.float32), self.grid.centres(cells))
        value = memory["value"][slot, cells, score].expand_as(away)
        best = torch.where(away <= radius, value, torch.full_like(value, -math.inf)).amax(1)
        return torch.where(best.isinf(), torch.zeros_like(best), best)
