"""A run's folder: its config, its log, its checkpoints; started once, continued as often as needed, never overwritten.

| name | what |
|---|---|
| `config.yaml` | everything resolved |
| `log/` | TensorBoard |
| `checkpoints/000500/` | the agent and `training_state/` |
| `checkpoints/last` | a link to the newest |
"""

from __future__ import annotations

import fcntl
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from embodied.files import write_text

CONFIG, CHECKPOINTS, LAST, LOG, LOCK = "config.yaml", "checkpoints", "last", "log", ".lock"
IGNORED = {LOCK, "sweep_job.json"}
"""What may lie in a folder that is called empty."""

FREE = (
    {"out", "resume", "data.root", "data.cache", "data.processes"}
    | {
        f"trainer.{key}"
        for key in ("max_minutes", "save_every", "keep", "log_every", "validate_every", "validation_batches")
    }
    | {"trainer.threads", "trainer.prefetch"}
)
"""Keys that may differ when a run is continued: they change nothing that is learned."""


LATER = {"keep", "own", "data.normalisation"}
"""Keys that runs of earlier versions lack, and that change nothing without another key that they lack too."""


class RunFolder:
    """Opens a folder for training; until `begin`, nothing in it changes.

    Args:
        path: the folder; made if it is missing.
        config: everything that was configured, as plain containers.
        resume: whether to continue what is there.
        write: whether this process may write (one of several may).

    Attributes:
        checkpoint: the newest complete checkpoint; None when starting fresh.
        saved: the step of the newest checkpoint.

    Raises:
        ValueError: it holds something and `resume` is false; it is no run's folder; another process trains in it; or
            the config differs in a key that matters.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any], resume: bool = False, write: bool = True) -> None:
        self.path, self.config, self._lock = Path(path), dict(config), None
        found = sorted(p.name for p in self.path.iterdir() if p.name not in IGNORED) if self.path.is_dir() else []
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out={path} is a file; a run needs a folder")
        if found and not resume:
            raise ValueError(f"out={path} is not empty: resume=true continues it, another out= starts a new run")
        if found and not {CONFIG, CHECKPOINTS} & set(found):
            raise ValueError(
                f"out={path} holds no run but {', '.join(found[:3])}: name a run's folder, or an empty one"
            )
        self.checkpoint = newest(self.path)
        self.saved = int(self.checkpoint.name) if self.checkpoint else None
        if self.checkpoint:
            self._compare(config)
        if write:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)

    def begin(self) -> None:
        """Training starts: write the config, and remove what an interrupted write left."""
        clean(self.path / CHECKPOINTS)
        write_text(self.path / CONFIG, yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))

    @property
    def log(self) -> Path:
        return self.path / LOG

    def place(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.path / CHECKPOINTS / f"{step:06d}"

    def point(self, step: int) -> None:
        """Let `checkpoints/last` name this step's checkpoint, atomically."""
        link = self.path / CHECKPOINTS / LAST
        temporary = link.with_name(f".{LAST}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.symlink_to(f"{step:06d}")
        temporary.replace(link)

    def prune(self, keep: int) -> None:
        """Remove all but the newest `keep` checkpoints; each disappears at once."""
        for folder in steps(self.path)[: -max(keep, 1)]:
            doomed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
            folder.replace(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def close(self) -> None:
        """Let others train here."""
        if self._lock is not None:
            self._lock.close()

    def _compare(self, config: Mapping[str, Any]) -> None:
        old, new = dict(leaves(read_config(self.path))), dict(leaves(config))
        constant = str(old.get("schedule.name", "")).startswith("constant")
        for key in [*new, *(key for key in old if key not in new)]:
            was, now = old.get(key, "absent"), new.get(key, "absent")
            added = key not in old and (now is None or key in LATER)  # by a version after the one that began the run
            if was == now or added or _shared(key) in FREE or (key == "trainer.max_steps" and constant):
                continue
            hint = "; the learning-rate schedule depends on it" if key == "trainer.max_steps" else ""
            raise ValueError(
                f"resume: {key} was {was} and is now {now}{hint}. "
                f"Give the old value to continue {self.path}, or another out= for a new run"
            )


def read_config(run: str | Path) -> dict[str, Any]:
    """What a run was configured as.

    Raises:
        ValueError: the file is missing or damaged.
    """
    file = Path(run) / CONFIG
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{file} can't be read, so it is unknown what to continue: {error}") from None
    return found if isinstance(found, dict) else {}


def steps(run: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder = Path(run) / CHECKPOINTS
    found = [p for p in folder.iterdir() if re.fullmatch(r"\d+", p.name) and p.is_dir()] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.name))


def newest(run: str | Path) -> Path | None:
    """The newest complete checkpoint of a run, if any."""
    found = steps(run)
    return found[-1] if found else None


def clean(folder: Path) -> None:
    """Remove what an interrupted write or removal left."""
    for leftover in folder.glob(".*") if folder.is_dir() else ():
        if leftover.name.endswith((".tmp", ".old")):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A config's values by their dotted names."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, config


def _shared(key: str) -> str:
    """`data.sources.<name>.root` counts as `data.root` does."""
    return re.sub(r"^data\.sources\.[^.]+\.", "data.", key)


def _locked(folder: Path) -> IO[str]:
    """A lock on the folder that lasts as long as this process."""
    handle = (folder / LOCK).open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise ValueError(f"another training is running in {folder}; wait for it or choose another out=") from None
    return handle
