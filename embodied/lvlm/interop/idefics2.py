"""IDEFICS2 and IDEFICS3 (SmolVLM too): SigLIP at the picture's own shape, resampled or shuffled, any language model."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from embodied.lvlm.encoders.pretrained import HALF
from embodied.lvlm.interop.base import Family, Images, causal, described, edge, filter_name, same_statistics


class Idefics2(Family):
    """Laurençon et al. 2024, arXiv 2405.02246."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics2",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        return {
            "vision.encoder.model.": "model.vision_model.",
            "vision.connector.": "model.connector.",
            "backbone.model.model.": "model.text_model.",
            "backbone.model.lm_head.": "lm_head.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        same_statistics(images, *HALF)
        return {
            "encoder": {
                "_target_": "embodied.lvlm.encoders.native.NativeSigLIP",
                "config": described(reference.vision_config) | {"model_type": "idefics2_vision"},
            },
            "connector": self.connector(reference),
            "resolution": self.resolution(reference, images),
            "backbone": causal(reference.text_config),
        }

    def connector(self, reference: PretrainedConfig) -> dict[str, Any]:
        perceiver, text = reference.perceiver_config, reference.text_config
        return {
            "_target_": "embodied.lvlm.connectors.perceiver.Idefics2Resampler",
            "queries": perceiver.resampler_n_latents,
            "layers": perceiver.resampler_depth,
            "heads": perceiver.resampler_n_heads,
            "head_width": perceiver.resampler_head_dim,
            "key_heads": perceiver.num_key_value_heads,
            "intermediate": text.intermediate_size,
            "activation": text.hidden_act,
            "epsilon": perceiver.rms_norm_eps,
        }

    def resolution(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        return {
            "_target_": "embodied.lvlm.resolution.edges.BoundedEdges",
            "shortest": edge(images, "size", "shortest_edge", default=378),
            "longest": edge(images, "size", "longest_edge", default=980),
            "split": bool(images.get("do_image_splitting", False)),
            "resample": filter_name(images.get("resample"), "bilinear"),
        }


class Idefics3(Idefics2):
    """Laurençon et al. 2024, arXiv 2408.12637, and SmolVLM (Marafioti et al. 2025, arXiv 2504.05299)."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics3", "smolvlm")

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        return super().names(reference) | {"vision.connector.net.": "model.connector.modality_projection.proj."}

    def connector(self, reference: PretrainedConfig) -> dict[str, Any]:
        return {
            "_target_": "embodied.lvlm.connectors.projection.LinearConnector",
            "bias": False,
            "stage": {"_target_": "embodied.lvlm.connectors.stages.PixelShuffle", "scale": reference.scale_factor},
        }

    def resolution(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        side = reference.vision_config.image_size
        side = edge(images, "max_image_size", "longest_edge", default=side)
        if images.get("do_image_splitting") is False:
            raise ValueError("preprocessor_config.json has do_image_splitting=false, which is not composed here")
        return {
            "_target_": "embodied.lvlm.resolution.grid.RowColumnTiles",
            "side": side,
            "longest": edge(images, "size", "longest_edge", default=4 * side),
            "resample": filter_name(images.get("resample"), "lanczos"),
        }
