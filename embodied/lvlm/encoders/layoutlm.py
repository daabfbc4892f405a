"""LayoutLMv3 (Huang et al. 2022, arXiv 2204.08387) reading the picture of a document alone, without its words.

transformers' class. MouSi uses it as its expert for text in pictures.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import LayoutLMv3Model

from embodied.lvlm.encoders.base import Fit, ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import HALF, described, tower


class LayoutLM(ImageEncoder):
    """LayoutLMv3's image half.

    Args:
        config: its configuration (`input_size`, `patch_size`, `hidden_size`, ...); `text_embed: false` leaves out the
            embeddings of words, which pictures do not need.
        checkpoint: instead of `config`, a Hugging Face folder.
        keep_class_token: whether the class token is part of the features.
        fit: how pictures are brought to its size (`Preprocess`).

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown setting, fit=native.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        keep_class_token: bool = False,
        fit: Fit = "squash",
    ) -> None:
        super().__init__(*HALF)
        self.model: Any = tower("LayoutLM", {"layoutlmv3": LayoutLMv3Model}, config, checkpoint, "layoutlmv3")
        settings = self.model.config
        if not settings.visual_embed:
            raise ValueError("LayoutLM: visual_embed is false, so this model reads no pictures")
        self.dim, self.keep_class_token, self.fit = settings.hidden_size, keep_class_token, fit
        self.size = (settings.input_size, settings.input_size)
        if fit == "native":
            raise ValueError(f"LayoutLM: reads pictures of {self.size} only, so fit cannot be native")
        assert self.preprocess  # a fit that does not go with the size is refused now

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(self.size, *HALF, "bilinear", self.fit),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        side = self.size[0] // self.model.config.patch_size
        return (1, side * side + 1) if self.keep_class_token else (side, side)

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        if (pixels.shape[-2], pixels.shape[-1]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bicubic", antialias=True)
        features = self.model(pixel_values=pixels).last_hidden_state
        return features if self.keep_class_token else features[:, 1:]

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "config": described(self.model)}
