"""Many records in little memory: JSON in one block of bytes, or lines that stay in their file."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from embodied.data.multimodal.sample import BrokenSample


class Rows(Sequence[Any]):
    """Records as JSON in one block of bytes, decoded when asked for.

    Half a million conversations as Python objects take about three times their size on disk, and once more in each
    worker process, because counting references touches every page. One block of bytes stays shared.
    """

    def __init__(self, records: Iterable[Any]) -> None:
        block, ends = bytearray(), array("q", [0])
        for record in records:
            block += json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
            ends.append(len(block))
        self._block, self._ends = bytes(block), ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One record, or several as a list."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return json.loads(self._block[self._ends[index] : self._ends[index + 1]])


class JsonLines(Sequence[Any]):
    """The lines of a JSON lines file, read from it when asked for; empty ones are left out.

    Args:
        file: one JSON value per line, UTF-8.

    Raises:
        ValueError: there is no such file, or it has no lines.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        if not self.file.is_file():
            raise ValueError(f"{file} does not exist")
        self._places, place = array("q"), 0
        with self.file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    self._places.append(place)
                place += len(line)
        if not self._places:
            raise ValueError(f"{file} is empty: it should hold one JSON value per line")

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """The value of a line that is not empty, or of several.

        Raises:
            BrokenSample: it is not JSON.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        with self.file.open("rb") as lines:
            lines.seek(self._places[index])
            line = lines.readline()
        try:
            return json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BrokenSample("broken record", f"it is not valid JSON ({error})") from None
