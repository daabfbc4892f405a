"""Bring states and actions to a common scale, and actions back.

The formulas are LeRobot's (`NormalizerProcessorStep`):

    mean_std    (x - mean) / (std + 1e-8)
    min_max     2 (x - low) / (high - low) - 1
    quantiles   2 (x - q01) / (q99 - q01) - 1

One thing differs: a dimension that never moved in the data is only shifted, never scaled, where dividing by 1e-8 would
turn the slightest movement later on into millions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from embodied.processing.base import Batch, Transform
from embodied.spec import ACTION

if TYPE_CHECKING:
    from embodied.contracts import Generators

Mode = Literal["mean_std", "min_max", "quantiles", "identity"]
STATISTICS = ("mean", "std", "low", "high", "q01", "q99")
EPSILON = 1e-8
STILL = 1e-6
"""A spread below this share of the largest magnitude is float32 rounding, not movement."""


class Normalize(Transform):
    """Scale one key by statistics of the training data.

    Args:
        key: what to scale: `action`, `observation.state` or another vector of the batch; a batch without it passes.
        dim: its size, the last axis; 0 for a body that has no such thing.
        mode: `mean_std`, `min_max` (onto [-1, 1]), `quantiles` (1 % and 99 % onto -1 and 1) or `identity`.
        keep: dimensions left as they are.
        clamp: whether actions on their way back are limited to the range that was demonstrated.

    Attributes:
        mean, std, low, high, q01, q99: buffers (dim,), float32: what was learned, of use to the mode or not.

    Raises:
        ValueError: an unknown mode; a dimension in `keep` that is none; used before `fit` and without loaded
            statistics.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    q01: Tensor
    q99: Tensor
    fitted: Tensor

    def __init__(
        self, key: str, dim: int, mode: Mode = "mean_std", keep: Sequence[int] = (), clamp: bool = False
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise ValueError(f"Normalize({key}): mode is one of {', '.join(get_args(Mode))}, got {mode!r}")
        for index in keep:
            if not 0 <= index < dim:
                raise ValueError(f"Normalize({key}): keep has {index}, but there are dimensions 0 to {dim - 1}")
        self.key, self.dim, self.mode, self.keep, self.clamp = key, dim, mode, tuple(keep), clamp
        for name in STATISTICS:
            self.register_buffer(name, torch.zeros(dim))
        self.register_buffer("fitted", torch.tensor(dim == 0 or mode == "identity"))
        self._known_fitted = False

    def fit(self, batch: Mapping[str, Any]) -> None:
        """Exact statistics of what is no padding: population standard deviation, linearly interpolated quantiles.

        Raises:
            ValueError: the key is missing or has another size; all actions are the same.
        """
        if self.dim == 0 or self.mode == "identity":
            return
        if self.key not in batch:
            raise ValueError(f"Normalize({self.key}): the data has no such column; it has {', '.join(batch)}")
        values = batch[self.key]
        if values.shape[-1] != self.dim:
            raise ValueError(
                f"Normalize({self.key}): built for {self.dim} dimensions, but the data has {values.shape[-1]}"
            )
        padding = batch["action_is_pad" if self.key == ACTION else "observation_is_pad"]
        columns = values[~padding].numpy().astype(np.float64).T
        rows = [
            (x.mean(), x.std(), x.min(), x.max(), *np.quantile(x, (0.01, 0.99)))
            for x in map(np.ascontiguousarray, columns)
        ]
        for name, numbers in zip(STATISTICS, zip(*rows, strict=True), strict=True):
            getattr(self, name).copy_(torch.tensor(numbers, dtype=torch.float64))
        if self.key == ACTION and bool((self.high == self.low).all()):
            raise ValueError(
                f"Normalize(action): all {columns.shape[1]} actions of the data are the same: nothing to learn"
            )
        self.fitted.fill_(True)

    def forward(self, batch: Batch, generators: Generators | None = None) -> Batch:
        if self.key not in batch or self.dim == 0 or self.mode == "identity":
            return batch
        offset, scale = self._affine()
        return batch | {self.key: (batch[self.key] - offset) / scale}

    def inverse(self, actions: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if self.key != ACTION or self.dim == 0 or self.mode == "identity":
            return actions
        offset, scale = self._affine()
        raw = actions * scale + offset
        return raw.clamp(self.low, self.high) if self.clamp else raw

    def _affine(self) -> tuple[Tensor, Tensor]:
        """What to subtract and then divide by, (dim,) each."""
        if not self._known_fitted:  # asked once: reading a flag from a GPU waits for all work before it
            if not bool(self.fitted):
                raise ValueError(
                    f"Normalize({self.key}) has no statistics yet: fit the pipeline or load a trained agent"
                )
            self._known_fitted = True
        if self.mode == "mean_std":
            offset, scale = self.mean, self.std + EPSILON
            still = self._still(self.std)
        else:
            low, high = self.low, self.high
            if self.mode == "quantiles":
                # A dimension that moves in less than 1 % of the data has equal quantiles: its extremes say more.
                rare = self._still(self.q99 - self.q01)
                low, high = torch.where(rare, low, self.q01), torch.where(rare, high, self.q99)
            offset, scale = (low + high) / 2, (high - low) / 2
            still = self._still(high - low)
        scale = torch.where(still, torch.ones_like(scale), scale)
        for index in self.keep:
            here = torch.arange(self.dim, device=scale.device) == index
            offset, scale = offset.masked_fill(here, 0.0), scale.masked_fill(here, 1.0)
        return offset, scale

    def _still(self, spread: Tensor) -> Tensor:
        return spread <= STILL * torch.maximum(self.low.abs(), self.high.abs())

    def extra_repr(self) -> str:
        return f"{self.key}, {self.mode}"
