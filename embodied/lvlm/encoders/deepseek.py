"""DeepSeek-VL's hybrid (Lu et al. 2024, arXiv 2403.05525): SAM at 1024 pixels for detail, SigLIP at 384 for meaning.

transformers' modules bring SAM's maps to SigLIP's grid: an early map of SAM's, after a neck of its own, is added to the
last one by a learned weight that begins at 0. Features are channels side by side, SAM's first; what makes tokens of
them (transformers' `DeepseekVLHybridAligner`) is the hybrid connector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers.models.deepseek_vl_hybrid.modeling_deepseek_vl_hybrid import (
    DeepseekVLSamVisionNeck,
    DeepseekVLSamVisionProj,
)

from embodied.lvlm.encoders.base import Preprocess
from embodied.lvlm.encoders.ensemble import Ensemble, Grid
from embodied.lvlm.encoders.pretrained import OPENAI, tensors
from embodied.lvlm.encoders.sam import SegmentAnything
from embodied.lvlm.encoders.vision import VisionTransformer

PARTS = {"neck": "high_res_vision_neck", "project": "high_res_vision_proj"}


@dataclass(frozen=True)
class Shrunk(Preprocess):
    """A picture brought to `first` and only then to `size`, as DeepSeek-VL's small picture comes from its large one."""

    first: tuple[int, int] = (1024, 1024)

    def _fitted(self, picture: Image.Image) -> Image.Image:
        larger = Preprocess(self.first, self.mean, self.std, self.resample, self.fit)
        return super()._fitted(larger._fitted(picture))


class DeepSeekHybrid(Ensemble):
    """SigLIP and SAM in one.

    Args:
        low: SigLIP; its square grid is the features'.
        high: SAM, whose first global layer gives the early map.
        checkpoint: a Hugging Face folder of a hybrid DeepSeek-VL to read the modules between the two from; the members
            read theirs from the same folder.

    Raises:
        ValueError: members of other kinds, SAM without a global layer, a folder without these weights.
    """

    def __init__(self, low: VisionTransformer, high: SegmentAnything, checkpoint: str | None = None) -> None:
        if not isinstance(low, VisionTransformer) or not isinstance(high, SegmentAnything):
            raise ValueError("DeepSeekHybrid: low is a VisionTransformer and high a SegmentAnything")
        settings = high.model.config
        if not settings.global_attn_indexes:
            raise ValueError("DeepSeekHybrid: the early map is that of SAM's first global layer, and it has none")
        super().__init__([low, high])
        rows, columns = low.grid(*low.size)
        if rows != columns:
            raise ValueError(f"DeepSeekHybrid: SigLIP's grid must be square, got {rows} x {columns}")
        self.early: int = settings.global_attn_indexes[0] + 1
        self.neck = DeepseekVLSamVisionNeck(settings)
        self.project = DeepseekVLSamVisionProj(settings, output_size=rows)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.detailed: int = settings.output_channels * 4
        self.dim = self.detailed + low.dim
        if checkpoint is not None:
            self._load(Path(checkpoint))

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        low, high = self.encoders
        assert isinstance(low, VisionTransformer) and isinstance(high, SegmentAnything)
        large = Preprocess(high.size, *OPENAI, "bicubic", "letterbox")
        return Shrunk(low.size, *OPENAI, "bicubic", "letterbox", first=high.size), large

    def normalised(self, pixels: Tensor) -> tuple[Tensor, ...]:
        mean, std = (torch.tensor(part, device=pixels.device).view(1, 3, 1, 1) for part in OPENAI)
        return ((pixels - mean) / std,) * 2

    def seen(self, shares: list[list[Tensor]]) -> list[Tensor]:
        low, high = self.encoders
        assert isinstance(high, SegmentAnything)
        output = high.model(pixel_values=high.brought(shares[1][0]), output_hidden_states=True)
        early = self.project(self.neck(output.hidden_states[self.early]))
        maps = self.project(output.last_hidden_state) + early * self.alpha
        return [low.encode(shares[0][0]), maps.flatten(2).transpose(1, 2)]

    def fuse(self, features: list[Tensor], grids: list[Grid]) -> Tensor:
        return torch.cat([features[1], features[0]], dim=-1)

    def grid(self, height: int, width: int) -> Grid:
        return self.encoders[0].grid(height, width)

    def _load(self, folder: Path) -> None:
        try:
            for name, theirs in PARTS.items():
                getattr(self, name).load_state_dict(tensors("DeepSeekHybrid", folder, theirs))
        except RuntimeError as error:
            raise ValueError(f"DeepSeekHybrid: {folder}: {' '.join(str(error).split())[:300]}") from None
        with torch.no_grad():
            self.alpha.copy_(tensors("DeepSeekHybrid", folder, "high_res_vision_alpha")[""])

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        low, high = self.encoders
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "low": low.resolved(dict(node["low"])), "high": high.resolved(dict(node["high"]))}
