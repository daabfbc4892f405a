"""What is shown while training: means over windows of steps, on one line and in TensorBoard.

Values stay on the device until a window ends, so that showing them costs the GPU one wait per window, not one per step.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
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


def per_source(means: Mapping[str, float]) -> dict[str, float]:
    """A crew's scalars as a person reads them: each source's own mean loss, where it was in the batches at all.

    A crew reports `loss/<source>`, what the source added to the loss, and `share/<source>`, its part of the batches:
    both add up over the parts of a batch, and only their ratio is a mean.
    """
    shares = {name.removeprefix("share/"): value for name, value in means.items() if name.startswith("share/")}
    parts = {f"{kind}/{name}" for name in shares for kind in ("loss", "share")}
    result = {name: value for name, value in means.items() if name not in parts}
    return result | {f"loss/{name}": means[f"loss/{name}"] / share for name, share in shares.items() if share > 0}


class Board:
    """TensorBoard's event file, written at once: what was logged outlives a kill, and a full disk is an `OSError` here.

    (`SummaryWriter` writes from a thread of its own, which dies of a full disk with a traceback.)

    Args:
        folder: where the file goes; None writes nothing.
        step: training goes on here: what an interrupted run logged beyond is hidden.

    Raises:
        OSError: it can't be written.
    """

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self._records: RecordWriter | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
            self._records = RecordWriter(file.open("wb", buffering=0))
            self._event(file_version="brain.Event:2")
            if step:
                self._event(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Scalars at a step."""
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._event(step=step, summary=Summary(value=scalars))

    def close(self) -> None:
        if self._records is not None:
            self._records.close()

    def _event(self, **fields: Any) -> None:
        if self._records is not None:
            self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())
