"""The way of a picture to tokens: which views of it are encoded, by what, and how their features become tokens.

`prepare` is the processor's half (PIL to pixel tensors, on any machine and process), `count` says how many tokens a
picture will become before anything is encoded, and `forward` is the model's half. All three follow one layout, so
placeholders and tokens cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from embodied.lvlm.connectors.base import Connector, Context
from embodied.lvlm.encoders.base import ImageEncoder
from embodied.lvlm.resolution.base import Layout, Resolution

Pixels = tuple[Tensor, ...]
"""One view as its encoders read it: a (3, H, W) for each."""


@dataclass(frozen=True)
class Picture:
    """A picture ready to be encoded.

    Attributes:
        layout: which views there are.
        views: their pixels, in the layout's order.
    """

    layout: Layout
    views: tuple[Pixels, ...]


class VisionPath(nn.Module):
    """Resolution, encoder and connector as one.

    Args:
        encoder: pixels to features.
        connector: features to tokens.
        resolution: a picture to views, and their tokens to one sequence.

    Attributes:
        width: D of a token.
    """

    def __init__(self, encoder: ImageEncoder, connector: Connector, resolution: Resolution) -> None:
        super().__init__()
        self.encoder, self.connector, self.resolution = encoder, connector, resolution
        self.width = connector.width
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}

    def prepare(self, picture: Image.Image) -> Picture:
        """An RGB picture as pixels.

        Raises:
            ValueError: the resolution strategy refuses a picture of its size.
        """
        layout = self.resolution.plan(picture.height, picture.width)
        cut = self.resolution.cut(picture.convert("RGB"), layout)
        how = self.encoder.preprocess
        return Picture(layout, tuple(tuple(each(view) for each in how) for view in cut))

    def count(self, layout: Layout) -> int:
        """How many tokens a picture with this layout becomes."""
        return self.resolution.count(layout, self.token_grids(layout))

    def token_grids(self, layout: Layout) -> list[tuple[int, int]]:
        """Rows and columns of each view's tokens."""
        return [self.connector.grid(self._feature_grid(*size)) for size in layout.views]

    def _feature_grid(self, height: int, width: int) -> tuple[int, int]:
        size = self.encoder.preprocess[0].size or (height, width)
        if size not in self._grids:
            self._grids[size] = self.encoder.grid(*size)
        return self._grids[size]

    def forward(
        self, pictures: Sequence[Picture], text: Tensor | None = None, text_present: Tensor | None = None
    ) -> list[Tensor]:
        """Tokens (N, D) of each picture, in order.

        Views of one shape are encoded in one pass, whichever picture they belong to.

        Args:
            pictures: any number, of any layouts.
            text, text_present: for instruction-aware connectors: the instruction of each picture, (len(pictures), L).
        """
        place = [(p, v) for p, picture in enumerate(pictures) for v in range(len(picture.views))]
        tokens: dict[tuple[int, int], Tensor] = {}
        groups: dict[tuple[torch.Size, ...], list[tuple[int, int]]] = {}
        for p, v in place:
            groups.setdefault(tuple(x.shape for x in pictures[p].views[v]), []).append((p, v))
        device = self.encoder.mean.device
        for members in groups.values():
            stacked = [
                torch.stack(each).to(device) for each in zip(*(pictures[p].views[v] for p, v in members), strict=True)
            ]
            features = self.encoder.encode(stacked[0] if len(stacked) == 1 else tuple(stacked))  # type: ignore[arg-type]
            owners = torch.tensor([p for p, _ in members], device=device)
            p, v = members[0]
            context = Context(
                grid=self._feature_grid(*pictures[p].layout.views[v]),
                text=None if text is None else text[owners],
                text_present=None if text_present is None else text_present[owners],
            )
            for where, row in zip(members, self.connector(features, context), strict=True):
                tokens[where] = row
        return [
            self.resolution.arrange(
                [tokens[p, v] for v in range(len(picture.views))], picture.layout, self.token_grids(picture.layout)
            )
            for p, picture in enumerate(pictures)
        ]
