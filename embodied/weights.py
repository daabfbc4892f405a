"""Weights on disk: safetensors that must fit a module exactly, and nothing that could run code by being loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embodied.building import nearest

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})


def save_weights(module: nn.Module, file: Path) -> None:
    """Write a module's state as safetensors, weights that are tied once."""
    save_file(untied(module.state_dict()), str(file), metadata={"format": "pt"})


def load_weights(module: nn.Module, file: Path, owner: str = "agent") -> None:
    """Load safetensors into a module that must match exactly.

    Args:
        module: takes the weights.
        file: safetensors.
        owner: what the module is, for error messages.

    Raises:
        ValueError: the file is missing, truncated, no safetensors, or does not fit, with the first name that differs.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    try:
        weights = load_file(str(file))
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged or no safetensors file ({error}); copy it again") from None
    own = module.state_dict()
    aliases = _aliases(own)
    for name, tensor in own.items():
        source = weights.get(name, weights.get(aliases.get(name, name)))
        if source is None:
            raise ValueError(f"{file} does not fit its config.json: it has no '{name}'{nearest(name, weights)}"[:300])
        if source.shape != tensor.shape:
            shapes = f"{tuple(source.shape)}, the config wants {tuple(tensor.shape)}"
            raise ValueError(f"{file} does not fit its config.json: '{name}' is {shapes}")
    extra = [name for name in weights if name not in own]
    if extra:
        raise ValueError(f"{file} does not fit its config.json: it has '{extra[0]}', which the {owner} has not")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights.get(name, weights.get(aliases.get(name, name))))


def refuse_pickles(folder: Path) -> None:
    """Stop at a folder with files whose loading could run code.

    Raises:
        ValueError: naming the first.
    """
    for file in sorted(folder.rglob("*")):
        if file.suffix in PICKLES:
            raise ValueError(
                f"{file} is a pickle, whose loading could run code; weights are safetensors. Nothing was loaded"
            )


def untied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights once, everything contiguous: what safetensors takes."""
    aliases = _aliases(state)
    return {name: tensor.contiguous() for name, tensor in state.items() if aliases[name] == name}


def _aliases(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name that shares memory with an earlier one (tied weights), that earlier name."""
    first: dict[tuple, str] = {}
    return {
        name: first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name) if tensor.numel() else name
        for name, tensor in state.items()
    }
