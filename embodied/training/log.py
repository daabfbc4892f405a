"""What is shown while training: means over windows of steps, on one line and in TensorBoard.

Values stay on the device until a window ends, so that showing them costs the GPU one wait per window, not one per step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor


class Window:
    """Scalars of the steps since the last look.

    Args:
        start: the first step.
        total: sums tensors over all processes, in place, and returns them.
    """

    def __init__(self, start: int, total: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self.first, self._total = start, total
        self._rows: list[dict[str, Tensor]] = []
        self._start, self._paused = time.perf_counter(), 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, shares: Mapping[str, Tensor]) -> None:
        """One step's scalars, as this process's share of the whole batch's."""
        self._rows.append({name: value.detach() for name, value in shares.items()})

    def values(self) -> dict[str, list[float]]:
        """Each scalar at each step, over all processes."""
        names = sorted(self._rows[0]) if self._rows else []
        if not names:
            return {}
        whole = self._total(torch.stack([torch.stack([row[name].float() for name in names]) for row in self._rows]))
        return dict(zip(names, whole.T.tolist(), strict=True))

    def pause(self, seconds: float) -> None:
        """Time that was spent on something else than training."""
        self._paused += seconds

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self._start - self._paused, 1e-9)


class Board:
    """TensorBoard; without a folder, nothing.

    Args:
        folder: where its files go.
        step: training goes on here: what an interrupted run logged beyond is hidden.
    """

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Scalars at a step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
