"""Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685) through peft: small trained updates beside frozen linear layers.

The layers that are matched freeze, everything else stays as it was. The saved agent has the updates merged into plain
weights, so that loading it needs no peft; the training state keeps them apart, so that resuming is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    for name, parameter in agent.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in names:
        shared = owners[id(agent.get_submodule(name).weight)]
        if len(shared) > 1:
            raise ValueError(f"lora.match: the weight of {name} is shared ({', '.join(shared)}), so it can't be adapted alone")
    trains = {id(parameter) for parameter in agent.parameters() if parameter.requires_grad}
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    inject_adapter_in_model(config, agent, _ADAPTER)
    wrapped = {id(parameter) for _, layer in layers(agent) for parameter in layer.base_layer.parameters()}
    for name, parameter in agent.named_parameters():  # peft froze everything but its own
        if "lora_" not in name:
            parameter.requires_grad_(id(parameter) in trains and id(parameter) not in wrapped)


def layers(agent: nn.Module) -> list[tuple[str, nn.Module]]:
    """The adapted layers, by name."""
    return [(name, module) for name, module in agent.named_modules() if hasattr(module, "base_layer") and hasattr(module, "lora_A")]


def kept_apart(agent: nn.Module) -> set[str]:
    """Names of the parameters that merging hides: the updates and the layers beneath them."""
    return {f"{name}.{inner}" for name, layer in layers(agent) for inner, _ in layer.named_parameters()}


@contextmanager
def merged(agent: nn.Module) -> Iterator[None]:
    """The agent has plain linear layers with the updates added in inside the block, and the very same adapted ones after."""
    adapted = layers(agent)
    try:
        for name, layer in adapted:
            _put(agent, name, _plain(layer))
        yield
    finally:
        for name, layer in adapted:
            _put(agent, name, layer)


@torch.no_grad()
def _plain(layer: nn.Module) -> nn.Linear:
    base = layer.base_layer
    plain = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
    plain.weight = nn.Parameter(base.weight + layer.get_delta_weight(_ADAPTER).to(base.weight.dtype), requires_grad=False)
    plain.bias = base.bias
    return plain.train(layer.training)


def _put(agent: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(agent.get_submodule(parent), child, module)
