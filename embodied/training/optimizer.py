"""Optimizers: parameter groups by weight decay and learning rate, and their exact state as plain tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied.training.trainable import matching


class OptimizerRecipe(ABC):
    """How to make an optimizer; adding one is adding a class and a YAML in conf/optimizer.

    Args:
        lr: the learning rate at the top of the schedule.
        weight_decay: for parameters with two or more dimensions; biases, norms and other vectors have none.
        rates: other learning rates, as `{match: pattern, lr: number}`; the first match counts, 0 does not freeze.
        no_decay: patterns of parameters that have no weight decay although they have two dimensions.

    Raises:
        ValueError: a number is negative, or a rate is not of that form.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float = 0.0,
        rates: Sequence[Mapping[str, Any]] = (),
        no_decay: Sequence[str] = (),
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"optimizer: lr and weight_decay are not negative, got {lr} and {weight_decay}")
        for rate in rates:
            if set(rate) != {"match", "lr"}:
                raise ValueError(f"optimizer.rates: each is {{match: pattern, lr: number}}, got {dict(rate)}")
        self.lr, self.weight_decay, self.rates, self.no_decay = lr, weight_decay, list(rates), list(no_decay)

    @abstractmethod
    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that each say their `lr` and `weight_decay`."""

    def groups(self, parameters: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
        """Named parameters sorted into groups, in the order of their names' first appearance.

        Raises:
            ValueError: a pattern matches nothing.
        """
        rate: dict[str, float] = {}
        for entry in self.rates:
            for name in matching("optimizer.rates", str(entry["match"]), parameters):
                rate.setdefault(name, float(entry["lr"]))
        bare = {name for pattern in self.no_decay for name in matching("optimizer.no_decay", pattern, parameters)}
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in parameters.items():
            decay = 0.0 if parameter.ndim < 2 or name in bare else self.weight_decay
            key = (rate.get(name, self.lr), decay)
            group = groups.setdefault(key, {"params": [], "names": [], "lr": key[0], "weight_decay": decay})
            group["params"].append(parameter)
            group["names"].append(name)
        return list(groups.values())


class AdamW(OptimizerRecipe):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), torch's fused kernel where the device has one.

    Args:
        betas, eps: as in `torch.optim.AdamW`.
    """

    def __init__(self, lr: float, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8, **shared: Any) -> None:
        super().__init__(lr, **shared)
        self.betas, self.eps = (float(betas[0]), float(betas[1])), eps

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for g in groups for p in g["params"])
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=fused)


class SGD(OptimizerRecipe):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`."""

    def __init__(self, lr: float, momentum: float = 0.9, nesterov: bool = False, **shared: Any) -> None:
        super().__init__(lr, **shared)
        self.momentum, self.nesterov = momentum, nesterov

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov)


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, one tensor per entry, as `<entry>/<parameter name>`."""
    tensors = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for entry, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{entry}/{name}"] = value.detach().contiguous()
    return tensors


def load_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Go on from `state_tensors` of an optimizer over the same parameters.

    Raises:
        ValueError: the tensors belong to other parameters or shapes.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        entry, _, name = key.partition("/")
        by_name.setdefault(name, {})[entry] = tensor
    state, index = {}, 0
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            entries = by_name.pop(name, {})
            wrong = [entry for entry, tensor in entries.items() if tensor.ndim and tensor.shape != parameter.shape]
            if wrong:
                raise ValueError(f"the optimizer state of {name} has another shape than the parameter")
            if entries:
                state[index] = entries
            index += 1
    if by_name:
        raise ValueError(
            f"the optimizer state is of parameters that don't train here: {', '.join(sorted(by_name)[:3])}"
        )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
