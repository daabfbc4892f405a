"""Fuyu (Bavishi et al. 2023): raw patches, a linear map and Persimmon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import PretrainedConfig

from embodied.lvlm.encoders.pretrained import HALF
from embodied.lvlm.interop.base import Family, Images, causal, edge, filter_name, same_statistics

NEWLINE_AFTER_SPEAKER = 8
"""|NEWLINE| is the eighth word behind |SPEAKER|, the image token, in Fuyu's tokenizer (71019 and 71011)."""

EMBEDDING = "model.language_model.embed_tokens.weight"
NEWLINE = "vision.resolution.newline"


class Fuyu(Family):
    """Fuyu-8B. Its newline is a word of the language model; here the resolution strategy owns that row."""

    model_types: ClassVar[tuple[str, ...]] = ("fuyu",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        return {
            "vision.connector.net.": "model.vision_embed_tokens.",
            "backbone.model.model.": "model.language_model.",
            "backbone.model.lm_head.": "lm_head.",
        }

    def newline(self, reference: PretrainedConfig) -> int:
        """The id of the word that ends a row of patches."""
        return self.image_token(reference) + NEWLINE_AFTER_SPEAKER

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        same_statistics(images, *HALF)
        patch = reference.patch_size
        return {
            "encoder": {"_target_": "embodied.lvlm.encoders.raw.RawPatches", "patch": patch},
            "connector": {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
            "resolution": {
                "_target_": "embodied.lvlm.resolution.patches.PatchRows",
                "patch": patch,
                "max_height": edge(images, "size", "height", default=36 * patch),
                "max_width": edge(images, "size", "width", default=64 * patch),
                "padding": int(images.get("padding_value", 1)),
                "resample": filter_name(images.get("resample"), "bilinear"),
            },
            "backbone": causal(reference.text_config),
        }

    def to_ours(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        newline = weights[EMBEDDING][self.newline(reference)].clone()
        return super().to_ours(weights, reference) | {NEWLINE: newline}

    def to_reference(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        theirs = super().to_reference(weights, reference)
        table = theirs[EMBEDDING].clone()
        table[self.newline(reference)] = theirs.pop(NEWLINE)
        return theirs | {EMBEDDING: table}
