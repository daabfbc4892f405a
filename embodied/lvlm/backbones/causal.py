"""Any causal language model of transformers as the shared backbone.

The model's own class runs, fed with embeddings, an explicit attention mask and explicit positions, so a prefix can be
bidirectional (as PaliGemma and pi-0 read it) or causal without touching the model. Weights of a released checkpoint
load as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from embodied.lvlm.encoders.vision import plain

ACTION_TOKENS = 256
"""Ids at the end of the vocabulary that stand for actions (RT-2, OpenVLA)."""

KeyValues = list[tuple[Tensor, Tensor]]


class CausalBackbone(nn.Module):
    """A causal language model.

    Args: config: a transformers configuration with its `model_type` (`llama`, `qwen2`, ...), at any size. checkpoint:
    instead of `config`, a Hugging Face folder. vocabulary: token ids of the text tokenizer. A model built from a
    config gets these and 256 for actions; one from a checkpoint keeps its own vocabulary, whose last 256 ids serve
    (OpenVLA's choice).

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown model type, a folder without a model.
    """

    def __init__(
        self, config: dict[str, Any] | None = None, checkpoint: str | None = None, vocabulary: int | None = None
    ) -> None:
        super().__init__()
        if (config is None) == (checkpoint is None):
            raise ValueError("CausalBackbone: give either a config or a checkpoint folder")
        if checkpoint is not None:
            if not (Path(checkpoint) / "config.json").is_file():
                raise ValueError(f"CausalBackbone: {checkpoint} is no Hugging Face folder: it has no config.json")
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        else:
            self.model = _create(dict(config or {}), vocabulary)
        self.width: int = self.model.config.hidden_size
        self.vocabulary: int = self.model.config.vocab_size
        self.model.config.use_cache = True

    def forward(
        self, embeddings: Tensor, mask: Tensor, positions: Tensor, past: KeyValues | None = None, keep: bool = False
    ) -> tuple[Tensor, KeyValues]:
        """One pass.

        Args:
            embeddings: (B, N, D).
            mask: (B, N, P + N), bool: which of P past and N present tokens each token sees.
            positions: (B, N), int.
            past: keys and values of P earlier tokens, per layer (B, heads, P, head width); left as they are.
            keep: whether to return the keys and values of all P + N tokens.

        Returns:
            Hidden states (B, N, D), after the final norm, and the keys and values (empty unless `keep`).
        """
        cache = DynamicCache(ddp_cache_data=past) if past else DynamicCache() if keep else None
        output = self.model.base_model(
            inputs_embeds=embeddings,
            attention_mask=mask.unsqueeze(1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        layers: Any = cache.layers if keep and cache is not None else []
        return output.last_hidden_state, [(layer.keys, layer.values) for layer in layers]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, N) to embeddings (B, N, D)."""
        return self.model.get_input_embeddings()(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, N, D) to (B, N, vocabulary)."""
        return self.model.get_output_embeddings()(hidden)

    @property
    def layers(self) -> dict[str, Any]:
        """What a transformer that attends this one layer by layer has to know: its configuration and head width."""
        config = self.model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return plain(config.to_diff_dict()) | {"model_type": config.model_type, "head_dim": head_dim}

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """The config node that rebuilds this backbone's shape from an agent's folder alone."""
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        config = self.model.config
        return {**rest, "config": plain(config.to_diff_dict()) | {"model_type": config.model_type}}


def _create(config: dict[str, Any], vocabulary: int | None) -> nn.Module:
    family = config.pop("model_type", None)
    if family is None:
        raise ValueError("CausalBackbone: config needs a model_type, such as llama or qwen2")
    if "vocab_size" not in config:
        if vocabulary is None:
            raise ValueError("CausalBackbone: config needs vocab_size where no tokenizer gives it")
        config["vocab_size"] = vocabulary + ACTION_TOKENS
    unset = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    try:
        settings = AutoConfig.for_model(family, **(unset | config))
        return AutoModelForCausalLM.from_config(settings, attn_implementation="sdpa")
    except (ValueError, KeyError) as error:
        raise ValueError(f"CausalBackbone: transformers cannot build a causal '{family}': {error}") from None
