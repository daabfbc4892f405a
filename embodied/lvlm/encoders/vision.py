"""Vision transformers as transformers has them: CLIP, SigLIP, DINOv2, ViT, MAE, InternViT, EVA-CLIP, AIMv2.

The classes are transformers' own, so a released checkpoint loads as it is and equals its reference to the bit. Which
layers are read (LLaVA reads the last but one), whether the class token stays, whether the final norm is applied and
the resolution that positions are interpolated to are options. OpenCLIP's ViT-H and bigG are CLIPs of other sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from embodied.lvlm.encoders.base import Fit, ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import HALF, IMAGENET, OPENAI, described, tower
from embodied.lvlm.encoders.pretrained import plain as plain

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Family:
    """What differs between families.

    Attributes:
        model: class of transformers.
        statistics, fit, resample: of the official image processor.
        norm: name of the final norm.
        class_token: whether there is one, the first.
        flag: whether other resolutions have to be asked for (`interpolate_pos_encoding`).
        enlarge: how much larger than the crop the picture becomes first.
    """

    model: str
    statistics: Statistics
    fit: Fit
    resample: str
    norm: str
    class_token: bool = True
    flag: bool = True
    enlarge: float = 1.0

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return getattr(transformers, self.model)


FAMILIES = {
    "clip_vision_model": Family("CLIPVisionModel", OPENAI, "crop", "bicubic", "post_layernorm"),
    "siglip_vision_model": Family("SiglipVisionModel", HALF, "squash", "bicubic", "post_layernorm", class_token=False),
    "dinov2": Family("Dinov2Model", IMAGENET, "crop", "bicubic", "layernorm", flag=False, enlarge=256 / 224),
    "dinov2_with_registers": Family(
        "Dinov2WithRegistersModel", IMAGENET, "crop", "bicubic", "layernorm", flag=False, enlarge=256 / 224
    ),
    "vit": Family("ViTModel", HALF, "squash", "bilinear", "layernorm"),
    "vit_mae": Family("ViTMAEModel", IMAGENET, "squash", "bilinear", "layernorm"),
    "internvl_vision": Family("InternVLVisionModel", IMAGENET, "squash", "bicubic", "layernorm", flag=False),
    "blip_2_vision_model": Family("Blip2VisionModel", OPENAI, "squash", "bicubic", "post_layernorm"),
    "aimv2_vision_model": Family(
        "Aimv2VisionModel", OPENAI, "squash", "bicubic", "rms_norm", class_token=False, flag=False
    ),
}


class VisionTransformer(ImageEncoder):
    """A vision transformer of transformers.

    Args:
        config: its configuration, with `model_type` one of `FAMILIES`.
        checkpoint: instead of `config`, a Hugging Face folder of such a model, or of a larger one whose vision tower is
            taken.
        layer: which hidden state to read: 0 the embeddings, -1 the last, -2 the last but one; several are concatenated
            channel by channel.
        keep_class_token: whether the class token is part of the features, where the family has one.
        norm: whether the final norm is applied; None: to the last layer as the class itself does, to no other.
        image_size: side of the square, or height and width, that pictures are brought to; other than the
            configuration's own, positions are interpolated as the class does it. None: the configuration's own.
        fit: how a picture is brought to that size (`Preprocess`); None: as the family's image processor does it.
            `native` takes pictures of any size. What is left of a last, incomplete patch is not seen (SigLIP's 384
            pixels are 27 patches of 14).
        mean, std: per-channel statistics of pixels in [0, 1]; None: the family's.
        resample: PIL's filter, by name; None: the family's.

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown family, setting or layer, a folder without
            weights, a size smaller than a patch.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        layer: int | Sequence[int] = -1,
        keep_class_token: bool = False,
        norm: bool | None = None,
        image_size: int | Sequence[int] | None = None,
        fit: Fit | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resample: str | None = None,
    ) -> None:
        model = tower(
            "VisionTransformer", {name: family.model_class for name, family in FAMILIES.items()}, config, checkpoint
        )
        self_config: Any = model.config
        family = FAMILIES[self_config.model_type]
        own = family.statistics
        self.statistics = (own[0] if mean is None else rgb(mean), own[1] if std is None else rgb(std))
        super().__init__(*self.statistics)
        self.resample = resample or family.resample
        self.family, self.keep_class_token, self.norm = family, keep_class_token, norm
        if self_config.model_type == "vit_mae":
            self_config.mask_ratio = 0.0  # every patch is seen
        self.model: Any = model
        self.patch = pair(self_config.patch_size)
        self.built = pair(self_config.image_size)
        self.size = self.built if image_size is None else pair(image_size)
        if any(side < patch for side, patch in zip(self.size, self.patch, strict=True)):
            raise ValueError(f"VisionTransformer: image_size {self.size} is smaller than the patch {self.patch}")
        if self_config.model_type == "aimv2_vision_model" and self.size != self.built:
            raise ValueError(f"VisionTransformer: AIMv2 reads pictures of {self.built} only, not of {self.size}")
        self.fit: Fit = fit or family.fit
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        depth = self_config.num_hidden_layers
        if not self.layers or any(not -depth - 1 <= index <= depth for index in self.layers):
            raise ValueError(f"VisionTransformer: layer {layer} is not between {-depth - 1} and {depth}")
        self.dim = self_config.hidden_size * len(self.layers)
        self.skip = int(family.class_token) + getattr(self_config, "num_register_tokens", 0)
        assert self.preprocess  # a fit that does not go with the size is refused now

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        mean, std = self.statistics
        if self.fit == "native":
            return (Preprocess(None, mean, std, self.resample, "native"),)
        enlarged = self.fit == "crop" and self.family.enlarge > 1
        short = round(max(self.size) * self.family.enlarge) if enlarged else None
        return (Preprocess(self.size, mean, std, self.resample, self.fit, short),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        height, width = (height, width) if self.fit == "native" else self.size
        rows, columns = height // self.patch[0], width // self.patch[1]
        return (1, rows * columns + 1) if self.family.class_token and self.keep_class_token else (rows, columns)

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        size = (pixels.shape[-2], pixels.shape[-1])
        if self.fit == "native":
            if size[0] < self.patch[0] or size[1] < self.patch[1]:
                raise ValueError(f"VisionTransformer: a picture of {size} is smaller than the patch {self.patch}")
        elif size != self.size:
            pixels, size = F.interpolate(pixels, self.size, mode="bicubic", antialias=True), self.size
        states = self._states(pixels, size != self.built)
        if self.skip == 0:
            return states
        patches = states[:, self.skip :]
        kept = self.keep_class_token and self.family.class_token
        return torch.cat([states[:, :1], patches], dim=1) if kept else patches

    def _states(self, pixels: Tensor, interpolate: bool) -> Tensor:
        """(B, special tokens and N, D_enc)."""
        options: dict[str, Any] = {"interpolate_pos_encoding": True} if interpolate and self.family.flag else {}
        if self.model.config.model_type == "vit_mae":  # without noise in this order, MAE would shuffle the patches
            count = (pixels.shape[-2] // self.patch[0]) * (pixels.shape[-1] // self.patch[1])
            options["noise"] = torch.arange(count, device=pixels.device).expand(len(pixels), -1)
        if self.layers == [-1] and self.norm is None:
            return self.model(pixel_values=pixels, **options).last_hidden_state
        output = self.model(pixel_values=pixels, output_hidden_states=True, **options)
        chosen = []
        for index in self.layers:
            last = index in (-1, len(output.hidden_states) - 1)
            if self.norm is None and last:
                chosen.append(output.last_hidden_state)
            else:
                state = output.hidden_states[index]
                chosen.append(getattr(self.model, self.family.norm)(state) if self.norm else state)
        return torch.cat(chosen, dim=-1)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "config": described(self.model)}


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from one side or both."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def rgb(values: Sequence[float]) -> tuple[float, float, float]:
    """One number per channel.

    Raises:
        ValueError: there are not three.
    """
    if len(values) != 3:
        raise ValueError(f"VisionTransformer: mean and std have three numbers, got {list(values)}")
    return (float(values[0]), float(values[1]), float(values[2]))
