"""The contract of an adapter: installed into a language model once, told before each pass what is to be seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sight:
    """What one pass of the language model looks at.

    Attributes:
        visual: (B, L), bool: which of the tokens read in this pass are visual (experts, partial LoRA).
        media: (B, K, D): tokens beside the sequence that its text attends to (gated cross-attention); None: none.
        media_seen: (B, L, K), bool: which of the media each token sees; None: all of them. A row may see nothing.
        media_positions: (B, K), int: where in the sequence each of the media stands (rotary media); None: nowhere.
        sighted: (B,), bool: which rows look at anything at all, be it read in this pass or before it; None: told by
            the others, which a pass that continues one with pictures can't do.
        present: (B, L), bool: which tokens of this pass are real, for what is counted over tokens; None: all.
    """

    visual: Tensor | None = None
    media: Tensor | None = None
    media_seen: Tensor | None = None
    media_positions: Tensor | None = None
    sighted: Tensor | None = None
    present: Tensor | None = None

    def looks(self, rows: int, device: torch.device) -> Tensor:
        """(B,), bool: which of `rows` rows look at anything."""
        if self.sighted is not None:
            return self.sighted
        found = torch.zeros(rows, dtype=torch.bool, device=device)
        if self.visual is not None:
            found = found | self.visual.any(1)
        if self.media is not None:
            found = found | (torch.ones_like(found) if self.media_seen is None else self.media_seen.any(2).any(1))
        return found

    def onward(self, present: Tensor, times: int = 1) -> Sight:
        """What the next token looks at, behind a pass whose real tokens are `present` (B, L), each row `times` times.

        It is text, and sees what the last real token saw.
        """
        rows = torch.arange(len(present), device=present.device)
        last = present.shape[1] - 1 - present.flip(1).int().argmax(1)

        def again(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or times == 1 else tensor.repeat_interleave(times, dim=0)

        return Sight(
            media=again(self.media),
            media_seen=None if self.media_seen is None else again(self.media_seen[rows, last].unsqueeze(1)),
            media_positions=again(self.media_positions),
            sighted=again(self.looks(len(present), present.device)),
        )


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

    def __getstate__(self) -> dict[str, Any]:
        """Copies don't take along what belongs to a pass."""
        return self.__dict__ | {"sight": BLIND}

    def losses(self) -> dict[str, Tensor]:
        """Terms that the last pass adds to the loss, already weighted (load balance of experts); most have none."""
        return {}
