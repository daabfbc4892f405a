"""IDEFICS (Laurençon et al. 2023, arXiv 2306.16527): pictures beside the text, which looks at them through gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PretrainedConfig

from embodied.lvlm.adapters.gated_cross_attention import IDEFICS
from embodied.lvlm.interop.base import Family, Images, refuse, statistics

TABLES = {
    "model.embed_tokens.weight": "model.embed_tokens.additional_embedding.weight",
    "lm_head.weight": "lm_head.additional_fc.weight",
}
"""Tables of words, and where the words that were added later are kept."""


class Idefics(Family):
    """Frozen CLIP, a resampler, and cross-attention between the layers of a frozen Llama."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics",)

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        every = reference.cross_layer_interval
        names = {
            "vision.encoder.model.": "model.vision_model.",
            "vision.connector.resampler.": "model.perceiver_resampler.",
            "backbone.model.model.": "model.",
            "backbone.model.lm_head.": "lm_head.",
        }
        for block in range(reference.num_hidden_layers // every):
            for ours, theirs in IDEFICS.items():
                names[f"adapters.0.blocks.{block * every}.{ours}"] = f"model.gated_cross_attn_layers.{block}.{theirs}"
        return names

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        vision, perceiver = reference.vision_config, reference.perceiver_config
        if reference.hidden_act != "silu":
            raise refuse(reference, "hidden_act", reference.hidden_act, "Llama's is silu")
        connector: dict[str, Any] = {"_target_": "embodied.lvlm.connectors.identity.IdentityConnector"}
        if reference.use_resampler:
            connector = {
                "_target_": "embodied.lvlm.connectors.perceiver.IdeficsResampler",
                "queries": perceiver.resampler_n_latents,
                "layers": perceiver.resampler_depth,
                "heads": perceiver.resampler_n_heads,
                "head_width": perceiver.resampler_head_dim,
                "normalised": perceiver.qk_layer_norms_perceiver,
            }
        return {
            "placement": "beside",
            "encoder": {
                "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
                "config": {
                    "model_type": "clip_vision_model",
                    "hidden_size": vision.embed_dim,
                    "intermediate_size": vision.intermediate_size,
                    "num_hidden_layers": vision.num_hidden_layers,
                    "num_attention_heads": vision.num_attention_heads,
                    "image_size": vision.image_size,
                    "patch_size": vision.patch_size,
                    "hidden_act": vision.hidden_act,
                    "layer_norm_eps": vision.layer_norm_eps,
                },
                "keep_class_token": True,
                "fit": "squash",
                **statistics(images),
            },
            "connector": connector | {"width": vision.embed_dim},
            "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
            "adapters": {
                "gated_cross_attention": {
                    "_target_": "embodied.lvlm.adapters.gated_cross_attention.GatedCrossAttention",
                    "every": reference.cross_layer_interval,
                    "heads": reference.num_attention_heads,
                    "media_width": vision.embed_dim,
                    "feed_forward": reference.intermediate_size,
                    "activation": "swiglu",
                    "norm": "rms",
                    "norm_eps": reference.rms_norm_eps,
                    "normalise_queries": reference.qk_layer_norms,
                    "gate": {"float": "scalar", "vector": "vector"}[reference.alpha_type],
                    "blind": "attention",
                }
            },
            "backbone": {
                "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
                "config": {
                    "model_type": "llama",
                    "vocab_size": reference.vocab_size + reference.additional_vocab_size,
                    "hidden_size": reference.hidden_size,
                    "intermediate_size": reference.intermediate_size,
                    "num_hidden_layers": reference.num_hidden_layers,
                    "num_attention_heads": reference.num_attention_heads,
                    "rms_norm_eps": reference.rms_norm_eps,
                    "max_position_embeddings": reference.max_position_embeddings,
                    "pad_token_id": reference.pad_token_id,
                    "bos_token_id": reference.bos_token_id,
                    "eos_token_id": reference.eos_token_id,
                },
            },
        }

    def to_ours(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        joined = dict(weights)
        for first, added in TABLES.items():
            if added in joined:
                joined[first] = torch.cat([joined[first], joined.pop(added)])
        return super().to_ours(joined, reference)

    def to_reference(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        theirs = super().to_reference(weights, reference)
        if reference.additional_vocab_size:
            for first, added in TABLES.items():
                table = theirs[first]
                theirs[first], theirs[added] = (part.clone() for part in table.tensor_split([reference.vocab_size]))
        return theirs
