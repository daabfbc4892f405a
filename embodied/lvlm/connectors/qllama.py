"""A language model as connector: queries pass through a LLaMA whose layers also attend to the features.

InternVL's QLLaMA (Chen et al. 2023, arXiv 2312.14238): a multilingual LLaMA-7B with 96 learned queries and a
cross-attention in every second layer, 1 billion new parameters. Here of any size, with transformers' LLaMA layers and
the module names of the official code. The queries see each other in both directions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from embodied.lvlm.connectors.base import NOTHING, Context
from embodied.lvlm.connectors.checks import divides, positive, seen
from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector
from embodied.lvlm.connectors.queries import QueryConnector


class QLLaMA(QueryConnector):
    """Learned queries inside a LLaMA that looks at the features; then a linear map or an MLP.

    Args:
        features, width: D_enc and D.
        queries: M, tokens per picture; InternVL: 96.
        hidden: width of the LLaMA; InternVL: 4096.
        layers: its depth; InternVL: 32.
        heads: its attention heads, of even width; they divide `hidden`.
        intermediate: width inside its feed-forward nets; InternVL: 11008.
        frequency: every how many layers, from the first on, there is a cross-attention.
        epsilon: of its norms.
        projection: layers of the map to the language model.

    Raises:
        ValueError: a size that does not fit.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 96,
        hidden: int = 4096,
        layers: int = 32,
        heads: int = 32,
        intermediate: int = 11008,
        frequency: int = 2,
        epsilon: float = 1e-6,
        projection: int = 2,
    ) -> None:
        super().__init__(features, width)
        divides("QLLaMA", "heads of even width", 2 * heads, "hidden", hidden)
        positive("QLLaMA", queries=queries, layers=layers, intermediate=intermediate, frequency=frequency)
        positive("QLLaMA", projection=projection)
        config = LlamaConfig(
            vocab_size=1,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            rms_norm_eps=epsilon,
            max_position_embeddings=max(2048, queries),
            bos_token_id=None,  # it has no vocabulary
            eos_token_id=None,
        )
        config._attn_implementation = "sdpa"
        self.query_tokens = nn.Parameter(torch.randn(1, queries, hidden) * 0.02)
        self.layers = nn.ModuleList(_Layer(config, i, features if i % frequency == 0 else None) for i in range(layers))
        self.norm = LlamaRMSNorm(hidden, eps=epsilon)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.project = LinearConnector(hidden, width) if projection == 1 else MLPConnector(hidden, width, projection)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        hidden = self.query_tokens.expand(len(features), -1, -1)
        count = hidden.shape[1]
        places = self.rotary_emb(hidden, position_ids=torch.arange(count, device=hidden.device).unsqueeze(0))
        mutual = torch.ones(1, 1, count, count, dtype=torch.bool, device=hidden.device)
        for layer in self.layers:
            hidden = layer(hidden, features, places, mutual, seen(context, count))
        return self.project(self.norm(hidden))

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return self.query_tokens.shape[1]


class _Layer(LlamaDecoderLayer):
    """A LLaMA layer that may attend to features between its attention and its feed-forward net."""

    def __init__(self, config: LlamaConfig, index: int, features: int | None) -> None:
        super().__init__(config, index)
        self.cross_attn = None if features is None else _CrossAttention(config, features)

    def forward(  # type: ignore[override]
        self,
        hidden: Tensor,
        features: Tensor,
        places: tuple[Tensor, Tensor],
        mutual: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden), position_embeddings=places, attention_mask=mutual)
        hidden = hidden + attended
        if self.cross_attn is not None:
            hidden = hidden + self.cross_attn(hidden, features, mask)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class _CrossAttention(nn.Module):
    def __init__(self, config: LlamaConfig, features: int) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.norm1 = LlamaRMSNorm(width, eps=config.rms_norm_eps)
        self.norm2 = LlamaRMSNorm(features, eps=config.rms_norm_eps)
        self.q_proj, self.o_proj = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k_proj, self.v_proj = nn.Linear(features, width, bias=False), nn.Linear(features, width, bias=False)

    def forward(self, hidden: Tensor, features: Tensor, mask: Tensor | None) -> Tensor:
        features = self.norm2(features)
        parts = (self.q_proj(self.norm1(hidden)), self.k_proj(features), self.v_proj(features))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in parts)
        return self.o_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
