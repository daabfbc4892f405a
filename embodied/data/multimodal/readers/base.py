"""What every reader of a multi-modal dataset is: samples by number in a fixed order; what happens to broken ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from embodied.data.multimodal.faults import Faults, OnError, check_on_error
from embodied.data.multimodal.media import load_frames, load_image, reachable
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.sample import BrokenSample, Sample

Look = Literal["nothing", "present", "decoded"]


class Reader(ABC):
    """Samples of one dataset by number, in the order of its files, whichever process asks.

    A reader implements `__len__` and `read`. Its files are looked through once, when it is made: a file that is missing
    or of another format stops it there. A record that is broken stops nothing until it is asked for.

    Args:
        name: the dataset's, which its samples carry as `source`.
        on_error: what iterating does about a broken sample: `raise` stops, `skip` counts it in `faults` and goes on.
            Asking for one by its number always raises.
        look: how closely pictures and films are looked at when a sample is read: at `nothing`, only whether they are
            `present`, or whether they can be `decoded`, which costs what decoding costs.

    Attributes:
        faults: what was skipped.

    Raises:
        ValueError: a setting that does not exist.
    """

    def __init__(self, name: str, on_error: OnError = "raise", look: Look = "nothing") -> None:
        check_on_error(on_error)
        if look not in get_args(Look):
            raise ValueError(f"look is one of {', '.join(get_args(Look))}, got {look!r}")
        self.name, self.on_error, self.look = name, on_error, look
        self.faults = Faults()

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are, broken ones included."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Sample `index`, 0 <= index < len(self).

        Raises:
            BrokenSample: it cannot be used.
        """

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; its pictures were looked at as `look` says.

        Raises:
            IndexError: there is no such number.
            BrokenSample: it cannot be used.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has samples 0 to {len(self) - 1}, not {index}")
        sample = self.read(index)
        if self.look != "nothing":
            examine(sample, decode=self.look == "decoded")
        return sample

    def __iter__(self) -> Iterator[Sample]:
        """All samples in order; broken ones as `on_error` says."""
        return (sample for _, sample in self.numbered())

    def numbered(self, start: int = 0) -> Iterator[tuple[int, Sample]]:
        """As iterating, each with its number, from `start` on."""
        for index in range(start, len(self)):
            try:
                sample = self[index]
            except BrokenSample as fault:
                if self.on_error == "raise":
                    raise
                self.faults.note(fault, self.name)
                continue
            yield index, sample


class TableReader(Reader):
    """A reader of records that are all known once its files are read.

    A subclass hands its records over and makes a sample of one in `sample`.

    Args:
        name, on_error, look: see `Reader`.
        file: that the records came from, for messages.
        rows: the records, such as `Rows` or `JsonLines` of `embodied.data.multimodal.readers.rows`.
    """

    def __init__(
        self, name: str, file: str | Path, rows: Sequence[Any], on_error: OnError = "raise", look: Look = "nothing"
    ) -> None:
        super().__init__(name, on_error, look)
        self.file, self.rows = str(file), rows

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Sample:
        try:
            return self.sample(Fields(self.rows[index], index))
        except BrokenSample as fault:
            raise fault.at(self.file, index) from None

    @abstractmethod
    def sample(self, record: Fields) -> Sample:
        """The sample that a record describes.

        Raises:
            BrokenSample: it describes none.
        """


def examine(sample: Sample, decode: bool) -> None:
    """Look at the pictures and films of a sample.

    Raises:
        BrokenSample: one is missing, or cannot be decoded.
    """
    for reference in sample.images():
        if decode:
            load_image(reference, sample.id)
        else:
            reachable(reference, "image", sample.id)
    for reference in sample.videos():
        if decode:
            load_frames(reference, count=2, spread="ends", sample=sample.id)
        else:
            reachable(reference, "video", sample.id)


def within(folder: str | Path, name: str) -> str:
    """The path of a file that a dataset names, in the folder where its files are.

    Raises:
        BrokenSample: the name leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BrokenSample("wrong field", f"'{name}' leads out of {folder}, the folder of its pictures")
    return str(Path(folder) / name)


def existing(folder: str | Path, what: str = "pictures") -> Path:
    """A folder that has to be there.

    Raises:
        ValueError: it is not.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}, the folder of the {what}, does not exist")
    return Path(folder)


def meta_of(**entries: Any) -> dict[str, Any]:
    """The entries that have a value."""
    return {key: value for key, value in entries.items() if value not in (None, "", [])}


def most_common(answers: Sequence[str]) -> str:
    """The answer that most people gave; the first of those that equally many gave.

    Raises:
        BrokenSample: there is none, or it is empty.
    """
    given = [answer for answer in answers if answer.strip()]
    if not given:
        raise BrokenSample("empty answer", "it has no answer, or only empty ones")
    return max(dict.fromkeys(given), key=given.count)


def lettered(options: Sequence[str]) -> str:
    """`A. first` and so on, one per line."""
    return "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options))


def mapping_of(content: Any, file: str | Path, what: str, *keys: str) -> Mapping[str, Any]:
    """A file's content, which has to be a mapping with these keys.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(content, Mapping) or any(key not in content for key in keys):
        wanted = f" with {', '.join(repr(key) for key in keys)}" if keys else ""
        raise ValueError(f"{file} is not {what}: it should be a mapping{wanted}")
    return content
