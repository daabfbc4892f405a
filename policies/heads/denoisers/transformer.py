"""Diffusion Policy's transformer: the steps of a noisy chunk as tokens that look at the observation and each other.

Chi et al. 2023, arXiv 2303.04137, `diffusion_policy/model/diffusion/transformer_for_diffusion.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.contracts import Readout
from policies.heads.denoisers.base import Denoiser, Sinusoid, Sizes, spread


class TransformerDenoiser(Denoiser):
    """A pre-norm transformer decoder: action tokens attend each other, then the noise level and the readout tokens.

    Args:
        hidden: width of its tokens (even; 256 in Diffusion Policy).
        blocks: decoder layers (8 there).
        heads: attention heads; divides `hidden`.
        condition_blocks: transformer layers over the condition's tokens; 0: a small MLP for each token.
        causal: a step sees only itself and earlier steps.
        dropout: share of attention weights and units dropped in training.

    Raises:
        ValueError: `heads` does not divide `hidden`.
    """

    def __init__(
        self,
        hidden: int = 128,
        blocks: int = 3,
        heads: int = 4,
        condition_blocks: int = 0,
        causal: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if heads < 1 or hidden % heads:
            raise ValueError(f"TransformerDenoiser: heads ({heads}) must divide hidden ({hidden})")
        self.hidden, self.depth, self.heads, self.condition_blocks = hidden, blocks, heads, condition_blocks
        self.causal, self.dropout = causal, dropout

    def create(self, sizes: Sizes) -> None:
        hidden = self.hidden
        self.readout_tokens = sizes.readout_tokens
        self.time = Sinusoid(hidden)
        self.enter = nn.Linear(sizes.action_dim, hidden)
        self.places = nn.Parameter(torch.empty(1, sizes.horizon, hidden))
        self.look = nn.Linear(sizes.width, hidden)
        self.condition_places = nn.Parameter(torch.empty(1, 1 + sizes.readout_tokens, hidden))
        options = {"dropout": self.dropout, "activation": "gelu", "batch_first": True, "norm_first": True}
        if self.condition_blocks:
            layer = nn.TransformerEncoderLayer(hidden, self.heads, 4 * hidden, **options)  # type: ignore[arg-type]
            self.encoder: nn.Module = nn.TransformerEncoder(layer, self.condition_blocks, enable_nested_tensor=False)
        else:
            self.encoder = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.Mish(), nn.Linear(4 * hidden, hidden))
        block = nn.TransformerDecoderLayer(hidden, self.heads, 4 * hidden, **options)  # type: ignore[arg-type]
        self.decoder = nn.TransformerDecoder(block, self.depth)
        self.drop = nn.Dropout(self.dropout)
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, sizes.action_dim))
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def condition(self, readout: Readout) -> Tensor:
        tokens = readout.last
        if tokens.shape[1] != self.readout_tokens:
            raise ValueError(f"the head was built for {self.readout_tokens} readout tokens, but got {tokens.shape[1]}")
        return self.look(tokens)

    def forward(self, noisy: Tensor, levels: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        rows, steps = noisy.shape[:2]
        time = self.time(levels).unsqueeze(1)
        told = torch.cat([time, spread(condition, rows).to(time.dtype)], dim=1) + self.condition_places
        hidden = self.drop(self.enter(noisy) + self.places)
        hidden = self.decoder(hidden, self.encoder(self.drop(told)), tgt_mask=self._hidden_from(mask, steps, noisy))
        return self.leave(hidden).float()

    def _hidden_from(self, mask: Tensor | None, steps: int, like: Tensor) -> Tensor | None:
        """True where a step may not look, (H, H) or (rows x heads, H, H); each step may look at itself."""
        here = torch.ones(steps, steps, dtype=torch.bool, device=like.device)
        sees = here.tril() if self.causal else here
        if mask is None:
            return ~sees if self.causal else None
        itself = torch.eye(steps, dtype=torch.bool, device=like.device)
        sees = (sees & mask.unsqueeze(1)) | itself
        return ~sees.repeat_interleave(self.heads, dim=0)
