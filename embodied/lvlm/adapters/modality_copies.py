"""Parts of a layer that visual tokens have for themselves: what visual experts and modality-adaptive modules share.

The adapter owns a copy of each such part, made when it is installed; visual tokens take the copy's result, text the
original's. A copy starts equal, so that nothing changes until it trains, and without visual tokens nothing ever does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from embodied.lvlm.adapters.anatomy import key_of, tokens_like
from embodied.lvlm.adapters.base import Adapter


class ModalityCopies(Adapter):
    """An adapter whose subclass says in `install` which parts visual tokens have for themselves, by `own`."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = nn.ModuleDict()

    def own(self, name: str, module: nn.Module) -> None:
        """Give visual tokens a copy of a module that maps (..., D) to (..., D')."""
        self.copies[key_of(name)] = copy.deepcopy(module).requires_grad_(True)
        module.register_forward_hook(_ForVisual(self, key_of(name)), with_kwargs=True)


class _ForVisual:
    """Replaces what a module says of visual tokens by what its copy says."""

    def __init__(self, adapter: ModalityCopies, name: str) -> None:
        self.adapter, self.name = adapter, name

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], result: Tensor) -> Tensor:
        visual = self.adapter.sight.visual
        if visual is None or not visual.any():
            return result
        states = arguments[0] if arguments else next(iter(named.values()))
        where = tokens_like(visual, states, type(self.adapter).__name__)
        said = self.adapter.copies[self.name](states[where])
        return result.masked_scatter(where.unsqueeze(-1), said.to(result.dtype))


def copied(layers: Sequence[nn.Module], indices: Sequence[int], paths: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The parts at `paths` of the chosen layers that exist, with names of their own."""
    found: list[tuple[str, nn.Module]] = []
    for index in indices:
        for path in paths:
            module: Any = layers[index]
            for name in path.split("."):
                module = getattr(module, name, None)
            if isinstance(module, nn.Module) and any(True for _ in module.parameters()):
                found.append((f"{index}.{path}", module))
    return found
