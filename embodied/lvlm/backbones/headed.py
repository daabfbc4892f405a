"""Text models that transformers has without a language model's head: that of Qwen2-VL.

Names of the parts are those of every causal model (`model`, `lm_head`), so that weights are found where one looks.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoModel, PreTrainedConfig

HEADLESS = frozenset({"qwen2_vl_text", "qwen2_5_vl_text"})
"""Model types this file gives a head."""


class HeadedTextModel(nn.Module):
    """A text model and the linear map to its vocabulary.

    Args:
        config: of the text model; `tie_word_embeddings` shares the map with the embedding.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.model: Any = AutoModel.from_config(config)
        self.config: PreTrainedConfig = self.model.config  # the one that says which attention it runs
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=config.initializer_range)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Share the map to the vocabulary with the embedding, where the config says so."""
        if getattr(self.config, "tie_word_embeddings", False):
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def base_model(self) -> nn.Module:
        return self.model

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head
