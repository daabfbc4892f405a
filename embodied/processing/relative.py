"""Say actions relative to where the body is.

openpi's `DeltaActions` and `AbsoluteActions`: a chunk of absolute targets becomes differences from the state at the
chunk's start, which look alike wherever the arm is. The whole chunk is undone with the state it was predicted from,
so executing it over several steps does not make it drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from embodied.processing.base import Batch, Transform
from embodied.spec import ACTION, STATE

if TYPE_CHECKING:
    from embodied.contracts import Generators

Reference = Literal["state", "previous"]


class RelativeActions(Transform):
    """Chosen action dimensions as differences.

    Comes before `Normalize`, whose statistics then are those of the differences.

    Args:
        state_dim, action_dim: S and A.
        dims: the action dimensions to change; None changes all. A gripper is usually left out.
        state_dims: for each of `dims`, the state component it is a target for; None: the one of the same index.
        reference: `state`: every step differs from the state at the chunk's start. `previous`: from the action one step
            before it, the first from the state.

    Raises:
        ValueError: an index that is none, lists of different lengths, a body without a state.
    """

    windows = True

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        dims: Sequence[int] | None = None,
        state_dims: Sequence[int] | None = None,
        reference: Reference = "state",
    ) -> None:
        super().__init__()
        if reference not in get_args(Reference):
            raise ValueError(
                f"RelativeActions: reference is one of {', '.join(get_args(Reference))}, got {reference!r}"
            )
        chosen = list(range(action_dim)) if dims is None else list(dims)
        sources = chosen if state_dims is None else list(state_dims)
        if len(chosen) != len(sources):
            raise ValueError(f"RelativeActions: {len(chosen)} dims, but {len(sources)} state_dims")
        for name, indices, size in (("action", chosen, action_dim), ("state", sources, state_dim)):
            for index in indices:
                if not 0 <= index < size:
                    have = f"dimensions 0 to {size - 1}" if size else "none"
                    raise ValueError(f"RelativeActions: {name} dimension {index} asked for, but there are {have}")
        self.dims, self.state_dims, self.reference = chosen, sources, reference

    def forward(self, batch: Batch, generators: Generators | None = None) -> Batch:
        if ACTION not in batch:
            return batch
        actions = batch[ACTION].clone()
        chosen = actions[..., self.dims]
        start = self._start(batch, every_step=actions.dim() == 4)
        before = start if self.reference == "state" else torch.cat([start, chosen[..., :-1, :]], dim=-2)
        actions[..., self.dims] = chosen - before
        return batch | {ACTION: actions}

    def inverse(self, actions: Tensor, batch: Mapping[str, Any]) -> Tensor:
        actions = actions.clone()
        chosen = actions[..., self.dims]
        moved = chosen if self.reference == "state" else chosen.cumsum(dim=1)
        actions[..., self.dims] = moved + self._start(batch)
        return actions

    def _start(self, batch: Mapping[str, Any], every_step: bool = False) -> Tensor:
        """The state components at the chunk's first step, (B, 1, dims), or at each step's own, (B, T, 1, dims)."""
        if STATE not in batch:
            raise ValueError(f"RelativeActions needs {STATE}, which this batch does not have")
        states = batch[STATE][..., self.state_dims]
        return states.unsqueeze(2) if every_step else states[:, -1:]

    def extra_repr(self) -> str:
        return f"dims={self.dims}, reference={self.reference}"
