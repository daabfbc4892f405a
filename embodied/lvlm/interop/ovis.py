"""Ovis2 (Lu et al. 2024, arXiv 2405.20797): AIMv2, a visual vocabulary and a table of its words' embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import PretrainedConfig

from embodied.lvlm.encoders.vision import pair
from embodied.lvlm.interop.base import Family, Images, causal, refuse, statistics

TABLE = "model.visual_embeddings_table.weight"
MARKS = "vision.resolution.marks"
SHARED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "rms_norm_eps",
    "qkv_bias",
    "mlp_bias",
    "hidden_act",
)
"""Settings that its encoder shares with AIMv2."""


class Ovis2(Family):
    """The marks of a picture's parts are words of the visual vocabulary; the resolution strategy owns those rows."""

    model_types: ClassVar[tuple[str, ...]] = ("ovis2",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        tower = "model.vision_tower."
        return {
            "vision.encoder.model.": tower + "transformer.",
            "vision.encoder.model.embeddings.patch_embed.": tower + "transformer.embeddings.patch_embedding.",
            "vision.connector.head_linear.": tower + "head_linear.",
            "vision.connector.head_norm.": tower + "head_norm.",
            "vision.connector.visual_embeddings_table.": "model.visual_embeddings_table.",
            "backbone.model.model.": "model.language_model.",
            "backbone.model.lm_head.": "lm_head.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        vision, look = reference.vision_config, statistics(images)
        if vision.num_visual_indicator_tokens != 5:
            count = vision.num_visual_indicator_tokens
            raise refuse(reference, "num_visual_indicator_tokens", count, "a picture has five kinds of marks")
        if images.get("use_covering_area_grid") is False:
            raise ValueError("preprocessor_config.json has use_covering_area_grid=false, which is not composed here")
        settings = {name: getattr(vision, name) for name in SHARED}
        return {
            "encoder": {
                "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
                "config": settings | {"model_type": "aimv2_vision_model", "use_head": False},
                **look,
            },
            "connector": {
                "_target_": "embodied.lvlm.connectors.visual_table.VisualEmbeddingTable",
                "vocabulary": vision.vocab_size,
                "indicators": vision.num_visual_indicator_tokens,
                "stride": vision.hidden_stride,
                "choose": vision.tokenize_function,
            },
            "resolution": {
                "_target_": "embodied.lvlm.resolution.marked.MarkedTiles",
                "side": pair(vision.image_size)[0],
                "max_tiles": images.get("max_patches", 12) if images.get("crop_to_patches") else 1,
                "resample": look["resample"],
            },
            "backbone": causal(reference.text_config),
        }

    def to_ours(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        return super().to_ours(weights, reference) | {MARKS: weights[TABLE][-5:].clone()}

    def to_reference(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        theirs = super().to_reference(weights, reference)
        table = theirs[TABLE].clone()
        table[-5:] = theirs.pop(MARKS)
        return theirs | {TABLE: table}
