"""Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685) through peft: small trained updates beside frozen layers.

The layers that are matched freeze, everything else stays as it was. The saved agent has the updates merged into plain
weights, so that loading it needs no peft; the training state keeps them apart, so that resuming is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from embodied.training.trainable import matching

_ADAPTER = "default"


def add_lora(agent: nn.Module, match: str, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> None:
    """Put an update of rank `rank`, scaled by `alpha / rank`, beside each linear layer whose name matches.

    Raises:
        ValueError: the pattern matches no linear layer, or one whose weight is shared with another part.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise ValueError(f"lora.rank must be at least 1, got {rank}")
    linear = [name for name, module in agent.named_modules() if isinstance(module, nn.Linear)]
    names = matching("lora.match", match, linear)
    owners: dict[int, list[str]] = {}
    for name, module in agent.named_modules():  # each module once, wherever it is used
        for inner, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{name}.{inner}")
    for name in names:
        shared = owners[id(agent.get_parameter(f"{name}.weight"))]
        if len(shared) > 1:
            raise ValueError(f"lora.match: {' and '.join(shared)} are one weight, which can't be adapted in one place")
    trains = {id(parameter) for parameter in agent.parameters() if parameter.requires_grad}
    places = _places(agent)
    exactly = "|".join(re.escape(name) for name in names)  # a list would match by the names' ends
    scaled: Any = alpha  # peft's hint says int, its arithmetic does not mind
    config = LoraConfig(r=rank, lora_alpha=scaled, lora_dropout=dropout, target_modules=exactly)
    inject_adapter_in_model(config, agent, _ADAPTER)
    for _, layer in layers(agent):
        for place in places[id(layer.base_layer)]:  # peft knows one of them
            _put(agent, place, layer)
    wrapped = {id(parameter) for _, layer in layers(agent) for parameter in layer.base_layer.parameters()}
    for name, parameter in agent.named_parameters():  # peft froze everything but its own
        if "lora_" not in name:
            parameter.requires_grad_(id(parameter) in trains and id(parameter) not in wrapped)


def layers(agent: nn.Module) -> list[tuple[str, Any]]:
    """The adapted layers, by name."""
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in agent.named_modules() if isinstance(module, LoraLayer)]


def kept_apart(agent: nn.Module) -> set[str]:
    """Names of the parameters that merging hides: the updates and the layers beneath them."""
    return {f"{name}.{inner}" for name, layer in layers(agent) for inner, _ in layer.named_parameters()}


@contextmanager
def merged(agent: nn.Module) -> Iterator[None]:
    """Inside the block plain linear layers with the updates added in; after it the very same adapted ones again."""
    places = _places(agent)
    adapted = [(layer, places[id(layer)]) for _, layer in layers(agent)]
    try:
        for layer, names in adapted:
            plain = _plain(layer)
            for name in names:
                _put(agent, name, plain)
        yield
    finally:
        for layer, names in adapted:
            for name in names:
                _put(agent, name, layer)


def _places(agent: nn.Module) -> dict[int, list[str]]:
    """By module, every name it is found under: the agents of a crew share modules."""
    places: dict[int, list[str]] = {}
    for name, module in agent.named_modules(remove_duplicate=False):
        places.setdefault(id(module), []).append(name)
    return places


@torch.no_grad()
def _plain(layer: Any) -> nn.Linear:
    base: nn.Linear = layer.base_layer
    plain = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
    update = layer.get_delta_weight(_ADAPTER).to(base.weight.dtype)
    plain.weight = nn.Parameter(base.weight + update, requires_grad=False)
    plain.bias = base.bias
    return plain.train(layer.training)


def _put(agent: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(agent.get_submodule(parent), child, module)
