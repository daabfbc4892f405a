"""Qwen2-VL (Wang et al. 2024, arXiv 2409.12191): native resolution, merged in the encoder, positions in three axes."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from embodied.lvlm.encoders.pretrained import OPENAI
from embodied.lvlm.interop.base import Family, Images, causal, described, edge, filter_name, same_statistics


class Qwen2VL(Family):
    """`Qwen2VLForConditionalGeneration`."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        return {
            "vision.encoder.model.": "model.visual.",
            "backbone.model.model.": "model.language_model.",
            "backbone.model.lm_head.": "lm_head.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        same_statistics(images, *OPENAI)
        vision = reference.vision_config
        return {
            "encoder": {"_target_": "embodied.lvlm.encoders.qwen.QwenVision", "config": described(vision)},
            "video": "together",
            "connector": {"_target_": "embodied.lvlm.connectors.identity.IdentityConnector"},
            "resolution": {
                "_target_": "embodied.lvlm.resolution.native.Native",
                "unit": vision.patch_size * vision.spatial_merge_size,
                "min_pixels": images.get("min_pixels") or edge(images, "size", "shortest_edge", default=56 * 56),
                "max_pixels": images.get("max_pixels") or edge(images, "size", "longest_edge", default=28 * 28 * 1280),
                "resample": filter_name(images.get("resample"), "bicubic"),
            },
            "backbone": causal(reference.text_config),
        }
