"""Remember what was seen in a recurrent state, and regress a chunk from it.

RoboFlamingo's default head (Li et al. 2024, arXiv 2311.01378; `DeterministicDecoder` in `action_head.py` of the
official code): the readout tokens of each frame are max-pooled to one vector, an LSTM reads the vectors of a window of
12 frames, and an MLP says the motion and the gripper at every frame. It wants `model.attention=framewise` and
`chunk.every_step=true`; with another attention it reads the readouts that there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from embodied.contracts import Generators, Memory, Readout
from policies.heads.pooling import Pooling
from policies.heads.regression import Distance
from policies.heads.sequential import StepRegressionHead

Cell = Literal["lstm", "gru"]


class RNNHead(StepRegressionHead):
    """LSTM or GRU over the steps, MLP to each step's chunk.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        cell: `lstm` or `gru`.
        size: width of the recurrent state (official code: 1024).
        layers: recurrent layers (official code: 4).
        window: in a rollout, the state is that of reading the latest `window` frames from the beginning, as in training
            and in the official code; None carries the state through the whole episode.
        hidden, pooling, distance, gripper, gripper_weight, tanh: see `StepRegressionHead`; the defaults are the
            official code's.
        dropout: between recurrent layers, in training.

    Raises:
        ValueError: an unknown option; when used: a history longer than `window`.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        cell: Cell = "lstm",
        size: int = 1024,
        layers: int = 4,
        window: int | None = 12,
        hidden: Sequence[int] = (1024, 512, 256),
        pooling: Pooling = "max",
        distance: Distance = "smooth_l1",
        dropout: float = 0.0,
        gripper: int | None = None,
        gripper_weight: float = 0.01,
        tanh: bool = True,
    ) -> None:
        if cell not in get_args(Cell):
            raise ValueError(f"RNNHead: cell is one of {', '.join(get_args(Cell))}, got {cell!r}")
        if size < 1 or layers < 1:
            raise ValueError(f"RNNHead: size and layers must be at least 1, got {size} and {layers}")
        super().__init__(
            width, horizon, action_dim, readout_tokens, size, window, hidden, pooling, distance, gripper,
            gripper_weight, tanh,
        )  # fmt: skip
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn = kind(self.pool.width, size, layers, batch_first=True, dropout=dropout)

    def read(self, steps: Tensor) -> Tensor:
        return self.rnn(steps)[0]

    def begin(self, rows: int) -> Memory:
        if self.window is not None:
            return super().begin(rows)
        device = next(self.parameters()).device
        parts = 2 if isinstance(self.rnn, nn.LSTM) else 1
        return tuple(torch.zeros(rows, self.rnn.num_layers, self.rnn.hidden_size, device=device) for _ in range(parts))

    def sample_next(
        self, readout: Readout, memory: Memory, generators: Generators | None = None
    ) -> tuple[Tensor, Memory]:
        if self.window is not None:
            return super().sample_next(readout, memory, generators)
        state = tuple(part.transpose(0, 1).contiguous() for part in memory)  # torch has layers first
        with torch.autocast(readout.tokens.device.type, enabled=False):
            seen, after = self.rnn(self.pool.steps(readout).float(), state if len(state) > 1 else state[0])
        after = after if isinstance(after, tuple) else (after,)
        return self.regression.decode(self._predict(seen[:, -1])), tuple(part.transpose(0, 1) for part in after)
