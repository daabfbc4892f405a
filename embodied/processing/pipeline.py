"""The transforms of an agent in order: forward into the model, backward out of it.

    shift:   {_target_: embodied.processing.augment.RandomShift, pixels: 4}
    state:   {_target_: embodied.processing.normalize.Normalize, key: observation.state, mode: mean_std}
    actions: {_target_: embodied.processing.normalize.Normalize, key: action, mode: min_max}

Steps have names, so that one is changed (`processing.actions.mode=quantiles`) or left out (`processing.shift=null`)
from a command line, and so that a saved agent's statistics can be read by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.building import build, find_class
from embodied.processing.base import Batch, Transform
from embodied.spec import ACTION, IMAGES, STATE

if TYPE_CHECKING:
    from embodied.contracts import Generators


class Pipeline(nn.Module):
    """Ordered transforms.

    Args:
        steps: transforms by name, in the order they run.
    """

    def __init__(self, steps: Mapping[str, Transform]) -> None:
        super().__init__()
        self.steps = nn.ModuleDict(dict(steps))

    @classmethod
    def from_config(
        cls, nodes: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, state_dim: int, action_dim: int
    ) -> Pipeline:
        """Build from config nodes, by name or as a list; None among them leaves a step out.

        A transform that takes `state_dim`, `action_dim` or, for its `key`, `dim` is given it.

        Raises:
            ValueError: whatever `embodied.building.build` or a transform objects to.
        """
        named = nodes if isinstance(nodes, Mapping) else {str(i): node for i, node in enumerate(nodes or ())}
        sizes = {STATE: state_dim, ACTION: action_dim}
        steps = {}
        for name, node in named.items():
            if node is None:
                continue
            if not isinstance(node, Mapping) or "_target_" not in node:
                raise ValueError(f"processing.{name} is no transform: it needs a _target_, got {node!r}")
            takes = inspect.signature(find_class(str(node["_target_"]))).parameters
            runtime = {"state_dim": state_dim, "action_dim": action_dim, "dim": sizes.get(node.get("key", ""))}
            given = {k: v for k, v in runtime.items() if k in takes and k not in node and v is not None}
            steps[str(name)] = build(node, (Transform,), **given)
        return cls(steps)

    def forward(self, batch: Mapping[str, Any], generators: Generators | None = None) -> Batch:
        """A raw batch (`embodied.processing.base`) to what the model reads; `batch` stays as it was."""
        result = dict(batch)
        for step in self._transforms():
            result = step(result, generators)
        return result

    def inverse(self, actions: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Model actions (B, H, A) to the embodiment's units; `batch` is the raw one that `forward` was given."""
        seen = {key: value for key, value in batch.items() if key != ACTION and not key.startswith(IMAGES)}
        inputs = []
        for step in self._transforms():
            inputs.append(seen)
            seen = step(seen)
        for step, given in zip(reversed(self._transforms()), reversed(inputs), strict=True):
            actions = step.inverse(actions, given)
        return actions

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """What size images of `height` x `width` leave the pipeline with."""
        image = torch.zeros(1, 1, height, width, 3, dtype=torch.uint8)
        changed = self({IMAGES + "any": image, "observation_is_pad": torch.zeros(1, 1, dtype=torch.bool)})
        return changed[IMAGES + "any"].shape[2], changed[IMAGES + "any"].shape[3]

    @torch.no_grad()
    def fit(self, columns: Mapping[str, np.ndarray], episode_ends: np.ndarray, horizon: int) -> None:
        """Compute the exact statistics of a dataset, each transform's from what the ones before it made.

        Args:
            columns: by key, (N, dims), all episodes one after the other.
            episode_ends: (E,), the index one after each episode's last frame; the last is N.
            horizon: H, for statistics of chunks.

        Raises:
            ValueError: a number that is not finite, with its place; lengths that disagree; a column that is missing.
        """
        ends = np.asarray(episode_ends, dtype=np.int64)
        _check(columns, ends)
        batch = _frames(columns)
        training = self.training
        self.eval()
        try:
            for step in self._transforms():
                if step.windows and ACTION in batch and batch[ACTION].shape[1] != horizon:
                    batch |= _windows(batch[ACTION].squeeze(1), ends, horizon)
                step.fit(batch)
                batch = step(batch)
        finally:
            self.train(training)

    @torch.no_grad()
    def chunks(
        self, columns: Mapping[str, np.ndarray], episode_ends: np.ndarray, horizon: int
    ) -> tuple[Tensor, Tensor]:
        """Every chunk of a dataset as a head will see it, without augmentation; the arguments are those of `fit`.

        Returns:
            Actions (N, H, A), and which of their steps exist, (N, H), bool.
        """
        batch = _frames(columns)
        batch |= _windows(batch[ACTION].squeeze(1), np.asarray(episode_ends, dtype=np.int64), horizon)
        training = self.training
        self.eval()
        try:
            return self(batch)[ACTION], ~batch["action_is_pad"]
        finally:
            self.train(training)

    def _transforms(self) -> list[Transform]:
        return list(self.steps.values())  # type: ignore[arg-type]


def _frames(columns: Mapping[str, np.ndarray]) -> Batch:
    """Every frame as a row with T = H = 1."""
    batch: Batch = {k: torch.from_numpy(np.array(v, dtype=np.float32)).unsqueeze(1) for k, v in columns.items()}
    rows = len(next(iter(batch.values())))
    return batch | {key: torch.zeros(rows, 1, dtype=torch.bool) for key in ("observation_is_pad", "action_is_pad")}


def _windows(actions: Tensor, ends: np.ndarray, horizon: int) -> Batch:
    """Every chunk: actions (N, A) to (N, H, A), the last one repeated past an episode's end, and padding."""
    index = np.arange(len(actions))
    last = np.repeat(ends, np.diff(ends, prepend=0))[:, None] - 1
    steps = index[:, None] + np.arange(horizon)
    return {ACTION: actions[torch.from_numpy(np.minimum(steps, last))], "action_is_pad": torch.from_numpy(steps > last)}


def _check(columns: Mapping[str, np.ndarray], ends: np.ndarray) -> None:
    if len(ends) == 0 or ends[0] < 1 or (np.diff(ends) < 1).any():
        raise ValueError("statistics need at least one episode, and none that is empty")
    for key, values in columns.items():
        if values.ndim != 2 or len(values) != ends[-1]:
            raise ValueError(f"{key} has shape {values.shape}, but the episodes end at frame {ends[-1]}")
        if not np.isfinite(values).all():
            row, dim = np.argwhere(~np.isfinite(values))[0]
            episode = int(np.searchsorted(ends, row, side="right"))
            frame = row - (ends[episode - 1] if episode else 0)
            raise ValueError(
                f"{key} is {values[row, dim]} in dimension {dim} at frame {frame} of episode {episode}: "
                f"repair the data or leave that episode out"
            )
