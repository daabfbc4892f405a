"""Houses as graphs of viewpoints, as Room-to-Room, REVERIE, SOON and CVDN use them.

A file `<scan>_connectivity.json` of Matterport3DSimulator is a list of viewpoints: `image_id`, `pose` (16 numbers, a
4 x 4 matrix by rows, metres, z up), `included`, and `unobstructed`, one truth value per viewpoint of the list. Two
included viewpoints are joined where either calls the other unobstructed; the edge is as long as the straight line
between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from embodied.building import nearest
from embodied.files import read_json

SUFFIX = "_connectivity.json"


@dataclass(frozen=True)
class House:
    """The viewpoints of one scan and the ways between them.

    Attributes:
        scan: its name.
        names: (n) of the included viewpoints.
        positions: (n, 3) metres, z up.
        joined: (n, n) whether one steps from one to the other.
    """

    scan: str
    names: tuple[str, ...]
    positions: np.ndarray
    joined: np.ndarray

    @cached_property
    def places(self) -> dict[str, int]:
        """From names to rows."""
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def distances(self) -> np.ndarray:
        """(n, n) metres along the shortest way; infinite where there is none."""
        rows, columns = np.nonzero(self.joined)
        lengths = np.linalg.norm(self.positions[rows] - self.positions[columns], axis=1)
        shape = self.joined.shape
        return dijkstra(csr_array((lengths, (rows, columns)), shape=shape), directed=False)

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """Rows of named viewpoints.

        Raises:
            ValueError: one of them is not in this house.
        """
        unknown = next((name for name in names if name not in self.places), None)
        if unknown is not None:
            raise ValueError(f"viewpoint {unknown} is not in the graph of {self.scan}")
        return np.array([self.places[name] for name in names], dtype=int)

    def jump(self, rows: np.ndarray) -> tuple[str, str] | None:
        """The first two viewpoints of a path between which no edge leads."""
        for one, other in pairwise(rows):
            if one != other and not self.joined[one, other]:
                return self.names[one], self.names[other]
        return None


class Graphs:
    """The houses of a folder, each read when it is first asked for.

    Args:
        folder: with files `<scan>_connectivity.json`.

    Raises:
        ValueError: it is no folder; a pickle (VLN-CE's `connectivity_graphs.pkl`) is never read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.suffix in (".pkl", ".pickle", ".p"):
            raise ValueError(
                f"{folder} is a pickle, which can run code when it is read: name the folder of <scan>{SUFFIX} files"
            )
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder {folder} with <scan>{SUFFIX} files")
        self._houses: dict[str, House] = {}

    @property
    def scans(self) -> list[str]:
        """All houses there are files of."""
        return sorted(file.name.removesuffix(SUFFIX) for file in self.folder.glob(f"*{SUFFIX}"))

    def house(self, scan: str) -> House:
        """One house.

        Raises:
            ValueError: there is no file of it, or the file is of another format; it is named.
        """
        if scan not in self._houses:
            file = self.folder / f"{scan}{SUFFIX}"
            if not isinstance(scan, str) or "/" in scan or not file.is_file():
                raise ValueError(f"there is no graph of scan {scan} in {self.folder}{nearest(str(scan), self.scans)}")
            self._houses[scan] = read_house(file, scan)
        return self._houses[scan]


def read_house(file: Path, scan: str) -> House:
    """Read a connectivity file.

    Raises:
        ValueError: it is of another format; it is named.
    """
    rows: Any = read_json(file)
    try:
        included = [place for place, row in enumerate(rows) if row["included"]]
        names = tuple(str(rows[place]["image_id"]) for place in included)
        poses = np.array([rows[place]["pose"] for place in included], dtype=float).reshape(len(included), 16)
        free = np.array([rows[place]["unobstructed"] for place in included], dtype=bool).reshape(
            len(included), len(rows)
        )
    except (KeyError, TypeError, ValueError, IndexError):
        raise ValueError(
            f"{file} is no connectivity file: a list of viewpoints with image_id, pose (16 numbers), included and "
            "unobstructed (one per viewpoint) is needed"
        ) from None
    positions = poses[:, [3, 7, 11]]
    if not names or not np.isfinite(positions).all():
        raise ValueError(f"{file} has {'a pose that is not finite' if names else 'no included viewpoint'}")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice:
        raise ValueError(f"{file} has viewpoint {twice} twice")
    joined = free[:, included]
    return House(scan, names, positions, joined | joined.T)
