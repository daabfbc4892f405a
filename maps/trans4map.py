"""Trans4Map: SMNet whose memory is read in both directions of time, and whose encoder is trained with it.

Chen et al. 2023, "Trans4Map" (WACV), and its official code (`model/trans4map.py`). Two recurrent cells run over the
views, one from the first to the last and one from the last to the first; their states, side by side, are fused by a
1 x 1 convolution. Released: MiT-B2 or -B4 features of 64, states of 256 each, fused to 256, AdamW with learning rate
6e-5, betas 0.9 and 0.999, weight decay 1e-3.

A memory that is read backwards can't be kept up to date by the newest view alone: the last view comes first. The
forward states are updated like SMNet's; of the backward pass, the update only writes down which cell got which feature,
and reading runs it over at most `horizon` last steps. So an update costs what the observation costs, and reading what
the horizon costs; a horizon of at least the episode's length is the original.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maps.base import Memory
from maps.grid import Columns
from maps.smnet import ProjectedMap, make_cell


class Diary(Memory):
    """A memory that also keeps what its last steps wrote.

    Attributes:
        steps: per slot, the last steps, oldest first: cells (G,) and features (G, F) of each view.
    """

    def __init__(self, slots: int, device: torch.device, columns: Columns, horizon: int) -> None:
        super().__init__(slots, device, columns)
        self.steps: list[deque[tuple[Tensor, Tensor]]] = [deque(maxlen=horizon) for _ in range(slots)]

    @property
    def bytes(self) -> int:
        written = [tensor for slot in self.steps for step in slot for tensor in step]
        return super().bytes + sum(tensor.element_size() * tensor.nelement() for tensor in written)

    def reset(self, slots: Sequence[int] | Tensor | None = None) -> None:
        super().reset(slots)
        for row in self.rows(slots).tolist():
            self.steps[row].clear()

    def detach(self) -> None:
        super().detach()
        for slot in self.steps:
            written = [(cells, features.detach()) for cells, features in slot]
            slot.clear()
            slot.extend(written)


class Trans4Map(ProjectedMap):
    """A bidirectional allocentric memory.

    Args:
        width, surroundings: see `GridMemory`; the window of fused states becomes the tokens.
        features: F of `observation.features.<camera>`; gradients reach the encoder that made them.
        memory: numbers per cell of each direction, and of both fused.
        classes: categories that the decoder tells apart, void among them; 0: no decoder.
        horizon: views per episode that reading backwards goes over, the last ones.

    Raises:
        ValueError: a size that no map has.
    """

    def __init__(
        self,
        width: int,
        features: int = 64,
        memory: int = 256,
        classes: int = 13,
        horizon: int = 64,
        surroundings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(width, features, memory, classes, surroundings)
        if horizon < 1:
            raise ValueError(f"Trans4Map: horizon must be at least 1, got {horizon}")
        self.horizon = horizon
        self.forwards, self.backwards = (make_cell("gru", features, memory) for _ in range(2))
        self.fuse = nn.Conv2d(2 * memory, memory, 1)

    def begin(self, slots: int) -> Diary:
        return Diary(slots, self.device, self.every_column(), self.horizon)

    def columns(self) -> Columns:
        return {
            "state": ((self.grid.cells, self.memory), torch.float32, 0.0),
            "seen": ((self.grid.cells,), torch.bool, 0),
        }

    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        assert isinstance(memory, Diary)
        for row, cell, feature in self.project(memory, observation, slots):
            memory["state"][row, cell] = self.forwards(feature, memory["state"][row, cell]).float()
            memory["seen"][row, cell] = True
            for slot in memory.rows(slots).tolist():
                mine = row == slot
                memory.steps[slot].append((cell[mine], feature[mine]))

    def fused(self, memory: Memory, rows: Tensor, index: Tensor) -> Tensor:
        """(B, N, M) states of cells `index` (B, N), both directions made one."""
        forwards = memory["state"][rows.unsqueeze(1), index]
        both = torch.cat([forwards, self._backward_states(memory, rows, index)], dim=-1)
        return self.fuse(both.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)

    def _backward_states(self, memory: Memory, rows: Tensor, index: Tensor) -> Tensor:
        """(B, N, M) what the last views leave in cells (B, N), read from the last to the first; 0 where nothing."""
        assert isinstance(memory, Diary)
        views: list[list[tuple[Tensor, Tensor]]] = []  # of all rows together, the last first; cells apart by row
        for place, row in enumerate(rows.tolist()):
            for age, (cells, features) in enumerate(reversed(memory.steps[row])):
                if age == len(views):
                    views.append([])
                views[age].append((cells + place * self.grid.cells, features))
        seen = [cells for view in views for cells, _ in view]
        if not sum(map(len, seen)):
            return torch.zeros(*index.shape, self.memory, device=memory.device)
        known = torch.unique(torch.cat(seen))
        state = torch.zeros(len(known), self.memory, device=memory.device)
        for view in views:
            at = torch.searchsorted(known, torch.cat([cells for cells, _ in view]))
            state[at] = self.backwards(torch.cat([features for _, features in view]), state[at]).float()
        wanted = index + torch.arange(len(rows), device=index.device).unsqueeze(1) * self.grid.cells
        at = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        return torch.where((known[at] == wanted).unsqueeze(-1), state[at], torch.zeros_like(state[:1]))

    def cells(self, memory: Memory, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.fused(memory, rows, index), memory["seen"][rows.unsqueeze(1), index]

    def loss(self, memory: Memory, target: Tensor) -> dict[str, Tensor]:
        """How wrong the decoded map is where something was seen, against true categories (B, size, size)."""
        everywhere = torch.arange(self.grid.cells, device=memory.device).expand(memory.slots, -1)
        states = self.fused(memory, memory.rows(), everywhere)
        return {"loss": self.masked_loss(self.decode(states), target, self.picture(memory["seen"]))}
