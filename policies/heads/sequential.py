"""What heads that read the history step by step share: one vector per step in, a regressed chunk per step out.

Such a head sees each frame's readout apart (`model.attention=framewise`) and keeps what it has seen itself, so that a
rollout reads each frame once. It remembers a window of pooled readouts and reads them anew at every step, which is
what it does in training, to the last number; RoboFlamingo refreshes its LSTM's state in the same way.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from embodied.contracts import Generators, Memory, Readout, SequentialHead
from policies.heads.pooling import Pool, Pooling
from policies.heads.regression import Distance, Regression, perceptron


class StepRegressionHead(SequentialHead):
    """Pooled readouts of the steps, read in order by `read`, then an MLP to each step's chunk.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        features: size of what `read` returns for a step.
        window: W, how many steps it reads at most; None for no limit.
        hidden: widths of the MLP's hidden layers (RoboFlamingo: 1024, 512, 256).
        pooling: `mean`, `max` or `flatten` (`policies.heads.pooling`).
        distance, gripper, gripper_weight, tanh: see `policies.heads.regression.Regression`. The gripper has an MLP of
            its own, as RoboFlamingo's.

    Raises:
        ValueError: an unknown option; when used: a readout with more steps than `window`.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int,
        features: int,
        window: int | None,
        hidden: Sequence[int],
        pooling: Pooling,
        distance: Distance,
        gripper: int | None,
        gripper_weight: float,
        tanh: bool,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if window is not None and window < 1:
            raise ValueError(f"{type(self).__name__}: window must be at least 1, got {window}")
        self.window = window
        self.regression = Regression(type(self).__name__, action_dim, distance, gripper, gripper_weight, tanh)
        self.pool = Pool(pooling, width, readout_tokens)
        moves = horizon * len(self.regression.moves)
        self.motion = perceptron([features, *hidden, moves], nn.ReLU) if moves else None
        self.grip = perceptron([features, *hidden, horizon], nn.ReLU) if gripper is not None else None

    @abstractmethod
    def read(self, steps: Tensor) -> Tensor:
        """Pooled readouts (B, T, pooled width) to features (B, T, features); step t knows those up to t, no later."""

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        seen = self._read(self.pool.steps(readout), readout.steps)
        if actions.dim() == 3:  # the chunk of the latest step alone
            seen = readout.latest(seen)
        return self.regression.loss(self._predict(seen), actions, mask)

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        seen = self._read(self.pool.steps(readout), readout.steps)
        return self.regression.decode(self._predict(readout.latest(seen)))

    def begin(self, rows: int) -> Memory:
        assert self.window is not None
        device = next(self.parameters()).device
        steps = torch.zeros(rows, self.window, self.pool.width, device=device)
        return steps, torch.zeros(rows, self.window, dtype=torch.bool, device=device)

    def sample_next(
        self, readout: Readout, memory: Memory, generators: Generators | None = None
    ) -> tuple[Tensor, Memory]:
        steps, there = memory
        steps = torch.cat([steps[:, 1:], self.pool.steps(readout).float()], dim=1)
        there = torch.cat([there[:, 1:], readout.steps], dim=1)
        latest = self._read(steps, there)[:, -1]
        return self.regression.decode(self._predict(latest)), (steps, there)

    def _read(self, steps: Tensor, there: Tensor) -> Tensor:
        """`read` for rows of which only some steps exist."""
        if self.window is not None and steps.shape[1] > self.window:
            raise ValueError(
                f"{type(self).__name__} reads {self.window} steps at most, but a history has {steps.shape[1]}: "
                "raise head.window or lower chunk.history"
            )
        return gapless(self.read, steps, there)

    def _predict(self, seen: Tensor) -> Tensor:
        """(..., features) to (..., H, A), float32 also under autocast; the gripper's number is a logit."""
        shape = (self.horizon, len(self.regression.moves))
        gripper = self.regression.gripper
        if self.grip is None or gripper is None:
            assert self.motion is not None
            return self.motion(seen).unflatten(-1, shape).float()
        logit = self.grip(seen).unsqueeze(-1).float()
        if self.motion is None:
            return logit
        motion = self.motion(seen).unflatten(-1, shape).float()
        return torch.cat([motion[..., :gripper], logit, motion[..., gripper:]], dim=-1)


def gapless(read: Callable[[Tensor], Tensor], steps: Tensor, there: Tensor) -> Tensor:
    """`read` of steps (B, T, D) of which only those `there` (B, T) exist: these come first, none after a gap."""
    order = torch.argsort((~there).int(), dim=1, stable=True)
    # Outside autocast: the network is small, and recurrent layers have no bfloat16 kernel everywhere.
    with torch.autocast(steps.device.type, enabled=False):
        seen = read(_picked(steps.float(), order))
    return _picked(seen, torch.argsort(order, dim=1))


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """`values` (B, T, D) in the order `index` (B, T)."""
    return values.gather(1, index.unsqueeze(-1).expand_as(values))
