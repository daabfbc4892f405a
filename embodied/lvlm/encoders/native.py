"""SigLIP at the picture's own aspect ratio, as Idefics2 reads it (Laurencon et al. 2024, arXiv 2405.02246).

transformers' class. Positions are fractions of the picture's height and width put into SigLIP's buckets, after NaViT
(Dehghani et al. 2023, arXiv 2307.06304), so pictures of different shapes share one set of positions. Pictures of
different sizes make one batch by padding and a mask.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

from embodied.lvlm.encoders.base import ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import HALF, described, tower


class NativeSigLIP(ImageEncoder):
    """Idefics2's vision transformer.

    Args:
        config: its configuration (`image_size`: the largest side, `patch_size`, `hidden_size`, ...).
        checkpoint: instead of `config`, a Hugging Face folder of an Idefics2, whose encoder is taken.

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown setting.
    """

    def __init__(self, config: dict[str, Any] | None = None, checkpoint: str | None = None) -> None:
        super().__init__(*HALF)
        classes = {"idefics2_vision": Idefics2VisionTransformer}
        self.model: Any = tower("NativeSigLIP", classes, config, checkpoint, "idefics2_vision")
        self.dim, self.patch = self.model.config.hidden_size, self.model.config.patch_size

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(None, *HALF, "bilinear", "native"),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns; what is left of a last, incomplete patch is not seen.

        Raises:
            ValueError: a side shorter than a patch.
        """
        if min(height, width) < self.patch:
            raise ValueError(f"NativeSigLIP: a picture of {height} x {width} pixels has no patch of {self.patch}")
        return height // self.patch, width // self.patch

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W) to features (B, N, D_enc).

        Args:
            pixels: normalised; pictures of different sizes are padded at the right and below.
            mask: (B, H, W), bool: where there is a picture; None: everywhere.
        """
        self.grid(pixels.shape[-2], pixels.shape[-1])
        seen = None if mask is None else self._patches(mask)
        return self.model(pixel_values=pixels, patch_attention_mask=seen).last_hidden_state

    def present(self, mask: Tensor) -> Tensor:
        """Which features are of the picture, (B, N), where pixels are by `mask` (B, H, W)."""
        return self._patches(mask).flatten(1)

    def _patches(self, mask: Tensor) -> Tensor:
        """(B, rows, columns): patches that lie in the picture whole."""
        windows = mask.bool().unfold(1, self.patch, self.patch).unfold(2, self.patch, self.patch)
        return windows.all(dim=-1).all(dim=-1)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "config": described(self.model)}
