"""Remember what was seen in a recurrent state, and regress a chunk from it.

RoboFlamingo's default head (Li et al. 2024, arXiv 2311.01378; `DeterministicDecoder` in `action_head.py` of the
official code): the readout tokens of each frame are max-pooled to one vector, an LSTM reads the vectors of a window of
12 frames, and an MLP says the motion and the gripper at every frame. It wants `model.attention=framewise` and
`chunk.every_step=true`; with another attention it reads the readouts that there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from embodied.contracts import Generators, Memory, Readout
from policies.heads.cells import Cell, begin, read_next, recurrent
from policies.heads.pooling import Pooling
from policies.heads.regression import Distance
from policies.heads.sequential import StepRegressionHead


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
        super().__init__(
            width, horizon, action_dim, readout_tokens, size, window, hidden, pooling, distance, gripper,
            gripper_weight, tanh,
        )  # fmt: skip
        self.rnn = recurrent(type(self).__name__, cell, self.pool.width, size, layers, dropout)

    def read(self, steps: Tensor) -> Tensor:
        return self.rnn(steps)[0]

    def begin(self, rows: int) -> Memory:
        if self.window is not None:
            return super().begin(rows)
        return begin(self.rnn, rows)

    def sample_next(
        self, readout: Readout, memory: Memory, generators: Generators | None = None
    ) -> tuple[Tensor, Memory]:
        if self.window is not None:
            return super().sample_next(readout, memory, generators)
        seen, memory = read_next(self.rnn, self.pool.steps(readout), memory)
        return self.regression.decode(self._predict(seen)), memory
