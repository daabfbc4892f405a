"""Rows of columnar datasets by number: parquet files, and folders that Hugging Face `datasets` saved."""

from __future__ import annotations

import bisect
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from embodied.building import nearest
from embodied.data.multimodal.sample import BrokenSample

GROUPS = 2
"""How many groups of rows of parquet files are kept in memory; reading in order needs one."""


class ParquetRows(Sequence[Any]):
    """The rows of one or more parquet files, in order.

    A row is read with its whole row group, of which the last few are kept: going through in order reads each once, and
    rows at random cost a group each.

    Args:
        files: in the order that their rows are counted in.
        columns: that are read; all, unless given.

    Raises:
        ValueError: there are no files, one is not parquet, or has no such column.
    """

    def __init__(self, files: Sequence[str | Path], columns: Sequence[str] | None = None) -> None:
        import pyarrow.parquet as parquet

        self.columns = None if columns is None else list(columns)
        self._groups: list[tuple[str, int]] = []
        sizes: list[int] = []
        for file in files:
            try:
                shape = parquet.ParquetFile(str(file))
            except (OSError, ValueError) as error:  # pyarrow's own errors derive from these
                reason = str(error).splitlines()[0]
                raise ValueError(f"{file} is missing, damaged, or not a parquet file ({reason})") from None
            with shape:
                for column in self.columns or ():
                    names = shape.schema_arrow.names
                    if column not in names:
                        raise ValueError(f"{file} has no column '{column}'{nearest(column, names)}")
                for group in range(shape.metadata.num_row_groups):
                    self._groups.append((str(file), group))
                    sizes.append(shape.metadata.row_group(group).num_rows)
        self._ends = list(itertools.accumulate(sizes))
        if not self._ends or not self._ends[-1]:
            raise ValueError(f"no rows in {', '.join(map(str, files)) or 'no files'}")
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """A row as plain Python values, or several.

        Raises:
            BrokenSample: its part of the file is damaged.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = bisect.bisect_right(self._ends, index)
        first = self._ends[group - 1] if group else 0
        return self._table(group).slice(index - first, 1).to_pylist()[0]

    def file_of(self, index: int) -> str:
        """The file that a row is in."""
        return self._groups[bisect.bisect_right(self._ends, index)][0]

    def _table(self, group: int) -> Any:
        import pyarrow.parquet as parquet

        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        file, number = self._groups[group]
        try:
            with parquet.ParquetFile(file) as opened:
                table = opened.read_row_group(number, columns=self.columns, use_threads=False)
        except (OSError, ValueError) as error:
            raise BrokenSample("broken record", f"its row group is damaged ({error})", file) from None
        self._kept[group] = table
        while len(self._kept) > GROUPS:
            self._kept.popitem(last=False)
        return table


class SavedRows(Sequence[Any]):
    """The rows of a folder that `datasets.Dataset.save_to_disk` wrote; pictures stay as the bytes that were saved.

    Args:
        folder: of one split, or of several.
        split: which one, where there are several.

    Raises:
        ValueError: it is no such folder, or the split is not told or not there.
    """

    def __init__(self, folder: str | Path, split: str | None = None) -> None:
        from datasets import Dataset, DatasetDict, load_from_disk

        try:
            found = load_from_disk(str(folder))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (str(error).splitlines() or ["?"])[0]
            raise ValueError(f"{folder} is not a folder that datasets' save_to_disk wrote ({reason})") from None
        if isinstance(found, DatasetDict):
            if split not in found:
                asked = "no split is told" if split is None else f"there is no split '{split}'"
                raise ValueError(f"{folder}: {asked}; it has {', '.join(sorted(found))}")
            found = found[split]
        elif split is not None:
            raise ValueError(f"{folder} holds one dataset without splits: leave split out")
        assert isinstance(found, Dataset)
        self._data = found.with_format("arrow")
        if not len(found):
            raise ValueError(f"{folder} has no rows")

    def __len__(self) -> int:
        return len(self._data)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """A row as plain Python values, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._data[index].to_pylist()[0]
