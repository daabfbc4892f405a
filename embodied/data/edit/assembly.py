"""Put a dataset together from episodes that are staged one after the other, so that it may be interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from embodied.data.lerobot.finalize import finalize
from embodied.data.lerobot.format import COLLECTION, EMBODIMENT, INFO
from embodied.data.lerobot.staging import STAGING, begin, done
from embodied.files import only_one
from embodied.progress import Progress
from embodied.spec import Embodiment


def assemble(
    out: str | Path,
    embodiment: Embodiment,
    images: str,
    settings: Mapping[str, Any],
    episodes: Sequence[int],
    stage: Callable[[int], None],
    stream: TextIO | None = None,
) -> int:
    """Stage those episodes that are not there yet, then make the dataset; returns how many it has.

    What was staged outlives an interruption or an error, and the same call goes on after it. An error before the first
    episode leaves nothing behind, so that the next attempt may use other settings.

    Args:
        out, embodiment, images, settings: as `begin`'s.
        episodes: their numbers, ascending: the order in which they end up.
        stage: stages an episode under the number given.
        stream: where progress goes.

    Raises:
        ValueError: `out` holds something else, or another process is at work in it; or as `stage` does.
        OSError: it cannot be written.
    """
    out = Path(out)
    with only_one(out, "writing of a dataset"):
        fresh = not (out / COLLECTION).is_file()
        there = begin(out, embodiment, images, settings)
        try:
            progress = Progress(len(episodes), "episodes", done=len(there & set(episodes)), stream=stream)
            for number in episodes:
                if number not in there:
                    stage(number)
                    progress.advance()
        except BaseException:
            if fresh and not done(out):
                _forget(out)
            raise
        return finalize(out)


def refuse_overlap(out: str | Path, sources: Sequence[Path]) -> None:
    """Stop where the result would lie in a source, or a source in the result.

    Raises:
        ValueError: it would.
    """
    target = Path(out).resolve()
    for source in sources:
        place = source.resolve()
        if target == place or target in place.parents or place in target.parents:
            raise ValueError(f"out={out} overlaps with {source}, which is not touched: choose another folder")


def _forget(out: Path) -> None:
    """Undo a `begin` after which nothing was staged."""
    assert not (out / INFO).exists()
    (out / COLLECTION).unlink(missing_ok=True)
    (out / EMBODIMENT).unlink(missing_ok=True)
    shutil.rmtree(out / STAGING, ignore_errors=True)
    meta = (out / COLLECTION).parent
    if meta.is_dir() and not any(meta.iterdir()):
        meta.rmdir()
