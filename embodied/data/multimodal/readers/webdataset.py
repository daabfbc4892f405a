"""WebDataset shards: tar files in which the files of one sample share a name and follow each other.

Format: https://github.com/webdataset/webdataset (Aizman et al. 2019). The key of a file is its path up to the first dot
of its name, and its kind is the rest.
"""

from __future__ import annotations

import glob
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.media import inside, read_bytes
from embodied.data.multimodal.readers.base import Look, TableReader
from embodied.data.multimodal.readers.composing import Composer
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json, write_json

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")


class WebDataset(TableReader):
    """Samples of shards: pictures, a caption in `.txt`, and fields in `.json` (see `Composer` for what they become).

    Shards are looked through once, for where each file is; after that any sample is one read away, and its pictures are
    references into the archive. Files of other kinds, pickles among them, are never read.

    Args:
        shards: a shard, a pattern (`data/shard-*.tar`), or a list of these; in the order of their names.
        index: folder to keep what was found in, so that the next start needn't look again; it holds one JSON per shard,
            which is made anew when the shard has changed.
        keys, prompt, caption_prompt, meta: see `Composer`.
        name, on_error, look: see `Reader`; a shard that was cut short is skipped from there on.

    Raises:
        ValueError: there is no shard, or one is compressed or no tar file.
        BrokenSample: a shard was cut short.
    """

    def __init__(
        self,
        shards: str | Path | Sequence[str | Path],
        index: str | Path | None = None,
        keys: Mapping[str, str] | None = None,
        prompt: str = "{question}\n{options}",
        caption_prompt: str = "Describe the image in one sentence.",
        meta: Sequence[str] = (),
        name: str = "webdataset",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        self.composer = Composer(keys, prompt, caption_prompt, meta)
        files = files_of(shards)
        super().__init__(name, files[0], (), on_error, look)
        self.rows = Rows(self._found(files, None if index is None else Path(index)))
        if not len(self.rows):
            raise ValueError(f"{', '.join(map(str, files))}: no samples in it")

    def _found(self, files: Sequence[str], index: Path | None) -> Iterator[dict[str, Any]]:
        for file in files:
            found = index_of(file, index)
            for key, members in found["samples"]:
                yield {"shard": file, "key": key, "members": members}
            if found["cut"]:
                fault = BrokenSample("broken record", "the shard was cut short: its end is missing", file)
                if self.on_error == "raise":
                    raise fault
                self.faults.note(fault, self.name)

    def sample(self, record: Fields) -> Sample:
        shard, name, members = record.text("shard"), record.text("key"), record.get("members")
        try:
            fields: dict[str, Any] = {}
            for kind in sorted(members):
                if kind == "json" or kind.endswith(".json"):
                    fields |= _json(read_bytes(_within(shard, members[kind], f"{name}.{kind}"), "record"), kind)
                elif kind == "txt":
                    said = read_bytes(_within(shard, members[kind], f"{name}.{kind}"), "record")
                    fields[self.composer.keys["caption"]] = said.decode("utf-8", "replace").strip()
            pictures = [
                _within(shard, members[kind], f"{name}.{kind}")
                for kind in sorted(members)
                if kind.rsplit(".", 1)[-1] in IMAGES
            ]
            return self.composer.sample(Fields(fields, record.number), name, self.name, pictures)
        except BrokenSample as fault:
            raise fault.at(shard, name) from None


def files_of(shards: str | Path | Sequence[str | Path]) -> list[str]:
    """The shards that paths and patterns mean, in the order of their names.

    Raises:
        ValueError: one means none.
    """
    files: list[str] = []
    for pattern in [shards] if isinstance(shards, str | Path) else shards:
        found = [str(pattern)] if Path(pattern).is_file() else glob.glob(str(pattern))  # noqa: PTH207 - may be absolute
        if not found:
            raise ValueError(f"there is no shard {pattern}")
        files += found
    return sorted(dict.fromkeys(files))


def index_of(file: str, folder: Path | None = None) -> dict[str, Any]:
    """Where the files of each sample of a shard are: `{"samples": [[key, {kind: [first byte, bytes]}]], "cut": bool}`.

    Args:
        file: the shard.
        folder: where such an index is kept.

    Raises:
        ValueError: it is compressed, no tar file, or has the same file twice.
    """
    state = Path(file).stat()
    stamp = [state.st_size, state.st_mtime_ns]
    kept = None if folder is None else folder / f"{Path(file).name}.json"
    if kept is not None and kept.is_file():
        found = read_json(kept)
        if isinstance(found, dict) and found.get("stamp") == stamp and found.get("file") == str(Path(file).absolute()):
            return found
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    cut = False
    try:
        with tarfile.open(file, "r:") as archive:
            try:
                for member in archive:
                    if member.isfile() and member.offset_data + member.size <= state.st_size:
                        _sort_in(samples, member, file)
                    elif member.isfile():
                        cut = True
            except tarfile.ReadError:
                cut = True
    except (tarfile.ReadError, EOFError, OSError) as error:
        raise ValueError(
            f"{file} is not an uncompressed tar file ({error}): unpack it, or pack it without gz"
        ) from None
    index = {"file": str(Path(file).absolute()), "stamp": stamp, "cut": cut, "samples": samples}
    if kept is not None:
        write_json(kept, index)
    return index


def _within(shard: str, place: Sequence[int], name: str) -> str:
    return inside(shard, place[0], place[1], name)


def _sort_in(samples: list[Any], member: tarfile.TarInfo, file: str) -> None:
    folder, _, base = member.name.rpartition("/")
    stem, dot, kind = base.partition(".")
    if not stem or not dot or folder.startswith("__"):  # WebDataset's own rule: such files are no sample's
        return
    key = f"{folder}/{stem}" if folder else stem
    if not samples or samples[-1][0] != key:
        samples.append((key, {}))
    if kind.lower() in samples[-1][1]:
        raise ValueError(f"{file} has {member.name} twice in one sample: names should differ")
    samples[-1][1][kind.lower()] = (member.offset_data, member.size)


def _json(data: bytes, kind: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenSample("broken record", f"its .{kind} is not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise BrokenSample("wrong field", f"its .{kind} is a mapping, got {found!r:.60}")
    return found
