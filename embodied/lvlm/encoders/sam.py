"""The image encoder of Segment Anything (Kirillov et al. 2023, arXiv 2304.02643): a windowed ViT with a small neck.

transformers' class. It sees 1024 pixels and leaves a grid of 64 x 64, fine enough for edges and small print;
DeepSeek-VL and MouSi look through it beside CLIP.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import SamVisionModel

from embodied.lvlm.encoders.base import Fit, ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import IMAGENET, OPENAI, described, tower
from embodied.lvlm.encoders.vision import pair

SAM = "sam_vision_model"
STATISTICS = {"imagenet": IMAGENET, "openai": OPENAI}


class SegmentAnything(ImageEncoder):
    """SAM's image encoder.

    Args:
        config: its configuration (`hidden_size`, `output_channels`, `global_attn_indexes`, ...).
        checkpoint: instead of `config`, a Hugging Face folder of it or of a whole SAM.
        fit: how pictures are brought to its size (`Preprocess`); `corner` as SAM does it.
        statistics: of the pixels: `imagenet` (SAM) or `openai` (DeepSeek-VL's).

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown setting, other statistics.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        fit: Fit = "corner",
        statistics: str = "imagenet",
    ) -> None:
        if statistics not in STATISTICS:
            raise ValueError(f"SegmentAnything: statistics is one of {', '.join(STATISTICS)}, got {statistics!r}")
        super().__init__(*STATISTICS[statistics])
        self.model: Any = tower("SegmentAnything", {SAM: SamVisionModel}, config, checkpoint, SAM)
        self.dim = self.model.config.output_channels
        self.size, self.fit, self.statistics = pair(self.model.config.image_size), fit, STATISTICS[statistics]
        if fit == "native":
            raise ValueError(f"SegmentAnything: reads pictures of {self.size} only, so fit cannot be native")
        assert self.preprocess  # a fit that does not go with the size is refused now

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        resample = "bilinear" if self.fit == "corner" else "bicubic"
        return (Preprocess(self.size, *self.statistics, resample, self.fit),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        patch = pair(self.model.config.patch_size)
        return self.size[0] // patch[0], self.size[1] // patch[1]

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=self.brought(pixels)).last_hidden_state.flatten(2).transpose(1, 2)

    def brought(self, pixels: Tensor) -> Tensor:
        """Pixels at the size it reads."""
        if (pixels.shape[-2], pixels.shape[-1]) == self.size:
            return pixels
        return F.interpolate(pixels, self.size, mode="bicubic", antialias=True)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "config": described(self.model)}
