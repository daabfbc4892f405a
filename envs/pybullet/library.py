"""PyBullet and panda-gym, imported when first needed and without their chatter.

PyBullet prints its build time when it is imported and its arguments whenever a client connects, from C and into the
middle of whatever a command prints.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any


@cache
def load(module: str) -> ModuleType:
    """A module of PyBullet or panda-gym.

    Raises:
        ValueError: it is not installed.
    """
    try:
        with quiet():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{module} is not installed ({error}): pip install -e '.[pybullet]'") from None


def connect() -> Any:
    """A new, empty simulation without a window: panda-gym's `PyBullet`, in a server of its own in this process."""
    library = load("panda_gym.pybullet")
    with quiet():
        return library.PyBullet(render_mode="rgb_array", renderer="Tiny")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what C code writes to standard output and standard error."""
    c = ctypes.CDLL(None)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    c.fflush(None)
    kept = {}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):  # closed by who started this process
                kept[descriptor] = os.dup(descriptor)
                os.dup2(nowhere, descriptor)
        yield
    finally:
        c.fflush(None)  # what is still buffered, before the descriptors are what they were
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)
