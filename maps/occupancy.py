"""The plain bird's-eye view: which cells are free, which are in the way, and of what category they are.

A cell is *occupied* once `hits` points between `low` metres above the floor and the ceiling fell into it, *free* once
it was looked over without, and its category is what most of these points said. The update is one pass over the new
pixels and the cells in front of the camera; `benchmarks/map_update.py` has it cell by cell too, to compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maps.base import Memory
from maps.grid import Columns, GridMemory, Points
from maps.sight import look


class OccupancyMap(GridMemory):
    """Free space, obstacles and, with `classes`, their categories.

    Args:
        classes: how many categories `observation.semantic.<camera>` tells apart; 0 reads none.
        low: what is lower than this above the floor, in metres, is no obstacle.
        hits: how many points make an obstacle.
        surroundings: the camera and the grid, see `maps.grid.Surroundings`.

    Raises:
        ValueError: a size that no map has.
    """

    def __init__(
        self,
        width: int,
        classes: int = 0,
        low: float = 0.15,
        hits: int = 1,
        surroundings: Mapping[str, Any] | None = None,
    ) -> None:
        if classes < 0 or hits < 1:
            raise ValueError(f"OccupancyMap: classes={classes} and hits={hits} should be at least 0 and 1")
        super().__init__(width, 2 + classes, surroundings)
        self.classes, self.low, self.hits = classes, low, hits
        self.needs = ("semantic",) if classes else ()

    def columns(self) -> Columns:
        columns: Columns = {
            "looked": ((self.grid.cells,), torch.bool, 0),
            "points": ((self.grid.cells,), torch.int32, 0),
        }
        if self.classes:
            columns["labels"] = ((self.grid.cells, self.classes), torch.int32, 0)
        return columns

    @torch.no_grad()
    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        points = self.place(memory, observation, slots)
        solid = points.seen & (points.heights > self.low)
        at = (points.rows.unsqueeze(1) * self.grid.cells + points.cells)[solid]
        memory["points"].view(-1).index_add_(0, at, torch.ones_like(at, dtype=torch.int32))
        if self.classes:
            assert points.view.labels is not None
            labels = points.view.labels.flatten(1)[solid]
            known = (labels >= 0) & (labels < self.classes)
            flat = at[known] * self.classes + labels[known]
            memory["labels"].view(-1).index_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
        self._look(memory, points)

    def _look(self, memory: Memory, points: Points) -> None:
        """Mark what was looked over: in each column up to the nearest obstacle, or as far as it sees."""
        depth = points.view.depth
        heights = points.heights.view_as(depth)
        sure = (depth > self.near) & (heights < self.ceiling)
        nothing = torch.full_like(depth, torch.inf)
        nearest = torch.where(sure & (heights > self.low), depth, nothing).amin(2)  # (B, V, W)
        farthest = torch.where(depth > self.near, depth, torch.zeros_like(depth)).amax(2)
        reach = torch.where(nearest.isinf(), farthest, nearest).flatten(0, 1)
        sight = look(self.grid, points.agents.flatten(0, 1), reach, self.field_of_view, self.far)
        rows = points.rows.repeat_interleave(depth.shape[1]).unsqueeze(1).expand_as(sight.cells)
        memory["looked"][rows[sight.seen], sight.cells[sight.seen]] = True

    def occupied(self, memory: Memory) -> Tensor:
        """(B, size, size), bool: something is in the way."""
        return self.picture(memory["points"] >= self.hits)

    def free(self, memory: Memory) -> Tensor:
        """(B, size, size), bool: looked over, and nothing was in the way."""
        return self.picture(memory["looked"] & (memory["points"] < self.hits))

    def explored(self, memory: Memory) -> Tensor:
        """(B, size, size), bool: free or occupied."""
        return self.picture(memory["looked"] | (memory["points"] >= self.hits))

    def categories(self, memory: Memory) -> Tensor:
        """(B, size, size), int64: the category of each occupied cell; -1 where none was told."""
        most = memory["labels"].max(-1)
        return self.picture(torch.where(most.values > 0, most.indices, -1))

    def told(self, memory: Memory, category: int, least: int = 1) -> Tensor:
        """(B, size, size), bool: at least so many points were said to be of a category, whatever the others say."""
        return self.picture(memory["labels"][..., category] >= least)

    def block(self, memory: Memory, slot: int, places: Tensor) -> None:
        """Something is in the way at places (N, 2), metres from the grid's middle, that no view showed: it was met."""
        cells, inside = self.grid.index(places.to(memory.device))
        memory["points"][slot, cells[inside]] += self.hits

    def cells(self, memory: Memory, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        row = rows.unsqueeze(1)
        occupied = memory["points"][row, index] >= self.hits
        free = memory["looked"][row, index] & ~occupied
        values = torch.stack([free, occupied], dim=-1).float()
        if self.classes:
            counts = memory["labels"][row, index].float()
            values = torch.cat([values, counts / counts.sum(-1, keepdim=True).clamp(min=1)], dim=-1)
        return values, free | occupied
