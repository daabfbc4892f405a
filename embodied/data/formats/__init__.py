"""Datasets in other formats: read episode by episode under our keys, and converted to LeRobot v3.0.

    dataset = ForeignDataset(open_source("lift.hdf5"), instruction="lift the cube", conventions="panda.json")
    dataset.episode(0)
    convert(dataset, "data/lift")

Adding a format is adding a `Source` and a line to `SOURCES`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from embodied.building import nearest
from embodied.data.formats.base import Entry, Keys, Source
from embodied.data.formats.convert import convert
from embodied.data.formats.dataset import ForeignDataset

__all__ = ["SOURCES", "Entry", "ForeignDataset", "Keys", "Source", "convert", "guess_format", "open_source"]

SOURCES = {"robomimic": "robomimic.Robomimic", "zarr": "zarr.ReplayBuffer", "rlds": "rlds.Rlds"}
"""Where each format's source is defined: imported when it is needed, since each needs a package of its own."""


def open_source(root: str | Path, format: str | None = None, subset: str | None = None) -> Source:
    """The episodes of a file or folder.

    Args:
        root: the file or folder.
        format: one of `SOURCES`; by the looks of it, unless given.
        subset: a robomimic mask or an RLDS split.

    Raises:
        ValueError: an unknown format, or `root` is not of it or is damaged.
        FileNotFoundError: something is missing.
        ModuleNotFoundError: the format's package is not installed.
    """
    format = format or guess_format(root)
    if format not in SOURCES:
        raise ValueError(f"no format '{format}' can be converted{nearest(format, [*SOURCES, 'lerobot'])}")
    module, name = SOURCES[format].split(".")
    return getattr(import_module(f"{__name__}.{module}"), name)(root, subset)


def guess_format(root: str | Path) -> str:
    """The format that a file or folder looks like.

    Raises:
        ValueError: none of those known.
        FileNotFoundError: there is nothing.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(2, "there is nothing to convert", str(root))
    looks = {
        "robomimic": root.suffix in (".hdf5", ".h5"),
        "zarr": root.name.endswith((".zarr", ".zarr.zip")) or (root / "meta/episode_ends").is_dir(),
        "rlds": (root / "features.json").is_file(),
        "lerobot": (root / "meta/info.json").is_file(),
    }
    for format, so in looks.items():
        if so:
            return format
    raise ValueError(f"{root} looks like none of {', '.join(looks)}: give format=...")
