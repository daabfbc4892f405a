"""Episodes of another format into a LeRobot v3.0 dataset, one at a time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from embodied.data.edit.assembly import assemble, refuse_overlap
from embodied.data.formats.base import named
from embodied.data.formats.dataset import ForeignDataset
from embodied.data.lerobot.staging import stage_episode
from embodied.spec import TASK


def convert(dataset: ForeignDataset, out: str | Path, images: str = "image", stream: TextIO | None = None) -> int:
    """Write every episode of a dataset but those left out, in its order; returns how many there are.

    One episode is in memory at a time. Interrupted, the same call goes on after the last whole episode, as long as
    neither the source nor the keys have changed.

    Args:
        dataset: what to convert; its conventions become the embodiment.
        out: the new dataset's folder.
        images: `image` (lossless) or `video`.
        stream: where progress goes.

    Raises:
        ValueError: something is missing or damaged, named by file, episode and key; episodes before it are kept for
            the next attempt, which may leave that one out.
        OSError: it cannot be written.
    """
    refuse_overlap(out, [dataset.root])
    settings = {
        "converted": dataset.source.format,
        "root": dataset.root.name,
        "files": _fingerprint(dataset),
        "keys": asdict(dataset.keys),
        "instruction": dataset.instruction,
    }

    def stage(number: int) -> None:
        try:
            frames: dict[str, Any] = dataset.episode(number)
            task = frames.pop(TASK)
            with named(f"{dataset.root}: {dataset.source.names[number]}"):
                stage_episode(out, number, frames, task, dataset.source.record(number))
        except ValueError as error:
            raise ValueError(f"{error} (leave_out=[{number}] goes on without it)") from None

    return assemble(out, dataset.embodiment, images, settings, dataset.numbers, stage, stream)


def _fingerprint(dataset: ForeignDataset) -> str:
    """Changes when a file of the source does."""
    digest = hashlib.sha256()
    for file in dataset.source.files:
        status = file.stat()
        digest.update(json.dumps([file.name, status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]
