"""Make a multi-modal data set: rendered table-top scenes and what is true of them.

    embodied-make-scenes out=data/scenes scenes=10000 size=128 seed=0 processes=2

Captions, questions, POPE's probes, referring expressions with boxes, dialogues and short films with questions, as chat
samples and in the formats of official scorers; `scenes.json` says what is in it. The same command continues what was
interrupted. A seed gives the same bytes for any number of processes.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from embodied.cli.app import command
from embodied.progress import Progress, clock

ATTEMPTS = 3
"""A stretch whose worker dies so often is not tried again."""
Stretch = tuple[str, int, int]


class Maker(Protocol):
    """What the config's `maker` names: it knows the data set, this command knows processes."""

    painter: str
    settings: Mapping[str, Any]

    def begin(self, out: Path) -> tuple[list[Stretch], int]: ...

    def finish(self, out: Path) -> dict[str, Any]: ...


def work(config: DictConfig) -> dict[str, Any]:
    """Make the data set; `images`, `videos`, `samples` and `seconds`."""
    from embodied.building import build
    from embodied.files import only_one

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    out, processes, node = Path(str(plain.pop("out"))), plain.pop("processes"), plain.pop("maker")
    if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
        raise ValueError(f"processes is a whole number, at least 1, got {processes!r}")
    maker: Maker = build(node, settings=plain)
    begun = time.monotonic()
    with only_one(out, "making of scenes"):
        waiting, total = maker.begin(out)
        drawn = sum(stop - start for _, start, stop in waiting)
        if waiting:
            paint(maker, out, waiting, processes, Progress(total, "pictures and films", total - drawn, sys.stderr))
            sys.stderr.write("all drawn; now writing what is said about them\n")
        about = maker.finish(out)
    seconds = time.monotonic() - begun
    counts = Counter[str]()
    for split in about["counts"].values():
        counts.update(split)
    images, videos = counts.pop("images"), counts.pop("videos")
    print(f"{out}: {images} pictures and {videos} films, {counts.total()} samples, {drawn} drawn in {clock(seconds)}")
    return {"images": images, "videos": videos, "samples": counts.total(), "seconds": seconds}


def paint(maker: Maker, out: Path, stretches: Sequence[Stretch], processes: int, progress: Progress) -> None:
    """Have worker processes draw stretches, each the next one that waits.

    Raises:
        ValueError: a worker says what is wrong, or dies on the same stretch again and again.
    """
    from embodied.workers import Worker, WorkerDied, wait

    arguments = {"out": str(out.absolute()), "settings": dict(maker.settings)}
    waiting, deaths = deque(stretches), Counter[Stretch]()
    workers = [Worker(maker.painter, arguments) for _ in range(min(processes, len(waiting)))]
    busy: dict[Worker, Stretch] = {}
    try:
        while waiting or busy:
            for worker in workers:
                if waiting and worker not in busy:
                    busy[worker] = waiting.popleft()
                    ask(worker, busy[worker])
            for worker in wait(list(busy)):
                stretch = busy.pop(worker)
                try:
                    progress.advance(int(worker.answer()))
                except WorkerDied as end:
                    deaths[stretch] += 1
                    if deaths[stretch] >= ATTEMPTS:
                        kind, start, stop = stretch
                        raise ValueError(
                            f"drawing {kind} {start} to {stop - 1} ended {ATTEMPTS} times: {end}"
                        ) from None
                    waiting.appendleft(stretch)
                    worker.kill()
                    workers[workers.index(worker)] = Worker(maker.painter, arguments)
    finally:
        for worker in workers:
            worker.hang_up()
        for worker in workers:
            worker.close()


def ask(worker: Any, stretch: Stretch) -> None:
    """Give a worker its stretch; one that has died meanwhile says so when it is asked for the answer."""
    from embodied.workers import WorkerDied

    kind, start, stop = stretch
    with suppress(WorkerDied):
        worker.ask("paint", kind=kind, start=start, stop=stop)


main = command("make-scenes", work)

if __name__ == "__main__":
    main()
