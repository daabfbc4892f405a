"""InternVL 1.5 and its successors (Chen et al. 2024, arXiv 2404.16821): InternViT, a pixel shuffle and an MLP."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from embodied.lvlm.encoders.pretrained import IMAGENET
from embodied.lvlm.encoders.vision import pair
from embodied.lvlm.interop.base import Family, Images, causal, described, refuse, statistics


class InternVL(Family):
    """`InternVLForConditionalGeneration`; the 1.5 generation's InternLM2 is a Llama with other names."""

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        projector = "model.multi_modal_projector."
        return {
            "vision.encoder.model.": "model.vision_tower.",
            "vision.connector.net.0.": projector + "layer_norm.",
            "vision.connector.net.1.": projector + "linear_1.",
            "vision.connector.net.3.": projector + "linear_2.",
            "backbone.model.model.": "model.language_model.",
            "backbone.model.lm_head.": "lm_head.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        vision, layer = reference.vision_config, reference.vision_feature_layer
        height, width = pair(vision.image_size)
        if height != width:
            raise refuse(reference, "vision_config.image_size", vision.image_size, "tiles are square")
        if reference.vision_feature_select_strategy != "default":
            strategy = reference.vision_feature_select_strategy
            raise refuse(reference, "vision_feature_select_strategy", strategy, "a class token fits into no block")
        look = statistics(images, default=IMAGENET)
        tiled = bool(images.get("crop_to_patches", True))
        return {
            "encoder": {
                "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
                "config": described(vision),
                "layer": layer,
                "norm": None if layer == -1 else False,
                **look,
            },
            "connector": {
                "_target_": "embodied.lvlm.connectors.projection.MLPConnector",
                "layers": 2,
                "activation": reference.projector_hidden_act,
                "norm": "input",
                "stage": {
                    "_target_": "embodied.lvlm.connectors.stages.PixelShuffle",
                    "scale": round(1 / reference.downsample_ratio),
                },
            },
            "resolution": {
                "_target_": "embodied.lvlm.resolution.dynamic.DynamicTiles",
                "side": height,
                "min_tiles": images.get("min_patches", 1) if tiled else 1,
                "max_tiles": images.get("max_patches", 12) if tiled else 1,
                "resample": look["resample"],
            },
            "backbone": causal(reference.text_config),
        }
