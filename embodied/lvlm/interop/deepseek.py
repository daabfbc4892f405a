"""DeepSeek-VL (Lu et al. 2024, arXiv 2403.05525): SigLIP, in the hybrid beside SAM, and an MLP."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from embodied.lvlm.interop.base import Family, Images, causal, described, statistics


class DeepseekVL(Family):
    """The plain one, of 1.3 B."""

    model_types: ClassVar[tuple[str, ...]] = ("deepseek_vl",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        return {
            "vision.encoder.model.": "model.vision_model.",
            "vision.connector.net.0.": "model.aligner.linear1.",
            "vision.connector.net.2.": "model.aligner.linear2.",
            "backbone.model.model.": "model.language_model.",
            "backbone.model.lm_head.": "lm_head.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        return {
            "encoder": self.encoder(reference, images),
            "connector": {"_target_": "embodied.lvlm.connectors.projection.MLPConnector", "layers": 2},
            "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
            "backbone": causal(reference.text_config),
        }

    def encoder(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        return semantic(reference.vision_config, images)


def semantic(vision: PretrainedConfig, images: Images) -> dict[str, Any]:
    """SigLIP's node."""
    return {
        "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
        "config": described(vision),
        "fit": "letterbox",
        **statistics(images),
    }
