"""Exponential moving average of the weights: what is evaluated and exported while the raw weights go on training.

The decay warms up as in diffusion policy (Chi et al. 2023, `diffusion_policy/model/diffusion/ema_model.py`):
`1 - (1 + step) ** -power`, at most `decay`, so that early weights are forgotten quickly. It depends on the step alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Shadow copies of named parameters.

    Args:
        parameters: name to parameter; those that train.
        decay: the most that a step keeps of the old average, in [0, 1).
        power: how fast the decay rises to that: 2/3 for a million steps and more, 3/4 for fewer.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, power: float = 0.75) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema.decay is in [0, 1), got {decay}")
        if power <= 0:
            raise ValueError(f"ema.power is positive, got {power}")
        self.limit, self.power = decay, power
        self._parameters = dict(parameters)
        self.shadow = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def decay(self, updates: int) -> float:
        """The share of the old average that is kept at the update after `updates` earlier ones."""
        return min(self.limit, 1 - (1 + updates) ** -self.power)

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take the present weights in; `updates` counts the earlier calls."""
        names = list(self.shadow)
        if names:
            present = [self._parameters[name].detach() for name in names]
            torch._foreach_lerp_([self.shadow[name] for name in names], present, 1 - self.decay(updates))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block and its own again after. Nothing is copied or rounded."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Go on from saved averages with these names and shapes."""
        for name, tensor in self.shadow.items():
            tensor.copy_(shadow[name])

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self.shadow[name] = self.shadow[name], parameter.data
