"""The LLaVA family: a vision transformer, a projection, any language model; AnyRes in the later ones, and films.

LLaVA (Liu et al. 2023, arXiv 2304.08485), Shikra and VILA have a single linear map; transformers holds it as a
projector with `projector_hidden_act="linear"` whose second map is the identity, and so does this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PretrainedConfig

from embodied.lvlm.interop.base import Family, Images, causal, described, refuse, statistics

PROJECTOR = "model.multi_modal_projector."
SECOND = PROJECTOR + "linear_2."


class Llava(Family):
    """LLaVA-1.5 (arXiv 2310.03744) and what shares its architecture: ShareGPT4V, Bunny, TinyLLaVA, Imp."""

    model_types: ClassVar[tuple[str, ...]] = ("llava",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        single = single_map(reference)
        return {
            "vision.encoder.model.": "model.vision_tower.",
            "vision.connector.net." if single else "vision.connector.net.0.": PROJECTOR + "linear_1.",
            **({} if single else {"vision.connector.net.2.": SECOND}),
            "vision.resolution.newline": "model.image_newline",
            "backbone.model.model.": "model.language_model.",
            "backbone.model.lm_head.": "lm_head.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        return {
            "encoder": self.encoder(reference, images),
            "connector": self.connector(reference),
            "resolution": self.resolution(reference, images),
            "backbone": causal(reference.text_config),
        }

    def encoder(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        vision, keep = reference.vision_config, reference.vision_feature_select_strategy == "full"
        if "siglip" in vision.model_type and not keep:
            why = "SigLIP has no class token to leave out; it would lose a patch"
            raise refuse(reference, "vision_feature_select_strategy", "default", why)
        return {
            "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
            "config": described(vision),
            "layer": reference.vision_feature_layer,
            "norm": False,
            "keep_class_token": keep,
            **({"fit": "pad"} if images.get("do_pad") else {}),
            **(statistics(images) if images else {}),
        }

    def connector(self, reference: PretrainedConfig) -> dict[str, Any]:
        bias = reference.multimodal_projector_bias
        if single_map(reference):
            return {"_target_": "embodied.lvlm.connectors.projection.LinearConnector", "bias": bias}
        return {
            "_target_": "embodied.lvlm.connectors.projection.MLPConnector",
            "layers": 2,
            "activation": reference.projector_hidden_act,
            "bias": bias,
        }

    def resolution(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        return {"_target_": "embodied.lvlm.resolution.single.SingleView"}

    def to_ours(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        if single_map(reference):
            for name, expected in identity(reference).items():
                if not torch.equal(weights[name], expected.to(weights[name])):
                    why = f"'{name}' should be the identity, for a single linear map"
                    raise refuse(reference, "projector_hidden_act", "linear", why)
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith(SECOND)}
        return super().to_ours(weights, reference)

    def to_reference(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        second = identity(reference) if single_map(reference) else {}
        return super().to_reference(weights, reference) | second


class LlavaNext(Llava):
    """LLaVA-NeXT (Liu et al. 2024): AnyRes."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)

    def encoder(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        if "siglip" not in reference.vision_config.model_type and reference.vision_feature_select_strategy == "full":
            raise refuse(reference, "vision_feature_select_strategy", "full", "tiles with class tokens make no grid")
        # The views come at the encoder's size already, so there is nothing to pad
        return super().encoder(reference, {key: value for key, value in images.items() if key != "do_pad"})

    def resolution(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        node = {
            "_target_": "embodied.lvlm.resolution.anyres.AnyRes",
            "side": reference.vision_config.image_size,
            "pinpoints": [list(size) for size in reference.image_grid_pinpoints],
        }
        return node | ({"resample": statistics(images)["resample"]} if images else {})


class LlavaNextVideo(LlavaNext):
    """LLaVA-NeXT-Video (Zhang et al. 2024): pictures as LLaVA-NeXT, films as frames pooled ahead of the projection."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next_video",)

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        vision, mode, stride = reference.vision_config, reference.spatial_pool_mode, reference.spatial_pool_stride
        side = vision.image_size // vision.patch_size
        if mode != "average" or side % stride:
            raise refuse(reference, "spatial_pool_mode", mode, f"means of cells that fill {side} x {side} patches")
        cells = side // stride
        pool = {"_target_": "embodied.lvlm.connectors.stages.Pool", "rows": cells, "columns": cells}
        return super().config(reference, images) | {"video": "together", "video_stage": pool}


class VideoLlava(Llava):
    """Video-LLaVA (Lin et al. 2023, arXiv 2311.10122): a tower for pictures and one for films' frames, one projection.

    Of frames the class token is read too.
    """

    model_types: ClassVar[tuple[str, ...]] = ("video_llava",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        towers = {
            "vision.encoder.model.": "model.image_tower.",
            "vision.video.encoder.model.": "model.video_tower.",
        }
        return super().names(reference) | towers

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        node = super().config(reference, images)
        frames = node["encoder"] | {"keep_class_token": True}
        return node | {"video": {"_target_": "embodied.lvlm.encoders.video.FrameEncoder", "encoder": frames}}


class LlavaOnevision(LlavaNext):
    """LLaVA-OneVision (Li et al. 2024, arXiv 2408.03326): AnyRes with a bound, for one picture in a sample; and films.

    A film's frames are half as long and wide in tokens, and a newline ends it.
    """

    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)

    def resolution(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        aspect, start = reference.vision_aspect_ratio, "anyres_max_"
        if not aspect.startswith(start) or not aspect.removeprefix(start).isdigit():
            raise refuse(reference, "vision_aspect_ratio", aspect, f"it is {start} and a number of tiles")
        tiles = int(aspect.removeprefix(start))
        return super().resolution(reference, images) | {"max_tiles": tiles, "film_scale": 2}

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        return super().config(reference, images) | {"video": "together"}


class VipLlava(Llava):
    """ViP-LLaVA (Cai et al. 2023, arXiv 2312.00784): several layers of the encoder side by side, normalised."""

    model_types: ClassVar[tuple[str, ...]] = ("vipllava",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        kept = {ours: theirs for ours, theirs in super().names(reference).items() if PROJECTOR not in theirs}
        parts = ("projector_layernorm", "linear_1", "linear_2")
        return kept | {
            f"vision.connector.net.{i}.": f"{PROJECTOR}{part}." for i, part in zip((0, 1, 3), parts, strict=True)
        }

    def encoder(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        return {
            "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
            "config": described(reference.vision_config),
            "layer": reference.vision_feature_layers,
            "norm": False,
            **(statistics(images) if images else {}),
        }

    def connector(self, reference: PretrainedConfig) -> dict[str, Any]:
        return {
            "_target_": "embodied.lvlm.connectors.projection.MLPConnector",
            "layers": 2,
            "activation": reference.projector_hidden_act,
            "norm": "input",
            "epsilon": reference.projector_layernorm_eps,
        }


def single_map(reference: PretrainedConfig) -> bool:
    """Whether the projector is one linear map, and not two with a nonlinearity between."""
    return getattr(reference, "projector_hidden_act", None) == "linear"


def identity(reference: PretrainedConfig) -> dict[str, Tensor]:
    """The second map of a projector that has but one."""
    width = reference.text_config.hidden_size
    bias = {SECOND + "bias": torch.zeros(width)} if reference.multimodal_projector_bias else {}
    return {SECOND + "weight": torch.eye(width)} | bias
