"""diffusion-policy's Zarr: all episodes behind one another (Chi et al. 2023, `common/replay_buffer.py` there).

    data/<key>            (T, ...), T steps of all episodes
    meta/episode_ends     (E,), the index one after each episode's last step

A folder `x.zarr` or a file `x.zarr.zip`, Zarr format 2. Arrays of objects and filters that unpickle are refused from
their description, before anything of them is read. Chunks that are missing hold the fill value, as Zarr defines it.
"""

from __future__ import annotations

import itertools
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.data.formats.base import Entry, Keys, Source, affordable, cameras_of, first_present

CODECS = ("blosc", "zlib", "gzip", "lz4", "zstd", "bz2", "lzma", "delta", "shuffle", "fixedscaleoffset", "quantize")
"""What may compress or filter an array: all of them turn bytes into numbers, none into objects."""
BLOSC_HEADER = struct.Struct("<4B3I")
"""Four bytes of versions, flags and item size; bytes decompressed, bytes per block, bytes compressed (c-blosc 1)."""
STATES = (("agent_pos",), ("robot_eef_pose",), ("state",))


class ReplayBuffer(Source):
    """A replay buffer of diffusion-policy.

    Args:
        root: the folder or the zip file.

    Raises:
        ValueError: it is no such thing, is damaged, or holds objects.
        FileNotFoundError: it is missing.
    """

    format = "zarr"

    def __init__(self, root: str | Path, subset: str | None = None) -> None:
        import zarr

        self.root = Path(root)
        if subset is not None:
            raise ValueError(f"a Zarr replay buffer has no subsets: leave out subset={subset}")
        if not self.root.exists():
            raise FileNotFoundError(2, "missing Zarr folder or zip file", str(self.root))
        described = _descriptions(self.root)
        self.files = [self.root] if self.root.is_file() else [self.root / f"{key}/.zarray" for key in described]
        if "meta/episode_ends" not in described:
            raise ValueError(f"{self.root} has no meta/episode_ends: not a replay buffer of diffusion-policy")
        for key, record in described.items():
            _refuse_objects(f"{self.root}: {key}", record)
        self._described = described
        self._zip = zipfile.ZipFile(self.root) if self.root.is_file() else None
        try:
            store: Any = zarr.storage.ZipStore(self.root, mode="r") if self.root.is_file() else str(self.root)
            self._group: Any = zarr.open_group(store, mode="r", zarr_format=2)
        except Exception as error:  # zarr raises whatever its stores and codecs do
            raise ValueError(f"{self.root} cannot be opened as Zarr ({_line(error)})") from None
        count = int(np.prod(described["meta/episode_ends"]["shape"]))
        ends = self._array("meta/episode_ends", slice(0, count)).astype(np.int64)
        self._ends = ends
        if ends.ndim != 1 or len(ends) == 0 or (np.diff(ends, prepend=0) <= 0).any():
            raise ValueError(f"{self.root}: meta/episode_ends does not rise: it is damaged")
        shapes = {key: tuple(record["shape"]) for key, record in described.items() if key.startswith("data/")}
        for key, shape in shapes.items():
            if not shape or shape[0] != ends[-1]:
                raise ValueError(
                    f"{self.root}: {key} has {shape[0] if shape else 0} steps, but the last episode ends at {ends[-1]}"
                )
        self.entries = {
            key.removeprefix("data/"): Entry(shape[1:], np.dtype(described[key]["dtype"]).name)
            for key, shape in shapes.items()
        }
        self.names = [f"episode {number}" for number in range(len(ends))]

    def habit(self) -> Keys:
        """Every image; `agent_pos`, `robot_eef_pose` or `state`; `action`."""
        return Keys(
            cameras=cameras_of(self.entries),
            state=first_present(self.entries, STATES),
            action=first_present(self.entries, [["action"]]),
            extra={},
        )

    def read(self, number: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Arrays of an episode; errors as `Source.read`."""
        part = slice(int(self._ends[number - 1]) if number else 0, int(self._ends[number]))
        for key in keys:
            entry = self.entries[key]
            affordable((part.stop - part.start, *entry.shape), entry.dtype, f"'{key}'")
        return {key: self._array(f"data/{key}", part) for key in keys}

    def _array(self, key: str, part: slice) -> np.ndarray:
        self._check_chunks(key, part)
        try:
            return np.asarray(self._group[key][part])
        except Exception as error:  # zarr raises whatever its stores and codecs do
            raise ValueError(f"{self.root}: {key} is damaged ({_line(error)})") from None

    def _check_chunks(self, key: str, part: slice) -> None:
        """Compare Blosc's header with the bytes there: its decoder reads past the end of a chunk that was cut short."""
        record = self._described[key]
        if (record.get("compressor") or {}).get("id") != "blosc":
            return
        shape, chunks = record["shape"], record["chunks"]
        steps = range(part.start // chunks[0], -(-part.stop // chunks[0]))
        others = [range(-(-size // chunk)) for size, chunk in zip(shape[1:], chunks[1:], strict=True)]
        size = int(np.prod(chunks, dtype=np.int64)) * np.dtype(record["dtype"]).itemsize
        for index in itertools.product(steps, *others):
            name = f"{key}/{record.get('dimension_separator', '.').join(map(str, index))}"
            header, there = self._stored(name)
            if header is None:
                continue
            told = BLOSC_HEADER.unpack(header) if len(header) == BLOSC_HEADER.size else (0,) * 7
            if told[6] != there or (told[4] != size and not record.get("filters")):
                raise ValueError(f"{name} is damaged or was cut short ({there} bytes, {told[6]} expected)")

    def _stored(self, name: str) -> tuple[bytes | None, int]:
        """The first bytes of a chunk and how many it has; None where it isn't stored."""
        try:
            if self._zip is None:
                file = self.root / name
                with file.open("rb") as stream:
                    return stream.read(BLOSC_HEADER.size), file.stat().st_size
            info = self._zip.getinfo(name)
            with self._zip.open(info) as stream:
                return stream.read(BLOSC_HEADER.size), info.file_size
        except (FileNotFoundError, KeyError):
            return None, 0
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{name} is damaged ({_line(error)})") from None


def _descriptions(root: Path) -> dict[str, dict[str, Any]]:
    """`.zarray` of every array in `data` and `meta`."""
    try:
        if root.is_dir():
            if (root / "zarr.json").is_file():
                raise ValueError(f"{root} is Zarr format 3; diffusion-policy's replay buffers are format 2")
            files = {f.parent.relative_to(root).as_posix(): f.read_text() for f in sorted(root.glob("*/*/.zarray"))}
        else:
            with zipfile.ZipFile(root) as archive:
                names = [name for name in archive.namelist() if name.endswith("/.zarray")]
                files = {name.removesuffix("/.zarray"): archive.read(name).decode() for name in sorted(names)}
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{root} is not a Zarr zip file, or was cut short ({_line(error)})") from None
    found = {}
    for key, text in files.items():
        if key.split("/")[0] not in ("data", "meta"):
            continue
        try:
            found[key] = json.loads(text)
            _ = found[key]["shape"], found[key]["dtype"], found[key]["chunks"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{root}: {key}/.zarray is damaged") from None
    return found


def _refuse_objects(where: str, record: Mapping[str, Any]) -> None:
    kind = record["dtype"]
    if not isinstance(kind, str) or "O" in kind or np.dtype(kind).kind not in "fiub":
        raise ValueError(f"{where} has dtype {kind}: only numbers are read, since objects would be unpickled")
    for codec in [record.get("compressor"), *(record.get("filters") or [])]:
        name = codec.get("id") if isinstance(codec, Mapping) else codec
        if name is not None and name not in CODECS:
            raise ValueError(f"{where} is encoded with '{name}'; what is read is {', '.join(CODECS)}")
    shape, chunks = record["shape"], record["chunks"]
    if len(shape) != len(chunks) or not all(isinstance(n, int) and n >= 0 for n in shape) or min(chunks, default=1) < 1:
        raise ValueError(f"{where} has shape {shape} in chunks of {chunks}: its description is damaged")
    affordable(chunks, np.dtype(kind), f"{where}, in one chunk,")


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
