"""Hugging Face datasets on disk: parquet files with pictures inside, and folders written by `save_to_disk`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, TableReader
from embodied.data.multimodal.readers.composing import Composer, references
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.tables import ParquetRows, SavedRows
from embodied.data.multimodal.sample import BrokenSample, Sample


class HuggingFace(TableReader):
    """Rows of a dataset; what becomes of one is told in `embodied.data.multimodal.readers.composing`.

    Pictures are those of the column `images`, or `image` where there is none: `{"bytes", "path"}` as `datasets` stores
    them, bytes, paths, or lists of these. Nothing is downloaded, and no code of a dataset is run.

    Args:
        path: a parquet file, a folder of them (in the order of their names), or a folder written by `save_to_disk`.
        split: which one: of a saved folder with several; of parquet, files whose names begin with it (`train-*`).
        images: folder that paths in the rows start from; as they are, unless given.
        keys, prompt, caption_prompt, meta: see `Composer`.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: there is no such dataset.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        images: str | Path | None = None,
        keys: Mapping[str, str] | None = None,
        prompt: str = "{question}\n{options}",
        caption_prompt: str = "Describe the image in one sentence.",
        meta: Sequence[str] = (),
        name: str = "",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        self.composer = Composer(keys, prompt, caption_prompt, meta)
        self.table = rows_at(Path(path), split)
        super().__init__(name or Path(path).stem, path, self.table, on_error, look)
        self.folder = None if images is None else Path(images)

    def sample(self, record: Fields) -> Sample:
        key = self.composer.keys["id"]
        name = record.label(key) if key in record else str(record.number)
        try:
            column = self.composer.keys["images"]
            found = record.get(column if column in record else "image")
            pictures = [] if found is None else references(found, self.folder)
            return self.composer.sample(record, name, self.name, pictures)
        except BrokenSample as fault:
            file = self.table.file_of(record.number) if isinstance(self.table, ParquetRows) else ""
            raise fault.at(file, name) from None


def rows_at(path: Path, split: str | None) -> ParquetRows | SavedRows:
    """The rows of a parquet file, of a folder of them, or of a saved dataset.

    Raises:
        ValueError: it is none of these.
    """
    if path.is_file():
        return ParquetRows([path])
    if not path.is_dir():
        raise ValueError(f"{path} does not exist")
    if any((path / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
        return SavedRows(path, split)
    files = sorted(path.rglob("*.parquet"))
    if split is not None:
        files = [file for file in files if file.name.startswith(split)]
    if not files:
        told = "" if split is None else f" whose names begin with '{split}'"
        raise ValueError(f"{path} has no parquet files{told}, and was not written by datasets' save_to_disk")
    return ParquetRows(files)
