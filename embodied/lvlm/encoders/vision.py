"""Vision transformers as transformers has them: CLIP, SigLIP, DINOv2, ViT.

The classes are transformers' own, so a released checkpoint loads as it is and equals its reference to the bit. Which
layer is read (LLaVA reads the last but one) and whether the class token stays are options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedModel

from embodied.lvlm.encoders.base import ImageEncoder

STATISTICS = {
    "clip_vision_model": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip_vision_model": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "vit": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Families and the pixel statistics of their official image processors."""

CLASS_TOKEN = frozenset({"clip_vision_model", "dinov2", "vit"})


class VisionTransformer(ImageEncoder):
    """A vision transformer of transformers.

    Args: config: its configuration, with `model_type` one of clip_vision_model, siglip_vision_model, dinov2, vit.
    checkpoint: instead of `config`, a Hugging Face folder of such a model, or of a two-tower model whose vision tower
    is taken. layer: which hidden state to read: -1 the last (after its final norm where `norm`), -2 the last but one.
    keep_class_token: whether the class token is part of the features, where the family has one.

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown family, a folder without weights.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        layer: int = -1,
        keep_class_token: bool = False,
    ) -> None:
        if (config is None) == (checkpoint is None):
            raise ValueError("VisionTransformer: give either a config or a checkpoint folder")
        model = _load(checkpoint) if checkpoint is not None else _create(config or {})
        family = model.config.model_type
        if family not in STATISTICS:
            raise ValueError(f"VisionTransformer: model_type '{family}' is none of {', '.join(STATISTICS)}")
        super().__init__(*STATISTICS[family])
        self.model, self.dim, self.layer = model, model.config.hidden_size, layer
        self.skip = 1 if family in CLASS_TOKEN and not keep_class_token else 0

    def encode(self, pixels: Tensor) -> Tensor:
        size = self.model.config.image_size
        if pixels.shape[-2:] != (size, size):
            pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True, align_corners=False)
        if self.layer == -1:
            features = self.model(pixel_values=pixels).last_hidden_state
        else:
            features = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[self.layer]
        return features[:, self.skip :]

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {
            **rest,
            "config": plain(self.model.config.to_diff_dict()) | {"model_type": self.model.config.model_type},
        }


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """A transformers configuration without what describes a file rather than a model."""
    drop = {"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path", "auto_map"}
    return {key: value for key, value in config.items() if key not in drop}


def _create(config: dict[str, Any]) -> PreTrainedModel:
    config = dict(config)
    family = config.pop("model_type", None)
    if family not in STATISTICS:
        raise ValueError(f"VisionTransformer: config.model_type '{family}' is none of {', '.join(STATISTICS)}")
    return AutoModel.from_config(AutoConfig.for_model(family, **config))


def _load(checkpoint: str) -> PreTrainedModel:
    folder = Path(checkpoint)
    if not (folder / "config.json").is_file():
        raise ValueError(f"VisionTransformer: {folder} is no Hugging Face folder: it has no config.json")
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    return getattr(model, "vision_model", model) if hasattr(model, "text_model") else model
