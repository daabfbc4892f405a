"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545), as OpenCLIP trained it: convolutions that take any resolution.

transformers' class. Its cost grows with the number of pixels, not with its square, which is why Osprey, Mini-Gemini,
Sphinx and ConvLLaVA look at high resolutions through it. ConvLLaVA (Ge et al. 2024, arXiv 2405.15738) adds a fifth
stage, which is a configuration here: five `hidden_sizes` and `depths` and `num_stages: 5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ConvNextModel

from embodied.lvlm.encoders.base import Fit, ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import OPENAI, described, tower
from embodied.lvlm.encoders.vision import pair


class ConvNeXt(ImageEncoder):
    """A ConvNeXt of transformers, whose stages' outputs are features.

    Args:
        config: its configuration (`depths`, `hidden_sizes`, `num_stages`, `patch_size`).
        checkpoint: instead of `config`, a Hugging Face folder.
        stages: which stages are read, 0 the first, -1 the last; several are resampled to the finest one's grid and
            concatenated channel by channel (Mini-Gemini reads all four).
        image_size: side, or height and width, that pictures are brought to; a ConvNeXt has no positions to interpolate.
        fit: how they are (`Preprocess`); `crop` as CLIP does it; `native` takes any size.

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown setting, a stage it does not have.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        stages: Sequence[int] = (-1,),
        image_size: int | Sequence[int] = 320,
        fit: Fit = "crop",
    ) -> None:
        super().__init__(*OPENAI)
        self.model: Any = tower("ConvNeXt", {"convnext": ConvNextModel}, config, checkpoint, "convnext")
        widths, first = self.model.config.hidden_sizes, self.model.config.patch_size
        count = len(widths)
        if not stages or any(not -count <= stage < count for stage in stages):
            raise ValueError(f"ConvNeXt: stages {list(stages)} are not among its {count}, 0 to {count - 1}")
        self.stages = [stage % count for stage in stages]
        self.dim = sum(widths[stage] for stage in self.stages)
        self.stride = first * 2 ** min(self.stages)
        self.smallest = first * 2 ** (count - 1)
        self.size, self.fit = pair(image_size), fit
        assert self.preprocess  # a fit that does not go with the size is refused now

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(None if self.fit == "native" else self.size, *OPENAI, "bicubic", self.fit),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        height, width = (height, width) if self.fit == "native" else self.size
        first = self.model.config.patch_size
        rows, columns = height // first, width // first
        for _ in range(min(self.stages)):
            rows, columns = rows // 2, columns // 2
        return rows, columns

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        if self.fit != "native" and (pixels.shape[-2], pixels.shape[-1]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bicubic", antialias=True)
        if min(pixels.shape[-2:]) < self.smallest:
            raise ValueError(
                f"ConvNeXt: a picture of {tuple(pixels.shape[-2:])} is smaller than {self.smallest} pixels"
            )
        states = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[-len(self.widths) :]
        size = states[min(self.stages)].shape[-2:]
        maps = [states[stage] for stage in self.stages]
        maps = [m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear") for m in maps]
        return torch.cat(maps, dim=1).flatten(2).transpose(1, 2)

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return self.model.config.hidden_sizes

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "config": described(self.model)}
