"""Any causal language model of transformers as the shared backbone.

The model's own class runs, fed with embeddings, an explicit attention mask and explicit positions, so a prefix can be
bidirectional (as PaliGemma and pi-0 read it) or causal without touching the model. Weights of a released checkpoint
load as they are. What a family does with positions stays its own: rotary (Llama, Mistral, Phi, Gemma, GLM, ...),
rotary in three axes (Qwen2-VL), learned (OPT), distances (MPT), the order alone (Mamba).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from embodied.lvlm.backbones import recurrent
from embodied.lvlm.backbones.alibi import measure_distance
from embodied.lvlm.backbones.cache import roomy
from embodied.lvlm.backbones.headed import HEADLESS, HeadedTextModel
from embodied.lvlm.backbones.masks import additive, causal, padded_behind, windowed
from embodied.lvlm.encoders.vision import plain

ACTION_TOKENS = 256
"""Ids at the end of the vocabulary that stand for actions (RT-2, OpenVLA)."""

KeyValues = list[tuple[Tensor, Tensor]]
"""Keys and values per layer, (B, heads, P, head width) each; of a recurrent model its two states per layer."""


class CausalBackbone(nn.Module):
    """A causal language model.

    Args: config: a transformers configuration with its `model_type` (`llama`, `qwen2`, ...), at any size. checkpoint:
    instead of `config`, a Hugging Face folder. vocabulary: token ids of the text tokenizer. A model built from a
    config gets these and 256 for actions; one from a checkpoint keeps its own vocabulary, whose last 256 ids serve
    (OpenVLA's choice).

    Attributes: width: D of the embeddings it reads and the hidden states it gives. axes: of a position; 3 for M-RoPE
    (Qwen2-VL), else 1. recurrent: whether it keeps states rather than keys and values (Mamba).

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
        settings = self.model.config
        # OPT may embed in fewer dimensions than it thinks in, and comes back to them
        self.width: int = getattr(settings, "word_embed_proj_dim", None) or settings.hidden_size
        self.vocabulary: int = settings.vocab_size
        self.axes = 3 if "mrope_section" in (getattr(settings, "rope_parameters", None) or {}) else 1
        self.recurrent = set(getattr(settings, "layer_types", None) or ["attention"]) == {"linear_attention"}
        settings.use_cache = True
        self._distance = measure_distance(self.model) if settings.model_type == "mpt" else None
        self._balance: Tensor | None = None

    def forward(
        self,
        embeddings: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        past: KeyValues | None = None,
        keep: bool = False,
        present: Tensor | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """One pass.

        Args:
            embeddings: (B, N, D).
            mask: (B, N, P + N), bool: which of P past and N present tokens each token sees. Families with a sliding
                window see less of it; recurrent ones need it causal. None, without a past: each token sees the present
                ones up to itself, which is the fastest.
            positions: (B, N), int; (axes, B, N) where the model has more than one axis and they differ.
            past: keys and values of P earlier tokens, per layer (B, heads, P, head width); left as they are.
            keep: whether to return the keys and values of all P + N tokens.
            present: (B, N), bool, for a mask that is None: False on padding; None: all are real.

        Returns:
            Hidden states (B, N, D), after the final norm, and the keys and values (empty unless `keep`).

        Raises:
            ValueError: positions of more axes than the model has, or beyond those it learned; a mask that a recurrent
                model can't follow.
        """
        cache = self.remember(past) if past or keep else None
        hidden = self.read(embeddings, mask, positions, cache, present)
        return hidden, self.remembered(cache) if keep and cache is not None else []

    def read(
        self,
        embeddings: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        cache: DynamicCache | None,
        present: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, but with a cache that is continued in place."""
        self._check(positions)
        if mask is None:
            real = embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool) if present is None else present
            if self._reads_in_order(real):
                # All ones, for then transformers leaves the mask out and the kernel knows that attention is causal.
                # What padding behind the text sees is seen by nobody.
                return self._pass(embeddings, torch.ones_like(real), positions, cache).last_hidden_state
            mask = causal(real)
        if self.recurrent:
            tokens = recurrent.present_tokens(mask, positions)
            return recurrent.read(self.model.base_model, embeddings, tokens, cache)
        watch = self.training and bool(getattr(self.model.config, "router_aux_loss_coef", None))
        more = {"output_router_logits": True} if watch else {}
        output = self._pass(embeddings, self._masks(mask, embeddings.dtype), positions, cache, **more)
        if self._distance is not None:
            self._distance.bias = None
        self._balance = self._balanced(output.router_logits, mask) if watch else None
        return output.last_hidden_state

    def _pass(self, embeddings: Tensor, masks: Any, positions: Tensor, cache: DynamicCache | None, **more: Any) -> Any:
        return self.model.base_model(
            inputs_embeds=embeddings,
            attention_mask=masks,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **more,
        )

    def _reads_in_order(self, present: Tensor) -> bool:
        """Whether causal attention among present tokens (B, N) is all that a pass without a mask needs.

        Not so for padding before the text, for distances and windows, which are counted in tokens that are seen, and
        for a balance of experts, which is weighed over them.
        """
        config = self.model.config
        window = getattr(config, "sliding_window", None)
        special = self.recurrent or self._distance is not None or getattr(config, "router_aux_loss_coef", None)
        near = window is not None and present.shape[1] > window
        return not special and not near and present.device.type != "meta" and padded_behind(present)

    def remember(self, past: KeyValues | None) -> DynamicCache:
        """A cache for `read` that holds `past`, or nothing yet."""
        if self.recurrent:
            return recurrent.restored(self.model.config, past)
        return roomy(past)

    def remembered(self, cache: DynamicCache) -> KeyValues:
        """What a cache holds."""
        if self.recurrent:
            return recurrent.state(cache)
        layers: Any = cache.layers
        return [(layer.keys, layer.values) for layer in layers]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, N) to embeddings (B, N, D)."""
        return self.model.get_input_embeddings()(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, N, D) to (B, N, vocabulary)."""
        config, logits = self.model.config, self.model.get_output_embeddings()(hidden)
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        return logits

    def losses(self) -> dict[str, Tensor]:
        """What the last pass of a training step adds to the loss: the balance of a mixture of experts (Mixtral)."""
        return {} if self._balance is None else {"balance": self._balance}

    @property
    def layers(self) -> dict[str, Any]:
        """What a transformer that attends this one layer by layer has to know: its configuration and head width."""
        config = self.model.config
        heads = getattr(config, "num_attention_heads", None)
        head_dim = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else None)
        return plain(config.to_diff_dict()) | {"model_type": config.model_type, "head_dim": head_dim}

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """The config node that rebuilds this backbone's shape from an agent's folder alone."""
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        config = self.model.config
        return {**rest, "config": plain(config.to_diff_dict()) | {"model_type": config.model_type}}

    def _masks(self, mask: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """The mask in the form that the family's layers take, per kind of layer where there are several."""
        config = self.model.config
        if self._distance is not None:
            self._distance.look(mask, config.n_heads, config.attn_config.alibi_bias_max, dtype)
            return mask.unsqueeze(1)
        window = getattr(config, "sliding_window", None)
        full, near = mask, mask if window is None else windowed(mask, window)
        full, near = (
            additive(m, dtype).unsqueeze(1) if config._attn_implementation == "eager" else m.unsqueeze(1)
            for m in (full, near)
        )
        if "sliding_attention" in (getattr(config, "layer_types", None) or []):
            return {"full_attention": full, "sliding_attention": near}
        return near

    def _check(self, positions: Tensor) -> None:
        if positions.ndim == 3 and positions.shape[0] != self.axes:
            raise ValueError(
                f"CausalBackbone: '{self.model.config.model_type}' has positions of {self.axes} axis, "
                f"not {positions.shape[0]}; give (B, N)"
            )
        learned = self.model.config.max_position_embeddings if self.model.config.model_type == "opt" else None
        if learned is not None and positions.shape[-1] and positions.device.type != "meta":
            longest = int(positions.max()) + 1
            if longest > learned:
                raise ValueError(f"CausalBackbone: a sequence of {longest} tokens; 'opt' learned {learned} positions")

    def _balanced(self, routers: Any, mask: Tensor) -> Tensor:
        """Switch Transformer's load balance over the tokens that somebody sees, weighted as the config says."""
        config = self.model.config
        present = mask[:, :, mask.shape[2] - mask.shape[1] :].sum(1) > 1
        present[:, -1] = True
        experts = getattr(config, "num_local_experts", None) or config.num_experts
        loss = load_balancing_loss_func(tuple(routers), experts, config.num_experts_per_tok, present)
        assert isinstance(loss, Tensor)
        return config.router_aux_loss_coef * loss


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
        return HeadedTextModel(settings) if family in HEADLESS else AutoModelForCausalLM.from_config(settings)
    except (ValueError, KeyError) as error:
        raise ValueError(f"CausalBackbone: transformers cannot build a causal '{family}': {error}") from None
