"""RLDS episodes as TensorFlow Datasets lays them out (Ramos et al. 2021; Open X-Embodiment), without TensorFlow.

    features.json                                 what an episode holds: `steps`, a sequence of named features
    dataset_info.json                             splits, and how many episodes each of their files holds
    <name>-<split>.tfrecord-00000-of-00005        one `tf.train.Example` per episode

In an Example all steps of a feature lie behind one another under `steps/observation/state`; images are JPEG or PNG.
Keys here leave out `steps/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.building import nearest
from embodied.data.formats.base import TEXT, Entry, Keys, Source, affordable, cameras_of, first_present, present
from embodied.data.formats.tfrecord import parse_example, read_record, record_places
from embodied.data.lerobot.images import decode_png
from embodied.files import read_json

STEPS = "steps/"
STATES = (("observation/state",), ("observation/proprio",))
TASKS = ("language_instruction", "observation/natural_language_instruction", "observation/language_instruction")
EXTRA = {"next.reward": "reward", "next.done": "is_last"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""How JPEG and PNG begin: nothing else is handed to the decoder."""


class Rlds(Source):
    """One split of a prepared TensorFlow dataset.

    Args:
        root: its version's folder, with `features.json` in it.
        subset: the split; `train` unless given.

    Raises:
        ValueError: it is no such folder, a file is missing or damaged, or there is no such split.
        FileNotFoundError: the folder or its description is missing.
    """

    format = "rlds"

    def __init__(self, root: str | Path, subset: str | None = None) -> None:
        self.root = Path(root)
        split = subset or "train"
        description = read_json(self.root / "features.json")
        try:
            steps = description["featuresDict"]["features"]["steps"]["sequence"]["feature"]
            stored = dict(_leaves(steps, ""))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.root / 'features.json'} describes no episodes of steps ({error!r})") from None
        self._stored = stored
        self.entries = {key: entry for key, (entry, problem) in stored.items() if problem is None}
        self._unread = {key: problem for key, (_, problem) in stored.items() if problem is not None}
        self.files, counts = _shards(self.root, split)
        self._places = []
        for file, count in zip(self.files, counts, strict=True):
            places = list(record_places(file))
            if count is not None and len(places) != count:
                raise ValueError(f"{file} holds {len(places)} episodes, but dataset_info.json says {count}")
            self._places += [(file, number, place, length) for number, (place, length) in enumerate(places)]
        if not self._places:
            raise ValueError(f"{self.root}: split '{split}' holds no episodes")
        self.names = [f"{file.name}, episode {number}" for file, number, _, _ in self._places]
        self.robot = re.sub(r"-.*", "", self.files[0].name)

    def habit(self) -> Keys:
        """Every image; `observation/state`; `action`; the usual names of instructions; reward and the last step."""
        return Keys(
            cameras=cameras_of(self.entries),
            state=first_present(self.entries, STATES),
            action=first_present(self.entries, [["action"]]),
            task=next((key for key in TASKS if key in self.entries), None),
            extra=present(self.entries, EXTRA),
        )

    def read(self, number: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Arrays of an episode; errors as `Source.read`."""
        file, _, place, length = self._places[number]
        affordable([length], "uint8", "the record")
        features = parse_example(read_record(file, place, length))
        result = {}
        for key in keys:
            if STEPS + key not in features:
                raise ValueError(f"there is no '{key}'{nearest(STEPS + key, features)}")
            result[key] = self._array(key, features[STEPS + key])
        return result

    def record(self, number: int) -> dict[str, Any]:
        """Which record of which file it was."""
        file, index, _, _ = self._places[number]
        return {"file": file.name, "record": index}

    def _array(self, key: str, values: list[bytes] | np.ndarray) -> np.ndarray:
        entry = self.entries[key]
        if entry.dtype == TEXT or entry.image:
            if not isinstance(values, list):
                raise ValueError(f"'{key}' is stored as numbers, but features.json says {entry.dtype} {entry.shape}")
            if entry.dtype == TEXT:
                return np.array([value.decode("utf-8", "replace") for value in values], dtype=object)
            affordable((len(values), *entry.shape), entry.dtype, f"'{key}'")
            return np.stack([_image(value, entry, f"'{key}' at step {step}") for step, value in enumerate(values)])
        if isinstance(values, list):
            raise ValueError(f"'{key}' is stored as bytes, but features.json says {entry.dtype} {entry.shape}")
        width = int(np.prod(entry.shape, dtype=np.int64))
        if width == 0 or len(values) % width:
            raise ValueError(f"'{key}' has {len(values)} numbers, which do not divide into steps of {entry.shape}")
        return values.astype(np.dtype(entry.dtype)).reshape(-1, *entry.shape)


def _leaves(feature: Mapping[str, Any], path: str) -> list[tuple[str, tuple[Entry, str | None]]]:
    """Every feature of a step: its entry, and why it cannot be read where that is so."""
    if "featuresDict" in feature:
        inner = feature["featuresDict"]["features"].items()
        return [leaf for name, one in inner for leaf in _leaves(one, f"{path}/{name}" if path else name)]
    kind = str(feature.get("pythonClassName", "")).rsplit(".", 1)[-1]
    if kind == "Image":
        image = feature["image"]
        shape, dtype = _shape(image), str(image.get("dtype", "uint8"))
        readable = dtype == "uint8" and len(shape) == 3 and shape[2] == 3 and min(shape) > 0
        return [(path, (Entry(shape, dtype), None if readable else f"is an image of {dtype} {shape}"))]
    if kind == "Text":
        return [(path, (Entry((), TEXT), None))]
    if "tensor" in feature:
        tensor = feature["tensor"]
        shape, dtype = _shape(tensor), str(tensor["dtype"])
        if dtype == TEXT:
            return [(path, (Entry(shape, TEXT), None if shape == () else "is a list of texts"))]
        plain = tensor.get("encoding", "none") in ("none", "NONE") and all(size > 0 for size in shape)
        known = re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", dtype) is not None
        return [(path, (Entry(shape, dtype), None if plain and known else f"is a {dtype} tensor, encoded or ragged"))]
    return [(path, (Entry((), kind), f"is a {kind}"))]


def _shape(record: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in (record.get("shape") or {}).get("dimensions", []))


def _shards(root: Path, split: str) -> tuple[list[Path], list[int | None]]:
    """The files of a split in order, and how many episodes each should hold, where that is told."""
    found: dict[str, dict[int, Path]] = {}
    totals: dict[str, int] = {}
    for file in root.iterdir():
        match = re.fullmatch(r".+-(\w+)\.tfrecord-(\d+)-of-(\d+)", file.name)
        if match:
            found.setdefault(match.group(1), {})[int(match.group(2))] = file
            totals[match.group(1)] = int(match.group(3))
    if split not in found:
        raise ValueError(f"{root} has no split '{split}'{nearest(split, found)}")
    absent = sorted(set(range(totals[split])) - set(found[split]))
    if absent:
        raise ValueError(f"{root}: file {absent[0]} of the {totals[split]} of split '{split}' is missing")
    files = [found[split][index] for index in range(totals[split])]
    described = root / "dataset_info.json"
    info: dict[str, Any] = read_json(described) if described.is_file() else {}
    lengths: list[Any] = next(
        (one.get("shardLengths") or [] for one in info.get("splits", []) if one.get("name") == split), []
    )
    return files, [int(count) for count in lengths] if len(lengths) == len(files) else [None] * len(files)


def _image(data: bytes, entry: Entry, where: str) -> np.ndarray:
    if not data.startswith(SIGNATURES):
        raise ValueError(f"{where} is neither JPEG nor PNG")
    image = decode_png(data, where)
    if image.shape != entry.shape:
        raise ValueError(f"{where} is {image.shape}, but features.json says {entry.shape}")
    return image
