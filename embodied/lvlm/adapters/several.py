"""Several adapters in one language model, such as LLaMA-Adapter V2's prompts and its tuning of biases and norms."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from embodied.lvlm.adapters.base import Adapter, Sight


class Several(Adapter):
    """Adapters that are installed one after the other.

    Args: adapters: in the order of installation.

    Raises:
        ValueError: none is given.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        super().__init__()
        if not adapters:
            raise ValueError("Several: give at least one adapter")
        self.adapters = nn.ModuleList(adapters)

    def install(self, model: nn.Module) -> None:
        for adapter in self._each():
            adapter.install(model)

    def see(self, sight: Sight) -> None:
        super().see(sight)
        for adapter in self._each():
            adapter.see(sight)

    def losses(self) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        for adapter in self._each():
            for name, value in adapter.losses().items():
                total[name] = total[name] + value if name in total else value
        return total

    def _each(self) -> list[Adapter]:
        return [adapter for adapter in self.adapters if isinstance(adapter, Adapter)]
