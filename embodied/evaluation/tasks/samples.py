"""Samples from files in this project's own form: one `Sample` per line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embodied.building import nearest
from embodied.data.multimodal.sample import BrokenSample, Sample


class SampleFile:
    """The samples of a JSON lines file, in order; relative paths of pictures and films are taken from `root`.

    Args:
        root: the folder of the data set.
        file: within it.
        only: what samples must have, to be among them: from names in their `meta` to a value or a list of values.
        limit: the first so many only; None for all.
        skip: whether to leave out samples that are broken, and count them in `reasons`.

    Attributes:
        reasons: why samples were left out, one line each.

    Raises:
        ValueError: there is no such file; the nearest one is named.
    """

    def __init__(
        self,
        root: str | None,
        file: str,
        only: Mapping[str, Any] | None = None,
        limit: int | None = None,
        skip: bool = False,
    ) -> None:
        if root is None:
            raise ValueError("data.root is not given: add data.root=<the folder of the data set>")
        self.root, self.file = Path(root), Path(root) / file
        self.only = {name: value if isinstance(value, list) else [value] for name, value in (only or {}).items()}
        self.limit, self.skip = limit, skip
        self.reasons: list[str] = []
        if not self.root.is_dir():
            raise ValueError(f"data.root={root}: there is no such folder")
        if not self.file.is_file():
            there = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*.jsonl"))
            raise ValueError(f"{self.root} has no {file}{nearest(file, there[:50])}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit is 1 or more, or null for all; got limit={limit}")

    def __iter__(self) -> Iterator[Sample]:
        self.reasons = []
        seen: set[str] = set()
        count = 0
        with self.file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    sample = self._sample(line, f"{self.file}: line {number}")
                    if sample.id in seen:
                        raise BrokenSample("there twice", "it is there twice", self.file, sample.id)
                except BrokenSample as fault:
                    if not self.skip:
                        raise
                    self.reasons.append(str(fault))
                    continue
                seen.add(sample.id)
                if all(sample.meta.get(name) in values for name, values in self.only.items()):
                    yield sample
                    count += 1
                    if count == self.limit:
                        break
        if not count:
            only = "".join(f" with {name} = {' or '.join(map(str, v))}" for name, v in self.only.items())
            raise ValueError(f"{self.file} has no sample{only}")

    def _sample(self, line: str, where: str) -> Sample:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise BrokenSample("not JSON", f"it is not valid JSON ({error.msg})", where) from None
        try:
            sample = Sample.from_dict(record)
        except BrokenSample as fault:
            raise fault.at(where) from None
        turns = [
            turn | {"content": [self._found(part, where, sample.id) for part in turn["content"]]}
            for turn in sample.messages
        ]
        return Sample(sample.id, turns, f"{where}", sample.meta)

    def _found(self, part: dict[str, Any], where: str, name: str) -> dict[str, Any]:
        kind = part["type"]
        if kind == "text" or part[kind].startswith("data:"):
            return part
        place = Path(part[kind])
        place = place if place.is_absolute() else self.root / place
        if not place.exists() and ".tar#" not in str(place):
            raise BrokenSample(f"missing {kind}", f"there is no {kind} {place}", where, name)
        return {"type": kind, kind: str(place)}
