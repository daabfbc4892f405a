"""DeepSeek-VL (Lu et al. 2024, arXiv 2403.05525): SigLIP, in the hybrid beside SAM, and an MLP."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from embodied.lvlm.encoders.pretrained import OPENAI
from embodied.lvlm.interop.base import Family, Images, causal, described, same_statistics, statistics


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


class DeepseekVLHybrid(DeepseekVL):
    """The hybrid, of 7 B."""

    model_types: ClassVar[tuple[str, ...]] = ("deepseek_vl_hybrid",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        kept = {ours: theirs for ours, theirs in super().names(reference).items() if ours.startswith("backbone.")}
        return kept | {
            "vision.encoder.members.0.model.": "model.vision_model.",
            "vision.encoder.members.1.model.": "model.high_res_vision_model.",
            "vision.encoder.neck.": "model.high_res_vision_neck.",
            "vision.encoder.project.": "model.high_res_vision_proj.",
            "vision.encoder.alpha": "model.high_res_vision_alpha",
            "vision.connector.": "model.aligner.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        detailed = 4 * reference.high_res_vision_config.output_channels
        connector = {"_target_": "embodied.lvlm.connectors.hybrid.HybridConnector", "detailed": detailed}
        return super().config(reference, images) | {"connector": connector}

    def encoder(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        same_statistics(images, *OPENAI)
        same_statistics(images, *OPENAI, prefix="high_res_")
        high = {
            "_target_": "embodied.lvlm.encoders.sam.SegmentAnything",
            "config": described(reference.high_res_vision_config),
            "fit": "letterbox",
            "statistics": "openai",
        }
        low = semantic(reference.vision_config, images)
        return {"_target_": "embodied.lvlm.encoders.deepseek.DeepSeekHybrid", "low": low, "high": high}


def semantic(vision: PretrainedConfig, images: Images) -> dict[str, Any]:
    """SigLIP's node."""
    return {
        "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
        "config": described(vision),
        "fit": "letterbox",
        **statistics(images),
    }
