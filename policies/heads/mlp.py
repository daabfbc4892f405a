"""Regress a chunk of continuous actions in one step.

RoboFlamingo's `fc` head (Li et al. 2024, arXiv 2311.01378): an MLP over the pooled readout, a regression loss on the
motion and, where the gripper is named, binary cross-entropy on open against closed. One forward pass and no sampling,
so it is the cheapest head; where demonstrations disagree it predicts their average, which token and diffusion heads
do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import ActionHead, Generators, Readout, masked_mean
from policies.heads.pooling import Pool, Pooling

Distance = Literal["l1", "l2", "smooth_l1"]
DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


class MLPHead(ActionHead):
    """MLP from the readout tokens to a chunk.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        hidden: widths of the hidden layers.
        pooling: `mean` or `flatten` (`policies.heads.pooling`).
        distance: what the motion is compared by: `l1`, `l2` or `smooth_l1`.
        dropout: share of hidden units dropped in training.
        gripper: index of the open/close dimension, whose normalised values have the two states on either side of 0 (as
            `identity` and `min_max` leave it); None regresses it like the rest.
        gripper_weight: how much its cross-entropy counts beside the motion (official code: 0.01).

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
        if distance not in get_args(Distance):
            raise ValueError(f"MLPHead: distance is one of {', '.join(get_args(Distance))}, got {distance!r}")
        if gripper is not None and not 0 <= gripper < action_dim:
            last = action_dim - 1
            raise ValueError(f"MLPHead: gripper is dimension {gripper}, but an action has dimensions 0 to {last}")
        self.distance, self.gripper, self.gripper_weight = distance, gripper, gripper_weight
        self.pool = Pool(pooling, width, readout_tokens)
        sizes = [self.pool.width, *hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.GELU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], horizon * action_dim))

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        actions = actions.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever padding holds, NaN too, no gradient sees it
        predicted = self._predict(readout)
        moves = [i for i in range(self.action_dim) if i != self.gripper]
        error = DISTANCES[self.distance](predicted[..., moves], actions[..., moves], reduction="none")
        motion = masked_mean(error, mask)
        if self.gripper is None:
            return {"loss": motion, "motion": motion.detach()}
        positive = (actions[..., [self.gripper]] > 0).to(predicted.dtype)
        logits = predicted[..., [self.gripper]]
        grip = masked_mean(F.binary_cross_entropy_with_logits(logits, positive, reduction="none"), mask)
        return {"loss": motion + self.gripper_weight * grip, "motion": motion.detach(), "gripper": grip.detach()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        chunk = self._predict(readout)
        if self.gripper is None:
            return chunk
        is_gripper = torch.arange(self.action_dim, device=chunk.device) == self.gripper
        return torch.where(is_gripper, torch.where(chunk > 0, 1.0, -1.0), chunk)

    def _predict(self, readout: Readout) -> Tensor:
        """(B, H, A), float32 also under autocast."""
        return self.net(self.pool(readout)).unflatten(-1, (self.horizon, self.action_dim)).float()
