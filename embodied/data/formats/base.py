"""What a file of another format offers: named episodes, and what is stored under which key at every step.

A format is a `Source`. It knows nothing of cameras, states or actions: `ForeignDataset` gives the keys of a source the
meaning that ours have, and turns its episodes into those of `embodied.spec`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embodied.building import nearest

TEXT = "string"
MOST_BYTES = 32 * 2**30
"""An episode that claims to be larger in memory is damaged, or was made to exhaust it."""


@dataclass(frozen=True)
class Entry:
    """What a source stores under one key.

    Attributes:
        shape: per step; images are (H, W, 3).
        dtype: a numpy dtype's name, or `string`.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def image(self) -> bool:
        """Whether it can be a camera: (H, W, 3) of bytes, or of floats as diffusion-policy writes them."""
        return len(self.shape) == 3 and self.shape[2] == 3 and min(self.shape[:2]) >= 8 and self.dtype != TEXT

    @property
    def numeric(self) -> bool:
        return self.dtype != TEXT and not self.image


@dataclass(frozen=True)
class Keys:
    """Which of a source's keys are what; None where the format's own habit is followed.

    Attributes:
        cameras: `{camera name: key}`.
        state, action: keys to join to one vector, in this order. A part of a key is written `key[2:5]`.
        task: the key of the instruction.
        extra: `{our column: key or keys}`, such as `{next.reward: rewards}`.
    """

    cameras: Mapping[str, str] | None = None
    state: Sequence[str] | None = None
    action: Sequence[str] | None = None
    task: str | None = None
    extra: Mapping[str, str | Sequence[str]] | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any] | None) -> Keys:
        """From a config.

        Raises:
            ValueError: an unknown name.
        """
        known = [field.name for field in fields(cls)]
        for name in record or {}:
            if name not in known:
                raise ValueError(f"keys have no '{name}'{nearest(name, known)}")
        told = dict(record or {})
        for name in ("state", "action"):
            if isinstance(told.get(name), str):
                told[name] = [told[name]]
        return cls(**told)


class Source(ABC):
    """The episodes of a file or folder in its own keys; nothing is kept in memory but its description.

    Attributes:
        format: the word that chooses it.
        root: the file or folder.
        names: of the episodes, in order, as an error message gives them (`demo_3`).
        entries: what every step of every episode has.
        robot: a name of the body.
        fps, instruction: where the files tell; None otherwise.
        files: all that episodes are read from.
    """

    format: ClassVar[str]
    root: Path
    names: Sequence[str]
    entries: Mapping[str, Entry]
    robot: str = "unknown"
    fps: float | None = None
    instruction: str | None = None
    files: Sequence[Path]

    @abstractmethod
    def read(self, number: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole arrays (N, *shape) of an episode; text as an object array of str.

        Raises:
            ValueError: a key is missing, or the file is damaged; the episode need not be named.
        """

    @abstractmethod
    def habit(self) -> Keys:
        """What is what where nobody tells: the names that datasets of this format usually have, as far as present."""

    def record(self, number: int) -> dict[str, Any]:
        """What else the file says of an episode, as JSON."""
        return {}


def first_present(entries: Mapping[str, Entry], choices: Sequence[Sequence[str]]) -> list[str] | None:
    """The first of several lists of keys that is there whole."""
    return next((list(keys) for keys in choices if all(key in entries for key in keys)), None)


def present(entries: Mapping[str, Entry], extra: Mapping[str, str]) -> dict[str, str]:
    """The part of a mapping to keys whose keys are there."""
    return {column: key for column, key in extra.items() if key in entries}


def cameras_of(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Every image of a source, named by the last part of its key without `_image` or `_rgb`, or by all of it."""
    keys = [key for key, entry in entries.items() if entry.image]
    short = {key: re.sub(r"_(image|rgb)$", "", key.rsplit("/", 1)[-1]) for key in keys}
    names = list(short.values())
    return {name if names.count(name) == 1 else key.replace("/", "_"): key for key, name in short.items()}


def affordable(shape: Sequence[int], dtype: str | np.dtype, what: str) -> None:
    """Refuse to read an array that could not fit into memory before anything is allocated for it.

    Raises:
        ValueError: naming it and its size.
    """
    size = np.dtype(dtype).itemsize
    for count in shape:
        size *= int(count)
    if size > MOST_BYTES:
        raise ValueError(f"{what} claims {size / 2**30:.0f} GB for one episode: the file is damaged")


@contextmanager
def named(where: str) -> Iterator[None]:
    """Put a place in front of the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None
