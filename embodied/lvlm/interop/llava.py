"""LLaVA and LLaVA-1.5, and all that have their architecture: a vision transformer, an MLP, any language model."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from embodied.lvlm.encoders.vision import plain
from embodied.lvlm.interop.base import Family, causal


class Llava(Family):
    """`LlavaForConditionalGeneration` (Liu et al. 2023, arXiv 2304.08485 and 2310.03744)."""

    model_type: ClassVar[str] = "llava"
    names: ClassVar[dict[str, str]] = {
        "vision.encoder.model.": "model.vision_tower.",
        "vision.connector.net.0.": "model.multi_modal_projector.linear_1.",
        "vision.connector.net.2.": "model.multi_modal_projector.linear_2.",
        "backbone.model.model.": "model.language_model.",
        "backbone.model.lm_head.": "lm_head.",
    }

    def config(self, reference: PretrainedConfig) -> dict[str, Any]:
        vision = reference.vision_config
        return {
            "encoder": {
                "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
                "config": plain(vision.to_diff_dict()) | {"model_type": vision.model_type},
                "layer": reference.vision_feature_layer,
                "norm": False,
                "keep_class_token": reference.vision_feature_select_strategy == "full",
            },
            "connector": {"_target_": "embodied.lvlm.connectors.projection.MLPConnector", "layers": 2},
            "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
            "backbone": causal(reference.text_config),
        }
