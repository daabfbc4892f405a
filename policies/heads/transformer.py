"""Learned action queries that attend the observation, and regress one action each.

ACT's decoder (Zhao et al. 2023, arXiv 2304.13705; `detr/models/detr_vae.py`, without the latent variable), after DETR
(Carion et al. 2020, arXiv 2005.12872): H learned queries, one per step of the chunk, attend each other and what was
seen, so that each step of the chunk looks where it needs to. One forward pass, no sampling.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from embodied.contracts import ActionHead, Generators, Readout
from policies.heads.regression import Distance, Regression

Attend = Literal["readout", "steps", "prefix"]


class TransformerHead(ActionHead):
    """Transformer decoder from action queries to a chunk.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        attend: what the queries look at: the `readout` tokens of the latest step; those of all `steps`, with how long
            ago they were (for `model.attention` framewise or stepwise); or the language model's hidden states of the
            whole observation, its `prefix`, where pictures keep their places.
        size: width of the decoder.
        layers, heads: its layers, and attention heads per layer.
        dropout: share of units dropped in training.
        distance, gripper, gripper_weight, tanh: see `policies.heads.regression.Regression`.

    Raises:
        ValueError: an unknown option, `size` that `heads` does not divide; when used: a readout without a prefix where
            that is attended.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        attend: Attend = "readout",
        size: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        distance: Distance = "l1",
        gripper: int | None = None,
        gripper_weight: float = 0.01,
        tanh: bool = False,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if attend not in get_args(Attend):
            raise ValueError(f"TransformerHead: attend is one of {', '.join(get_args(Attend))}, got {attend!r}")
        if layers < 1 or heads < 1 or size < 2 * heads or size % (2 * heads):
            raise ValueError(f"TransformerHead: size must be a multiple of 2 x heads, got size={size}, heads={heads}")
        self.attend, self.reads_prefix = attend, attend == "prefix"
        self.regression = Regression("TransformerHead", action_dim, distance, gripper, gripper_weight, tanh)
        self.enter = nn.Linear(width, size)
        self.kinds_of_token = nn.Parameter(torch.randn(readout_tokens, size) * 0.02) if attend != "prefix" else None
        self.queries = nn.Parameter(torch.randn(horizon, size) * 0.02)
        layer = nn.TransformerDecoderLayer(
            size, heads, 4 * size, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(size))
        self.leave = nn.Linear(size, action_dim)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        return self.regression.loss(self._predict(readout), actions, mask)

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        return self.regression.decode(self._predict(readout))

    def _predict(self, readout: Readout) -> Tensor:
        """(B, H, A), float32 also under autocast."""
        seen, absent = self._seen(readout)
        queries = self.queries.expand(len(seen), -1, -1)
        return self.leave(self.decoder(queries, seen, memory_key_padding_mask=absent)).float()

    def _seen(self, readout: Readout) -> tuple[Tensor, Tensor | None]:
        """What is attended, (B, N, size), and where it is padding, (B, N)."""
        if self.kinds_of_token is None:
            if readout.prefix is None:
                raise ValueError("TransformerHead attends the observation's prefix, but this readout comes without it")
            return self.enter(readout.prefix.hidden), ~readout.prefix.present
        if readout.tokens.shape[2] != self.readout_tokens:
            got = readout.tokens.shape[2]
            raise ValueError(f"the head was built for {self.readout_tokens} readout tokens, but got {got}")
        if self.attend == "readout":
            return self.enter(readout.last) + self.kinds_of_token, None
        steps = readout.steps
        ages = steps.flip(1).cumsum(1).flip(1) - 1  # how many later steps exist
        tokens = torch.where(steps[..., None, None], readout.tokens, 0.0)
        seen = self.enter(tokens) + self.kinds_of_token + _waves(ages, self.queries.shape[1]).unsqueeze(2)
        return seen.flatten(1, 2), ~steps.repeat_interleave(self.readout_tokens, dim=1)


def _waves(ages: Tensor, size: int) -> Tensor:
    """Ages (B, T) as sines and cosines (B, T, size) of wavelengths from 2 pi to 10,000 times that (Vaswani 2017)."""
    powers = torch.arange(0, size, 2, device=ages.device) / size
    angles = ages.clamp(min=0).unsqueeze(-1) / 10_000**powers
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
