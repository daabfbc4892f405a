"""GridMM: all patches ever seen, laid on an egocentric grid at each step, each cell told by what the text asks for.

Wang et al. 2023, "GridMM" (ICCV), and its official code (`map_nav_src/r2r/env.py`, `models/vilmodel.py`). The memory is
the patches' features g with their places in the plan. To read it, the places are turned into the agent's frame and a
square of half side L = 2/3 of the largest extent is cut into 14 x 14 cells; what is farther counts to the border. A
patch's relevance is w = max over the text's tokens t of g . (W_t t), and a cell is the softmax-weighted mean of W_g g
over its patches, plus an embedding of its place: LayerNorm(Linear(sine and cosine of heading and elevation, distance /
30)). One scatter softmax does all cells of all episodes at once. Cells that hold something then attend to each other
and to the text. Released: CLIP ViT-B/32 patches, 7 x 7 of each of 12 views a step, width 768.

Writing costs the new patches. Reading costs the patches kept, at most `capacity`; beyond it the oldest are forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maps.attention import CrossModalLayer, check_heads
from maps.base import MapMemory, MapTokens, Memory, Text
from maps.geometry import heading_of, scatter_softmax, scatter_sum, to_egocentric, unproject

DISTANCE = 30.0
"""Metres that distances are divided by, as in DUET."""


class GridMM(MapMemory):
    """An egocentric grid of patches, aggregated by their relevance to the instruction.

    Args:
        width: size D of a token, and of the text's.
        features: F of `observation.features.<camera>`.
        camera: whose observations are read; each feature lies where the depth at its patch's middle says.
        field_of_view: of that camera, in degrees across the width.
        near, far: depths outside of these, in metres, are not believed.
        cells: cells per side of the grid.
        capacity: patches kept per episode.
        heads, feed_forward, dropout: of the two attention layers.

    Raises:
        ValueError: a size that no map has.
    """

    needs = ("features",)

    def __init__(
        self,
        width: int,
        features: int,
        camera: str = "front",
        field_of_view: float = 90.0,
        near: float = 0.05,
        far: float = 10.0,
        cells: int = 14,
        capacity: int = 8192,
        heads: int = 4,
        feed_forward: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(width)
        if features < 1 or cells < 2 or capacity < 1:
            raise ValueError(
                f"GridMM: features={features}, cells={cells}, capacity={capacity} should be at least 1, 2, 1"
            )
        check_heads(width, heads)
        self.features, self.camera, self.field_of_view = features, camera, field_of_view
        self.near, self.far, self.side, self.capacity = near, far, cells, capacity
        self.ask = nn.Linear(width, features)
        self.tell = nn.Linear(features, width)
        self.place = nn.Sequential(nn.Linear(5, width), nn.LayerNorm(width, eps=1e-12))
        self.among = nn.TransformerEncoderLayer(width, heads, feed_forward, dropout, "gelu", batch_first=True)
        self.across = CrossModalLayer(width, heads, feed_forward, dropout)

    def begin(self, slots: int) -> Memory:
        return Memory(
            slots,
            self.device,
            {
                "features": ((self.capacity, self.features), torch.float32, 0.0),
                "places": ((self.capacity, 2), torch.float32, 0.0),
                "written": ((), torch.int64, 0),
                "agent": ((3,), torch.float32, 0.0),
            },
        )

    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        view, rows = self.sees(memory, observation, slots)
        assert view.features is not None
        views, _, height, width = view.features.shape[1:]
        if views * height * width > self.capacity:
            raise ValueError(f"one step has {views * height * width} patches, but capacity is {self.capacity}")
        middles = [
            ((torch.arange(count, device=memory.device) + 0.5) * size / count).long()
            for count, size in ((height, view.depth.shape[2]), (width, view.depth.shape[3]))
        ]
        points = unproject(view.depth, view.pose, self.field_of_view)[:, :, middles[0]][..., middles[1], :2]
        depth = view.depth[:, :, middles[0]][..., middles[1]].flatten(1)
        seen = (depth > self.near) & (depth < self.far)
        at = (memory["written"][rows].unsqueeze(1) + seen.long().cumsum(1) - 1) % self.capacity
        row = rows.unsqueeze(1).expand_as(at)[seen]
        memory["features"][row, at[seen]] = view.features.movedim(2, -1).flatten(1, 3)[seen]
        memory["places"][row, at[seen]] = points.flatten(1, 3)[seen]
        memory["written"][rows] += seen.sum(1)
        last = view.pose[:, -1]
        memory["agent"][rows] = torch.cat([last[:, :2, 3], heading_of(last).unsqueeze(1)], dim=1)

    def cells_of(self, memory: Memory, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The cell of each patch (B, capacity), which patches there are, and half the grid's side in metres, (B,)."""
        kept = torch.arange(self.capacity, device=memory.device) < memory["written"][rows].unsqueeze(1)
        away = to_egocentric(memory["places"][rows], memory["agent"][rows])
        away = torch.where(kept.unsqueeze(-1), away, torch.zeros_like(away))
        half = (away.abs().amax((1, 2)) * 2 / 3).clamp(min=1e-3)
        size = half.view(-1, 1, 1)
        at = ((away + size) / (2 * size) * (self.side - 1)).long().clamp(0, self.side - 1)  # as `int` does: to zero
        return at[..., 0] * self.side + at[..., 1], kept, half

    def aggregate(self, memory: Memory, text: Text, rows: Tensor) -> MapTokens:
        """Cells (B, cells x cells, D) before any attention, and which hold something."""
        cell, kept, half = self.cells_of(memory, rows)
        asked = self.ask(text.tokens)
        batch, count = len(rows), self.side**2
        row = torch.arange(batch, device=rows.device).unsqueeze(1).expand_as(cell)[kept]
        found = memory["features"][rows][kept]
        relevance = torch.einsum("bpf,blf->bpl", memory["features"][rows], asked)
        relevance = relevance.masked_fill(~text.present.unsqueeze(1), float("-inf")).amax(-1)[kept]
        at = row * count + cell[kept]
        share = scatter_softmax(relevance, at, batch * count)
        told = scatter_sum(share.unsqueeze(-1) * self.tell(found), at, batch * count).unflatten(0, (batch, count))
        present = scatter_sum(torch.ones_like(share), at, batch * count).unflatten(0, (batch, count)) > 0
        return MapTokens(told + self.place(self._places(half)), present)

    def _places(self, half: Tensor) -> Tensor:
        """(B, cells x cells, 5) where each cell's middle is: sin and cos of heading and elevation (0), distance."""
        steps = torch.arange(self.side, device=half.device) / (self.side - 1) * 2 - 1
        away = torch.cartesian_prod(steps, steps) * half.view(-1, 1, 1)
        heading, distance = torch.atan2(away[..., 1], away[..., 0]), away.norm(dim=-1)
        zero, one = torch.zeros_like(heading), torch.ones_like(heading)
        return torch.stack([heading.sin(), heading.cos(), zero, one, distance / DISTANCE], dim=-1)

    def forward(
        self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None
    ) -> MapTokens:
        """Cells, told by the text, that have attended to each other and to the text.

        Raises:
            ValueError: there is no text.
        """
        if text is None:
            raise ValueError("GridMM weighs what it has seen by the instruction: it needs a text")
        return self.mix(self.aggregate(memory, text, memory.rows(slots)), text)

    def mix(self, cells: MapTokens, text: Text, nodes: MapTokens | None = None) -> MapTokens:
        """One layer of self-attention and one across to the text, over cells and, behind them, a graph's nodes."""
        parts = [cells] if nodes is None else [cells, nodes]
        tokens, present = torch.cat([p.tokens for p in parts], 1), torch.cat([p.present for p in parts], 1)
        shown = present | ~present.any(1, keepdim=True)  # attention over nothing is not defined
        tokens = self.among(tokens, src_key_padding_mask=~shown)
        return MapTokens(self.across(tokens, shown, text), present)
