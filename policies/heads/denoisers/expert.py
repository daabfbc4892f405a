"""pi-0's action expert: a small transformer whose every layer attends the language model's layer beside it.

Black et al. 2024 (arXiv 2410.24164; `openpi/models/pi0.py`). The expert is of the language model's own family, with the
same layers, attention heads and head width, but a width and an MLP of its own: its queries attend the language model's
cached keys and values of the same layer together with its own. With `adaptive_norm` the noise level enters through the
norms, as in pi-0.5 (2025, arXiv 2504.16054).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, DynamicCache

from embodied.contracts import Readout
from policies.heads.denoisers.base import Denoiser, Sizes


class Seen(NamedTuple):
    """What an expert attends: keys and values per layer (B, heads, L, head width), where they are real (B, L), and the
    state's token (B, hidden), if there is one.
    """

    keys: list[Tensor]
    values: list[Tensor]
    present: Tensor
    state: Tensor | None


class ActionExpert(Denoiser):
    """A transformer over the noisy actions that attends the prefix layer by layer.

    Args:
        hidden: its width (even; 1024 in pi-0, half of the language model's).
        intermediate: width of its MLPs (4096 there).
        state_token: read the robot's state as one more token, as pi-0 does. False where the language model reads it.
        adaptive_norm: the noise level scales, shifts and gates every layer (pi-0.5), rather than being mixed into the
            action tokens (pi-0).
        insulate: keep the head's gradient out of the language model (knowledge insulation, arXiv 2505.23705).
        min_period, max_period: of the sines and cosines that embed the noise level.

    Raises:
        ValueError: the head is not told the language model's layers; `state_token` for a body without a state; a
            `hidden` that is odd or no multiple of the attention heads; `adaptive_norm` with a family whose layers are
            put together otherwise.
    """

    fractions = True
    reads_prefix = True
    rates: Tensor

    def __init__(
        self,
        hidden: int = 128,
        intermediate: int = 256,
        state_token: bool = False,
        adaptive_norm: bool = False,
        insulate: bool = False,
        min_period: float = 4e-3,
        max_period: float = 4.0,
    ) -> None:
        super().__init__()
        if hidden < 2 or hidden % 2:
            raise ValueError(f"ActionExpert: hidden must be even, got {hidden}")
        if not 0 < min_period < max_period:
            raise ValueError(f"ActionExpert: needs 0 < min_period < max_period, got {min_period} and {max_period}")
        self.hidden, self.intermediate = hidden, intermediate
        self.state_token, self.adaptive_norm, self.insulate = state_token, adaptive_norm, insulate
        self.min_period, self.max_period = min_period, max_period

    def create(self, sizes: Sizes) -> None:
        if sizes.layers is None:
            raise ValueError("ActionExpert attends the language model's layers, and was not told what they are like")
        if self.state_token and not sizes.state_dim:
            raise ValueError("ActionExpert: state_token needs a body with a state; this one has none")
        hidden = self.hidden
        self.layers = _like(sizes.layers, hidden, self.intermediate)
        fraction = torch.linspace(0, 1, hidden // 2)
        period = self.min_period * (self.max_period / self.min_period) ** fraction
        self.register_buffer("rates", 2 * math.pi / period, persistent=False)
        self.enter = nn.Linear(sizes.action_dim, hidden)
        self.leave = nn.Linear(hidden, sizes.action_dim)
        self.state = nn.Linear(sizes.state_dim, hidden) if self.state_token else None
        self.mix_in = nn.Linear(hidden if self.adaptive_norm else 2 * hidden, hidden)
        self.mix_out = nn.Linear(hidden, hidden)
        if self.adaptive_norm:
            _adapt(self.layers, hidden)

    def condition(self, readout: Readout) -> Seen:
        if readout.prefix is None:
            raise ValueError("ActionExpert attends the language model's prefix, and the readout has none")
        keys, values = list(readout.prefix.keys), list(readout.prefix.values)
        if self.insulate:
            keys, values = [k.detach() for k in keys], [v.detach() for v in values]
        if self.state is not None and readout.state is None:
            raise ValueError("ActionExpert: state_token needs the state, and the observation has none")
        state = self.state(readout.state) if self.state is not None else None
        return Seen(keys, values, readout.prefix.present, state)

    def forward(self, noisy: Tensor, levels: Tensor, condition: Seen, mask: Tensor | None = None) -> Tensor:
        steps, state = noisy.shape[1], condition.state
        copies = len(noisy) // len(condition.present)
        tokens, told = self._embed(noisy, levels)
        if state is not None:
            tokens = torch.cat([state.repeat(copies, 1).unsqueeze(1), tokens], dim=1)
        # Noisy versions of one chunk stand side by side in one sequence, blind to each other, so that the prefix is
        # attended where it lies instead of being copied for each.
        sees, positions = self._attention(condition.present, copies, steps, mask)
        hidden = self._run(_beside(tokens, copies), sees, positions, _beside(told, copies), condition)
        hidden = hidden.unflatten(1, (copies, -1)).transpose(0, 1).flatten(0, 1)[:, -steps:]
        return self.leave(hidden).float()

    def _embed(self, noisy: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Action tokens (K x B, H, hidden), and what tells layers the noise level, (K x B, S + H, hidden)."""
        angle = levels.float().unsqueeze(-1) * self.rates
        time = torch.cat([angle.sin(), angle.cos()], dim=-1).unsqueeze(1)
        tokens = self.enter(noisy)
        if self.adaptive_norm:
            told = F.silu(self.mix_out(F.silu(self.mix_in(time))))
            return tokens, told.expand(-1, noisy.shape[1] + (self.state is not None), -1)
        mixed = torch.cat([tokens, time.to(tokens.dtype).expand_as(tokens)], dim=-1)
        return self.mix_out(F.silu(self.mix_in(mixed))), tokens

    def _attention(self, present: Tensor, copies: int, steps: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """What each of N = copies x (S + steps) tokens sees, (B, N, L + N), and where it stands, (B, N)."""
        rows, device, extra = len(present), present.device, int(self.state is not None)
        new = extra + steps
        one = torch.ones(new, new, dtype=torch.bool, device=device)
        one[:extra, extra:] = False  # the state is read before the actions, and sees none of them
        among = torch.block_diag(*[one] * copies).bool().expand(rows, -1, -1)
        if mask is not None:
            real = F.pad(mask, (extra, 0), value=True).unflatten(0, (copies, rows)).transpose(0, 1).flatten(1)
            itself = torch.eye(copies * new, dtype=torch.bool, device=device)
            among = (among & real.unsqueeze(1)) | itself
        sees = torch.cat([present.unsqueeze(1).expand(-1, copies * new, -1), among], dim=2)
        return sees, present.sum(1, keepdim=True) + torch.arange(new, device=device).repeat(copies)

    def _run(self, tokens: Tensor, sees: Tensor, positions: Tensor, told: Tensor, seen: Seen) -> Tensor:
        """(B, N, hidden) through all layers and the last norm."""
        cache = DynamicCache(ddp_cache_data=list(zip(seen.keys, seen.values, strict=True)))
        sees = sees.unsqueeze(1)
        if not self.adaptive_norm:
            return self.layers(
                inputs_embeds=tokens, attention_mask=sees, position_ids=positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
        rotation = self.layers.rotary_emb(tokens, positions)
        for layer in self.layers.layers:
            normed, gate = layer.input_layernorm(tokens, told)
            attended, _ = layer.self_attn(
                hidden_states=normed, attention_mask=sees, position_embeddings=rotation, past_key_values=cache
            )
            tokens = tokens + gate * attended
            normed, gate = layer.post_attention_layernorm(tokens, told)
            tokens = tokens + gate * layer.mlp(normed)
        return self.layers.norm(tokens, told)[0]


class AdaptiveNorm(nn.Module):
    """Root-mean-square norm whose scale, shift and gate a vector decides; starts as the plain norm, gate closed."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.decide = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)

    def forward(self, x: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D), what decides (B, N, D): normed tokens and gate, (B, N, D) each."""
        scale, shift, gate = self.decide(told).chunk(3, dim=-1)
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=self.epsilon)
        return (normed * (1 + scale) + shift).to(x.dtype), gate


def _beside(rows: Tensor, copies: int) -> Tensor:
    """(K x B, N, D), all rows of the first copy first, to (B, K x N, D)."""
    return rows.unflatten(0, (copies, -1)).transpose(0, 1).flatten(1, 2)


def _like(layers: Any, hidden: int, intermediate: int) -> Any:
    """A transformer of the family and the attention of `layers`, with a width of its own and no vocabulary."""
    own: dict[str, int | None] = {"hidden_size": hidden, "intermediate_size": intermediate, "vocab_size": 1}
    own |= {f"{name}_token_id": None for name in ("bos", "eos", "pad")}
    config = {key: value for key, value in layers.items() if key not in ("model_type", "architectures", "dtype")}
    family, heads = str(layers["model_type"]), int(layers.get("num_attention_heads", 1))
    if hidden % heads:
        raise ValueError(f"ActionExpert: hidden must be a multiple of the {heads} attention heads it has, got {hidden}")
    try:
        model = AutoModel.from_config(AutoConfig.for_model(family, **(config | own)), attn_implementation="sdpa")
    except (ValueError, KeyError) as error:
        raise ValueError(f"ActionExpert: transformers cannot build a '{family}' as an expert: {error}") from None
    model.set_input_embeddings(nn.Identity())  # it reads embeddings only
    return model


def _adapt(model: Any, hidden: int) -> None:
    """Put adaptive norms in the place of the plain ones."""
    epsilon = getattr(model.config, "rms_norm_eps", 1e-6)
    for layer in model.layers:
        norms = [name for name, part in layer.named_children() if "norm" in name]
        if norms != ["input_layernorm", "post_attention_layernorm"]:
            family = model.config.model_type
            raise ValueError(f"ActionExpert: adaptive_norm knows layers with two norms, those of '{family}' differ")
        layer.input_layernorm = AdaptiveNorm(hidden, epsilon)
        layer.post_attention_layernorm = AdaptiveNorm(hidden, epsilon)
    model.norm = AdaptiveNorm(hidden, epsilon)
