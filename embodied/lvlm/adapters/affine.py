"""Tuning biases, scales and norms: the smallest change that reaches every linear map.

LLaMA-Adapter V2 (Gao et al. 2023, arXiv 2304.15010): each linear map gets a learned bias and scale,
y = scale (W x + bias), and the norms train. Here they train as copies, so that the language model stays as it was.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embodied.lvlm.adapters.anatomy import key_of, layers_of, linears, placed
from embodied.lvlm.adapters.base import Adapter


class AffineTuning(Adapter):
    """Bias, scale and norm tuning.

    Args: match: a regular expression for the names of linear maps, within the layers. norms: whether the layers' norms
    train too.

    Raises:
        ValueError: a pattern that matches nothing.
    """

    def __init__(self, match: str = "proj|fc|dense", norms: bool = True) -> None:
        super().__init__()
        self.match, self.norms = match, norms
        self.affine, self.copies = nn.ModuleDict(), nn.ModuleDict()

    def install(self, model: nn.Module) -> None:
        layers = nn.ModuleList(layers_of(model, "AffineTuning"))
        for name, linear in linears(layers, self.match, "AffineTuning").items():
            self.affine[key_of(name)] = placed(_Affine(linear.out_features), linear)
            linear.register_forward_hook(_Instead(self.affine, key_of(name), of_result=True))
        for name, module in layers.named_modules():
            if self.norms and "norm" in name.rpartition(".")[2] and list(module.parameters(recurse=False)):
                self.copies[key_of(name)] = copy.deepcopy(module).requires_grad_(True)
                module.register_forward_hook(_Instead(self.copies, key_of(name), of_result=False))


class _Affine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, result: Tensor) -> Tensor:
        return self.scale * (result + self.bias)


class _Instead:
    """A module's result passed through another, or replaced by the other's."""

    def __init__(self, parts: nn.ModuleDict, name: str, of_result: bool) -> None:
        self.parts, self.name, self.of_result = parts, name, of_result

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], result: Tensor) -> Tensor:
        return self.parts[self.name](result if self.of_result else arguments[0])
