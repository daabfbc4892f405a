"""Regress a chunk of continuous actions in one step.

RoboFlamingo's `fc` head (Li et al. 2024, arXiv 2311.01378): an MLP over the pooled readout, a regression loss on the
motion and, where the gripper is named, binary cross-entropy on open against closed. One forward pass and no sampling,
so it is the cheapest head; where demonstrations disagree it predicts their average, which token and diffusion heads
do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from embodied.contracts import ActionHead, Generators, Readout
from policies.heads.pooling import Pool, Pooling
from policies.heads.regression import Distance, Regression, perceptron


class MLPHead(ActionHead):
    """MLP from the readout tokens to a chunk.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        hidden: widths of the hidden layers.
        pooling: `mean`, `max` or `flatten` (`policies.heads.pooling`).
        distance, gripper, gripper_weight: see `policies.heads.regression.Regression`.
        dropout: share of hidden units dropped in training.

    Raises:
        ValueError: an unknown `distance` or `pooling`; `gripper` is not one of the action's dimensions.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        hidden: Sequence[int] = (512, 256),
        pooling: Pooling = "flatten",
        distance: Distance = "l1",
        dropout: float = 0.0,
        gripper: int | None = None,
        gripper_weight: float = 0.01,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        self.regression = Regression("MLPHead", action_dim, distance, gripper, gripper_weight)
        self.pool = Pool(pooling, width, readout_tokens)
        self.net = perceptron([self.pool.width, *hidden, horizon * action_dim], nn.GELU, dropout)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        return self.regression.loss(self._predict(readout), actions, mask)

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        return self.regression.decode(self._predict(readout))

    def _predict(self, readout: Readout) -> Tensor:
        """(B, H, A), float32 also under autocast."""
        return self.net(self.pool(readout)).unflatten(-1, (self.horizon, self.action_dim)).float()
