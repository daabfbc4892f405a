"""Web pages with pictures among their text: OBELICS (Laurençon et al. 2023) and Multimodal C4 (Zhu et al. 2023)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, TableReader, existing, meta_of, within
from embodied.data.multimodal.readers.composing import references
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.huggingface import rows_at
from embodied.data.multimodal.readers.rows import JsonLines
from embodied.data.multimodal.sample import BrokenSample, Sample, image, message
from embodied.files import read_json

Where = Literal["before", "after"]


class Obelics(TableReader):
    """Rows with `images` and `texts`, lists of equal length of which exactly one is not null at each place.

    A row becomes a document: one assistant message, pictures and paragraphs in order. Pictures are `{"bytes", "path"}`,
    paths, or, as in the released files, URLs; a URL is looked up in `index`, or is the file named by its SHA-256 (with
    `.jpg`) in `images`. Nothing is downloaded.

    Args:
        path: JSON lines, a parquet file, a folder of them, or a folder written by `save_to_disk`.
        images: folder of downloaded pictures.
        index: JSON file `{url: path in images}`.
        max_images: pages with more pictures are broken; None for any number.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: a file or folder is missing or something else.
    """

    def __init__(
        self,
        path: str | Path,
        images: str | Path | None = None,
        index: str | Path | None = None,
        max_images: int | None = None,
        name: str = "obelics",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        path = Path(path)
        rows: Sequence[Any] = JsonLines(path) if path.suffix in (".jsonl", ".json") else rows_at(path, None)
        super().__init__(name, path, rows, on_error, look)
        self.folder = None if images is None else existing(images)
        self.files: Mapping[str, str] = {} if index is None else read_json(index)
        self.max_images = max_images

    def sample(self, record: Fields) -> Sample:
        name = str(record.number)
        pictures, texts = record.get("images"), record.get("texts")
        if not isinstance(pictures, list) or not isinstance(texts, list) or len(pictures) != len(texts):
            raise BrokenSample("wrong field", "'images' and 'texts' are lists of equal length", sample=name)
        parts: list[Any] = []
        for place, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            if (picture is None) == (text is None):
                raise BrokenSample("wrong field", f"place {place} should be either an image or a text", sample=name)
            if picture is not None:
                parts.append(image(self._reference(picture)))
            elif not isinstance(text, str):
                raise BrokenSample("wrong field", f"place {place} of 'texts' is a text, got {text!r:.40}", sample=name)
            elif text:
                parts.append(text)
        few_enough(len([p for p in parts if not isinstance(p, str)]), self.max_images)
        return Sample(name, [message("assistant", *parts)], self.name, meta_of(metadata=record.get("general_metadata")))

    def _reference(self, picture: Any) -> str:
        if not isinstance(picture, str) or "://" not in picture:
            return references(picture, self.folder)[0]
        if self.folder is None:
            raise BrokenSample("missing image", f"{picture:.100} is not on disk: give images, where it was downloaded")
        return within(self.folder, self.files.get(picture, hashlib.sha256(picture.encode()).hexdigest() + ".jpg"))


class MMC4(TableReader):
    """Lines with `text_list`, and `image_info` whose entries have `image_name` and `matched_text_index`.

    Each picture goes beside the sentence that it was matched with. Entries with `image_base64`, as in OpenFlamingo's
    shards, carry their picture; others are files in `images`.

    Args:
        file: JSON lines, unpacked (the release is zipped).
        images: folder of downloaded pictures.
        where: whether a picture stands `before` its sentence (OpenFlamingo) or `after` it.
        min_similarity: pictures whose `matched_sim` is lower are left out (OpenFlamingo: 0.24).
        max_images: pages with more pictures are broken; None for any number.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: a file or folder is missing, or a setting does not exist.
    """

    def __init__(
        self,
        file: str | Path,
        images: str | Path | None = None,
        where: Where = "before",
        min_similarity: float = 0.0,
        max_images: int | None = None,
        name: str = "mmc4",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        if where not in get_args(Where):
            raise ValueError(f"where is before or after, got {where!r}")
        super().__init__(name, file, JsonLines(file), on_error, look)
        self.folder = None if images is None else existing(images)
        self.where, self.min_similarity, self.max_images = where, min_similarity, max_images

    def sample(self, record: Fields) -> Sample:
        name, sentences = str(record.number), record.texts("text_list")
        beside: dict[int, list[dict[str, str]]] = defaultdict(list)
        for info in record.records("image_info"):
            if self.min_similarity and info.number_of("matched_sim") < self.min_similarity:
                continue
            place = info.whole("matched_text_index")
            if not 0 <= place < len(sentences):
                raise BrokenSample(
                    "wrong field",
                    f"'matched_text_index' is {place}, of sentences 0 to {len(sentences) - 1}",
                    sample=name,
                )
            beside[place].append(image(self._reference(info)))
        few_enough(sum(map(len, beside.values())), self.max_images)
        parts: list[Any] = []
        for place, sentence in enumerate(sentences):
            both: list[list[Any]] = [beside[place], [sentence] if sentence else []]
            parts += [part for some in (both if self.where == "before" else both[::-1]) for part in some]
        return Sample(name, [message("assistant", *parts)], self.name, meta_of(url=record.get("url")))

    def _reference(self, info: Fields) -> str:
        if "image_base64" in info:
            packed = info.text("image_base64")
            return packed if packed.startswith("data:") else f"data:{_kind(packed)};base64,{packed}"
        if self.folder is None:
            raise BrokenSample(
                "missing image", f"{info.text('image_name')} is not in the file: give images, where it was downloaded"
            )
        return within(self.folder, info.text("image_name"))


def few_enough(count: int, most: int | None) -> None:
    """Stop at a page with more pictures than wanted.

    Raises:
        BrokenSample: it has more.
    """
    if most is not None and count > most:
        raise BrokenSample("too many images", f"it has {count} images, more than {most}")


def _kind(packed: str) -> str:
    return "image/png" if packed.startswith("iVBOR") else "image/jpeg"
