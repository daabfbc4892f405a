"""Perceiver resamplers as transformers has them: IDEFICS', Idefics2's and Kosmos-2's; released weights fit as they are.

All are Flamingo's idea (`embodied.lvlm.connectors.resampler`): queries attend to the features and to themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import IdeficsConfig, Kosmos2Config
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2MLP, Idefics2PerceiverResampler
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2ImageToTextProjection

from embodied.lvlm.connectors.base import NOTHING, Context
from embodied.lvlm.connectors.checks import divides, nonlinearity, positive
from embodied.lvlm.connectors.queries import QueryConnector


class IdeficsResampler(QueryConnector):
    """IDEFICS' resampler (Laurencon et al. 2023, arXiv 2306.16527), as wide as the features.

    Args:
        features, width: D_enc and D; where they differ a linear map follows.
        queries: M, tokens per picture; IDEFICS: 64.
        layers: depth; IDEFICS: 6.
        heads, head_width: attention heads and their width; IDEFICS: 16 of 96.
        normalised: whether queries and keys are normalised in each head.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 64,
        layers: int = 6,
        heads: int = 16,
        head_width: int = 96,
        normalised: bool = False,
    ) -> None:
        super().__init__(features, width)
        positive("IdeficsResampler", queries=queries, layers=layers, heads=heads, head_width=head_width)
        config = IdeficsConfig(
            vision_config={"embed_dim": features}, perceiver_config={"qk_layer_norms_perceiver": normalised}
        )
        self.resampler = IdeficsPerceiverResampler(config, features, layers, heads, head_width, queries)
        self.project = nn.Identity() if features == width else nn.Linear(features, width)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        if context.present is not None and not context.present.all():
            raise ValueError("IdeficsResampler: pictures of different sizes must come one by one, it masks nothing")
        return self.project(self.resampler(features))

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return len(self.resampler.latents)


class Idefics2Resampler(QueryConnector):
    """Idefics2's connection (Laurencon et al. 2024, arXiv 2405.02246): a gated MLP per feature, then a resampler.

    Args:
        features, width: D_enc and D.
        queries: M, tokens per picture.
        layers: depth of the resampler.
        heads, head_width, key_heads: attention heads, their width, and how many have keys of their own.
        intermediate: width inside the MLP; None: 3.5 x D, Mistral's.
        activation: transformers' name of the nonlinearity.
        epsilon: of the norms.

    Raises:
        ValueError: `key_heads` does not divide `heads`; another size is not positive; an unknown activation.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 64,
        layers: int = 3,
        heads: int = 16,
        head_width: int = 96,
        key_heads: int = 4,
        intermediate: int | None = None,
        activation: str = "silu",
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(features, width)
        inside = 7 * width // 2 if intermediate is None else intermediate
        divides("Idefics2Resampler", "key_heads", key_heads, "heads", heads)
        positive("Idefics2Resampler", queries=queries, layers=layers, head_width=head_width, intermediate=inside)
        nonlinearity("Idefics2Resampler", activation)
        self.modality_projection = Idefics2MLP(features, inside, width, activation)
        config = Idefics2PerceiverConfig(
            hidden_act=activation,
            hidden_size=width,
            rms_norm_eps=epsilon,
            resampler_n_latents=queries,
            resampler_depth=layers,
            resampler_n_heads=heads,
            resampler_head_dim=head_width,
            num_key_value_heads=key_heads,
        )
        self.perceiver_resampler = Idefics2PerceiverResampler(config)
        # transformers begins with equal queries, which get equal gradients and would stay equal.
        nn.init.normal_(self.perceiver_resampler.latents)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        present = context.present
        if present is None:
            present = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        return self.perceiver_resampler(context=self.modality_projection(features), attention_mask=present)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return len(self.perceiver_resampler.latents)


class KosmosResampler(QueryConnector):
    """Kosmos-2's connection (Peng et al. 2023, arXiv 2306.14824): one layer of attention to features of length 1.

    Args:
        features, width: D_enc and D.
        queries: M, tokens per picture.
        heads: attention heads; they divide D.

    Raises:
        ValueError: `heads` does not divide `width`; `queries` is not positive.
    """

    def __init__(self, features: int, width: int, queries: int = 64, heads: int = 32) -> None:
        super().__init__(features, width)
        divides("KosmosResampler", "heads", heads, "width", width)
        positive("KosmosResampler", queries=queries)
        config = Kosmos2Config(
            text_config={"embed_dim": width, "attention_heads": heads},
            vision_config={"hidden_size": features},
            latent_query_num=queries,
        )
        config.text_config._attn_implementation = "sdpa"  # type: ignore[union-attr]
        self.image_to_text_projection = Kosmos2ImageToTextProjection(config)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        if context.present is not None and not context.present.all():
            raise ValueError("KosmosResampler: pictures of different sizes must come one by one, it masks nothing")
        tokens, _ = self.image_to_text_projection(F.normalize(features, dim=-1))
        return tokens

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return len(self.image_to_text_projection.latent_query)
