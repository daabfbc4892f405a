"""The contract of an adapter: installed into a language model once, told before each pass what is to be seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Sight:
    """What one pass of the language model looks at.

    Attributes:
        visual: (B, L), bool: which of the tokens read in this pass are visual (experts, partial LoRA).
        media: (B, K, D): tokens beside the sequence that its text attends to (gated cross-attention); None: none.
        media_seen: (B, L, K), bool: which of the media each token sees; None: all of them. A row may see nothing.
    """

    visual: Tensor | None = None
    media: Tensor | None = None
    media_seen: Tensor | None = None


BLIND = Sight()


class Adapter(nn.Module, ABC):
    """Something installed into a transformers language model.

    The parameters it adds are its own (`self.parameters()`), so that stages can freeze the language model and train
    them, and a folder can hold them apart. What it put into the language model finds them, and the sight of the pass,
    through a reference to the adapter that is not a submodule.

    Installed and not yet trained, most adapters leave the language model as it was, to the bit: a gate of 0, an
    up-projection of zeros, experts that are copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sight = BLIND

    @abstractmethod
    def install(self, model: nn.Module) -> None:
        """Change a transformers causal (or encoder-decoder) language model in place; called once.

        Raises:
            ValueError: the model's family has no such part, naming what was looked for.
        """

    def see(self, sight: Sight) -> None:
        """What the next pass looks at."""
        self.sight = sight

    def losses(self) -> dict[str, Tensor]:
        """Terms that the last pass adds to the loss, already weighted (load balance of experts); most have none."""
        return {}
