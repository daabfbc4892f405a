"""What regressing heads share: a distance for the motion and, where the gripper is named, open against closed.

RoboFlamingo (Li et al. 2024, arXiv 2311.01378; `train_utils.py` of the official code): Huber distance on the pose plus
0.01 times binary cross-entropy on the gripper, which is then executed as fully open or fully closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import masked_mean

Distance = Literal["l1", "l2", "smooth_l1"]
DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


class Regression:
    """Loss and decoding of predicted chunks.

    Args:
        owner: the head's name, for messages.
        action_dim: A.
        distance: what the motion is compared by: `l1`, `l2` or `smooth_l1` (Huber's with delta 1).
        gripper: index of the open/close dimension, whose normalised values have the two states on either side of 0 (as
            `identity` and `min_max` leave it); None regresses it like the rest.
        gripper_weight: how much its cross-entropy counts beside the motion (official code: 0.01).
        tanh: whether the motion is squashed into [-1, 1].

    Raises:
        ValueError: an unknown `distance`; `gripper` is not one of the action's dimensions.
    """

    def __init__(
        self,
        owner: str,
        action_dim: int,
        distance: Distance = "l1",
        gripper: int | None = None,
        gripper_weight: float = 0.01,
        tanh: bool = False,
    ) -> None:
        if distance not in get_args(Distance):
            raise ValueError(f"{owner}: distance is one of {', '.join(get_args(Distance))}, got {distance!r}")
        if gripper is not None and not 0 <= gripper < action_dim:
            last = action_dim - 1
            raise ValueError(f"{owner}: gripper is dimension {gripper}, but an action has dimensions 0 to {last}")
        self.distance, self.gripper, self.gripper_weight, self.tanh = distance, gripper, gripper_weight, tanh
        self.moves = [i for i in range(action_dim) if i != gripper]

    def loss(self, predicted: Tensor, actions: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """`loss` and its parts from predictions and demonstrations (..., H, A) and what is no padding (..., H)."""
        actions = actions.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever padding holds, NaN too, no gradient sees it
        motion = self._squash(predicted[..., self.moves])
        error = DISTANCES[self.distance](motion, actions[..., self.moves], reduction="none")
        moved = masked_mean(error, mask)
        if self.gripper is None:
            return {"loss": moved, "motion": moved.detach()}
        positive = (actions[..., [self.gripper]] > 0).to(predicted.dtype)
        logits = predicted[..., [self.gripper]]
        grip = masked_mean(F.binary_cross_entropy_with_logits(logits, positive, reduction="none"), mask)
        return {"loss": moved + self.gripper_weight * grip, "motion": moved.detach(), "gripper": grip.detach()}

    def decode(self, predicted: Tensor) -> Tensor:
        """Predictions (..., H, A) to actions: a gripper that is likelier closed than open, or open, is wholly so."""
        if self.gripper is None:
            return self._squash(predicted)
        side = torch.where(predicted > 0, 1.0, -1.0).masked_fill(predicted.isnan(), torch.nan)  # broken stays broken
        is_gripper = torch.arange(predicted.shape[-1], device=predicted.device) == self.gripper
        return torch.where(is_gripper, side, self._squash(predicted))

    def _squash(self, motion: Tensor) -> Tensor:
        return motion.tanh() if self.tanh else motion


def perceptron(sizes: Sequence[int], activation: Callable[[], nn.Module], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers between `sizes`, with an activation and dropout after each but the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        layers += [nn.Linear(n_in, n_out), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))
