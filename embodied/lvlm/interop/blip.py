"""BLIP-2, InstructBLIP and MiniGPT-4: a querying transformer before a language model of either kind."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from embodied.lvlm.interop.base import Family, Images, causal, described, statistics, usual


class Blip2(Family):
    """BLIP-2 (Li et al. 2023, arXiv 2301.12597); with a Llama it is MiniGPT-4 (Zhu et al. 2023, arXiv 2304.10592)."""

    model_types: ClassVar[tuple[str, ...]] = ("blip-2",)
    instructed: ClassVar[bool] = False

    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        connector = ("query_tokens", "qformer.", "language_projection.")
        return {
            "vision.encoder.model.": "vision_model.",
            **{f"vision.connector.{part}": part for part in connector},
            "backbone.model.": "language_model.",
        }

    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        qformer, text = reference.qformer_config, reference.text_config
        usual(reference, qformer, hidden_act="gelu", layer_norm_eps=1e-12, use_qformer_text_input=False)
        backbone = causal(text)
        if text.is_encoder_decoder:
            backbone["_target_"] = "embodied.lvlm.backbones.encoder_decoder.EncoderDecoderBackbone"
        return {
            "encoder": {
                "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
                "config": described(reference.vision_config) | {"model_type": "blip_2_vision_model"},
                "keep_class_token": True,
                **statistics(images),
            },
            "connector": {
                "_target_": "embodied.lvlm.connectors.qformer.QFormer",
                "queries": reference.num_query_tokens,
                "hidden": qformer.hidden_size,
                "layers": qformer.num_hidden_layers,
                "heads": qformer.num_attention_heads,
                "intermediate": qformer.intermediate_size,
                "frequency": qformer.cross_attention_frequency,
                "instructed": self.instructed,
                "vocabulary": qformer.vocab_size,
                "positions": qformer.max_position_embeddings,
                "dropout": qformer.hidden_dropout_prob,
            },
            "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
            "backbone": backbone,
        }


class InstructBlip(Blip2):
    """InstructBLIP (Dai et al. 2023, arXiv 2305.06500): the queries read the instruction too.

    Of a film each frame is read as a picture.
    """

    model_types: ClassVar[tuple[str, ...]] = ("instructblip", "instructblipvideo")
    instructed: ClassVar[bool] = True
