"""Qwen2-VL's vision transformer (Wang et al. 2024, arXiv 2409.12191): any resolution, with rotary positions in 2-D.

transformers' class. A picture keeps its aspect ratio and becomes as many patches as it has; the patches of 2 x 2
neighbours are merged into one token at the end by the encoder's own merger (a norm and a two-layer MLP), so a
language model reads a picture of 448 x 672 pixels as 16 x 24 tokens. The merger belongs to the encoder here as it does
in the released weights: its output has the language model's width and wants no connector but the identity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from embodied.lvlm.encoders.base import ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import OPENAI, described, tower

QWEN = "qwen2_vl_vision"


class QwenVision(ImageEncoder):
    """Qwen2-VL's encoder.

    Args:
        config: its configuration (`depth`, `embed_dim`, `hidden_size`: the width after merging, `num_heads`,
            `patch_size`, `spatial_merge_size`, ...).
        checkpoint: instead of `config`, a Hugging Face folder of a Qwen2-VL, whose encoder is taken.
        merge: whether the merger follows. Without it features are the unmerged patches, of width `embed_dim`.

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown setting.
    """

    def __init__(self, config: dict[str, Any] | None = None, checkpoint: str | None = None, merge: bool = True) -> None:
        super().__init__(*OPENAI)
        classes = {QWEN: Qwen2VisionTransformerPretrainedModel}
        self.model: Any = tower("QwenVision", classes, config, checkpoint, QWEN)
        settings = self.model.config
        self.patch, self.group, self.merge = settings.patch_size, settings.spatial_merge_size, merge
        self.span = settings.temporal_patch_size
        self.dim = settings.hidden_size if merge else settings.embed_dim

    @property
    def factor(self) -> int:
        """What height and width must be multiples of, in pixels."""
        return self.patch * self.group

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(None, *OPENAI, "bicubic", "native"),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the tokens of a picture.

        Raises:
            ValueError: height or width is no multiple of `factor`.
        """
        if height % self.factor or width % self.factor or not height or not width:
            raise ValueError(
                f"QwenVision: a picture of {height} x {width} pixels is no multiple of {self.factor}; "
                "its resolution has to resize it first"
            )
        side = self.factor if self.merge else self.patch
        return height // side, width // side

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        return self.encode_frames(pixels.unsqueeze(1))

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Frames (B, T, 3, H, W) to features (B, N, D_enc).

        `span` (2) frames make one patch, so N is T / 2 grids, one after the other; a lone last frame is
        repeated, as a picture is.
        """
        rows, _, channels, height, width = pixels.shape
        self.grid(height, width)
        span = self.span
        pixels = torch.cat([pixels, pixels[:, -1:].expand(-1, -pixels.shape[1] % span, -1, -1, -1)], dim=1)
        times, down, across = pixels.shape[1] // span, height // self.patch, width // self.patch
        group = self.group
        patches = pixels.reshape(
            rows, times, span, channels, down // group, group, self.patch, across // group, group, self.patch
        )
        patches = patches.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)  # the patches that will be merged lie side by side
        patches = patches.reshape(rows * times * down * across, channels * span * self.patch**2)
        sizes = torch.tensor([[times, down, across]] * rows, device=pixels.device)
        output = self.model(patches, grid_thw=sizes)
        if self.merge:
            return output.pooler_output.reshape(rows, -1, self.dim)
        features = output.last_hidden_state.reshape(rows, times, down // group, across // group, group, group, self.dim)
        return features.permute(0, 1, 2, 4, 3, 5, 6).reshape(rows, times * down * across, self.dim)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "config": described(self.model)}
