"""Semantic MapNet: features projected onto a grid, remembered by a recurrent cell per grid cell, decoded to categories.

Cartillier et al. 2021, "Semantic MapNet" (AAAI), and its official code (`SMNet/model.py`, `projector/`). A view's
pixels fall into cells; of those in one cell the highest speaks, with its feature bilinearly upsampled to the depth's
pixels; the cell's state becomes GRUCell(feature, state). What is higher than `ceiling` (0.5 m above the camera) is left
out.
Only the cells that were seen cost anything, and gradients flow through all steps.

Released: 64 features at 120 x 160 of 480 x 640 pixels, memory 256, 250 x 250 cells of 0.02 m, 13 categories, SGD with
learning rate 1e-4, momentum 0.9, weight decay 4e-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied.building import nearest
from maps.base import Memory
from maps.geometry import bilinear, highest
from maps.grid import Columns, GridMemory

CELLS = ("gru", "lstm", "replace")
UNKNOWN = -100


class SemanticDecoder(nn.Sequential):
    """Memory (B, M, size, size) to category logits (B, classes, size, size), as SMNet's `SemmapDecoder`.

    Args:
        memory: M.
        classes: categories, void among them.
    """

    def __init__(self, memory: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for before, after, kernel in ((memory, 128, 7), (128, 64, 3), (64, 48, 3), (48, 48, 3)):
            convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(48, classes, 1))


class ProjectedMap(GridMemory):
    """What SMNet and its followers share: which pixel's feature each cell gets, the decoder and the masked loss.

    Args:
        width, surroundings: see `GridMemory`.
        features: F of `observation.features.<camera>`.
        memory: M, numbers per cell.
        classes: categories that the decoder tells apart, void among them; 0: no decoder.

    Raises:
        ValueError: a size that no map has.
    """

    needs = ("features",)

    def __init__(
        self, width: int, features: int, memory: int, classes: int, surroundings: Mapping[str, Any] | None
    ) -> None:
        if features < 1 or memory < 1 or classes < 0:
            raise ValueError(f"features={features}, memory={memory} and classes={classes} should be positive")
        super().__init__(width, memory, surroundings)
        self.features, self.memory, self.classes = features, memory, classes
        self.decoder = SemanticDecoder(memory, classes) if classes else None

    def project(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per view: slots (G,) and cells (G,) that it sees, and the feature (G, F) each of them gets."""
        points = self.place(memory, observation, slots)
        found = points.view.features
        assert found is not None
        views, height, width = points.view.depth.shape[1:]
        pixels = height * width
        rows, columns = points.view.pixels()
        projected = []
        for view in range(views):
            part = slice(view * pixels, (view + 1) * pixels)
            at = points.rows.unsqueeze(1) * self.grid.cells + points.cells[:, part]
            seen = points.seen[:, part]
            image, pixel = seen.nonzero(as_tuple=True)
            cells, winners = highest(points.heights[:, part][seen], at[seen])
            image, pixel = image[winners], pixel[winners]
            features = self._pick(found[:, view], image, rows[pixel], columns[pixel], points.view.whole)
            projected.append((cells // self.grid.cells, cells % self.grid.cells, features))
        return projected

    @staticmethod
    def _pick(features: Tensor, image: Tensor, rows: Tensor, columns: Tensor, whole: tuple[int, int]) -> Tensor:
        """(G, F) features of pixels of images (B, F, h, w), scaled up to `whole`; pixels come in any order."""
        picked = features.new_empty(len(image), features.shape[1])
        for row in range(len(features)):
            mine = (image == row).nonzero().squeeze(1)
            if len(mine):
                at = rows[mine].unsqueeze(0), columns[mine].unsqueeze(0)
                here = bilinear(features[row : row + 1], *at, *whole)[0]
                picked = picked.index_copy(0, mine, here)
        return picked

    def decode(self, state: Tensor) -> Tensor:
        """Category logits (B, classes, size, size) of states (B, size * size, M).

        Raises:
            ValueError: the map was made without a decoder.
        """
        if self.decoder is None:
            raise ValueError(f"{type(self).__name__} was made with classes=0: it has no decoder")
        return self.decoder(self.picture(state))

    @staticmethod
    def masked_loss(logits: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """Cross-entropy per cell, averaged over the cells that were observed; 0 where none was.

        Args:
            logits: (B, classes, size, size).
            target: (B, size, size), int64: the true category of each cell; -100 where it isn't known.
            seen: (B, size, size), bool.
        """
        target = target.masked_fill(~seen, UNKNOWN)
        each = nn.functional.cross_entropy(logits, target, reduction="sum", ignore_index=UNKNOWN)
        return each / (target != UNKNOWN).sum().clamp(min=1)


class SMNet(ProjectedMap):
    """A recurrent memory in each cell of the plan.

    Args:
        width, surroundings: see `GridMemory`; the window of states becomes the tokens.
        features: F of `observation.features.<camera>`.
        memory: M.
        classes: categories that the decoder tells apart, void among them; 0: no decoder.
        cell: how a new feature changes a state: `gru`, `lstm`, or `replace` by a linear map of it.

    Raises:
        ValueError: a size or a cell that there is not.
    """

    def __init__(
        self,
        width: int,
        features: int = 64,
        memory: int = 256,
        classes: int = 13,
        cell: str = "gru",
        surroundings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(width, features, memory, classes, surroundings)
        if cell not in CELLS:
            raise ValueError(f"SMNet has no cell '{cell}'{nearest(cell, CELLS)}")
        self.cell = cell
        self.write = make_cell(cell, features, memory)

    def columns(self) -> Columns:
        columns: Columns = {
            "state": ((self.grid.cells, self.memory), torch.float32, 0.0),
            "seen": ((self.grid.cells,), torch.bool, 0),
        }
        if self.cell == "lstm":
            columns["carry"] = columns["state"]
        return columns

    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        for row, cell, feature in self.project(memory, observation, slots):
            before = memory["state"][row, cell]
            if self.cell == "lstm":
                after, carry = self.write(feature, (before, memory["carry"][row, cell]))
                memory["carry"][row, cell] = carry.float()
            else:
                after = self.write(feature, before) if self.cell == "gru" else self.write(feature)
            memory["state"][row, cell] = after.float()
            memory["seen"][row, cell] = True

    def cells(self, memory: Memory, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        row = rows.unsqueeze(1)
        return memory["state"][row, index], memory["seen"][row, index]

    def loss(self, memory: Memory, target: Tensor) -> dict[str, Tensor]:
        """How wrong the decoded map is where something was seen, against true categories (B, size, size)."""
        seen = self.picture(memory["seen"])
        return {"loss": self.masked_loss(self.decode(memory["state"]), target, seen)}


def make_cell(cell: str, features: int, memory: int) -> nn.Module:
    """A cell's map, initialised as SMNet does: weights and input biases within 0.01 of 0, other biases 0."""
    if cell == "replace":
        return nn.Linear(features, memory)
    made = nn.GRUCell(features, memory) if cell == "gru" else nn.LSTMCell(features, memory)
    for name, parameter in made.named_parameters():
        nn.init.zeros_(parameter) if name == "bias_hh" else nn.init.uniform_(parameter, -0.01, 0.01)
    return made
