"""The contract of a transform: raw data in, model data out, and actions all the way back.

A transform is an `nn.Module`, so that its statistics are buffers that are saved with the agent's weights, and so that
training mode decides whether augmentation runs. A batch holds torch tensors:

| key | shape | what |
|---|---|---|
| `observation.images.<camera>` | (B, T, H, W, 3) uint8 | T past frames, oldest first |
| `observation.state` | (B, T, S) float32 | |
| `observation_is_pad` | (B, T) bool | True before the episode began (the first frame is repeated) |
| `action` | (B, H, A) float32 | the demonstrated chunk; absent in a rollout |
| `action_is_pad` | (B, H) bool | True after the episode ended (the last action is repeated) |
| `task` | list of B str | |

Where every history step is supervised (`chunk.every_step`), each has its own chunk: `action` is (B, T, H, A) and
`action_is_pad` (B, T, H), True for all of a step before the episode began.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from embodied.contracts import Generators

Batch = dict[str, Any]


class Transform(nn.Module, ABC):
    """One step between raw data and model data.

    Attributes:
        windows: whether a chunk's actions are changed together, so that statistics after this step are those of all
            chunks, not of single actions.
    """

    windows = False

    def fit(self, batch: Mapping[str, Any]) -> None:
        """Learn what is to be learned from the whole training set, as the steps before this one made it.

        Args:
            batch: N frames as N rows with T = 1 and without images; H = 1, or the horizon after a step with `windows`.
        """

    @abstractmethod
    def forward(self, batch: Batch, generators: Generators | None = None) -> Batch:
        """Raw to model; returns a new dict and leaves `batch` as it was. Augmentation draws from row b's generator."""

    @abstractmethod
    def inverse(self, actions: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Model actions (B, H, A) back to the embodiment's units; `batch` is what `forward` was given."""
