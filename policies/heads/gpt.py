"""A causal transformer over the steps of the history, and a regressed chunk at each.

RoboFlamingo's `GPT` head (Li et al. 2024, arXiv 2311.01378; `GPTDecoder` in `action_head.py` of the official code): as
its LSTM head (`policies.heads.rnn`), but a small GPT reads the pooled readouts of the window. It wants
`model.attention=framewise` and `chunk.every_step=true`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from policies.heads.pooling import Pooling
from policies.heads.regression import Distance
from policies.heads.sequential import StepRegressionHead


class GPTHead(StepRegressionHead):
    """Causal transformer over the steps, MLP to each step's chunk.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        size: width of the transformer.
        layers, heads: its layers, and attention heads per layer.
        window: W, how many steps it reads; a rollout remembers the latest W. At least `chunk.history`.
        dropout: share of units dropped in training.
        hidden, pooling, distance, gripper, gripper_weight, tanh: see `StepRegressionHead`.

    Raises:
        ValueError: an unknown option, `size` that `heads` does not divide; when used: a history longer than `window`.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        size: int = 256,
        layers: int = 4,
        heads: int = 4,
        window: int = 12,
        hidden: Sequence[int] = (1024, 512, 256),
        pooling: Pooling = "max",
        distance: Distance = "smooth_l1",
        dropout: float = 0.0,
        gripper: int | None = None,
        gripper_weight: float = 0.01,
        tanh: bool = True,
    ) -> None:
        if layers < 1 or heads < 1 or size % heads:
            raise ValueError(f"GPTHead: size must be a multiple of heads, got size={size}, heads={heads}")
        super().__init__(
            width, horizon, action_dim, readout_tokens, size, window, hidden, pooling, distance, gripper,
            gripper_weight, tanh,
        )  # fmt: skip
        self.enter = nn.Linear(self.pool.width, size)
        self.places = nn.Parameter(torch.randn(window, size) * 0.02)
        layer = nn.TransformerEncoderLayer(
            size, heads, 4 * size, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(size), enable_nested_tensor=False)

    def read(self, steps: Tensor) -> Tensor:
        count = steps.shape[1]
        ahead = torch.ones(count, count, dtype=torch.bool, device=steps.device).triu(1)
        return self.blocks(self.enter(steps) + self.places[:count], mask=ahead)
