"""Files of predictions and references, whatever their benchmark calls things, as records.

Files are JSON (a list, or a dict from ids), also gzipped, JSON lines, or tables with a header (.tsv, .csv). A sample of
this project's own datasets is a reference too: its last assistant turn is the `answer`, its `meta` is the rest.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from embodied.building import nearest
from embodied.evaluation.scorers.base import Record
from embodied.files import read_json

IDS = ("id", "question_id", "questionId", "image_id", "index", "sample_id", "key")
TEXTS = ("prediction", "answer", "text", "response", "caption", "output", "pred", "answers")
Row = tuple[str, Any]
"""Where a row stands, for messages, and what it is."""


class Unfit(ValueError):
    """One row cannot be used; a run may skip it."""


@dataclass
class Skipped:
    """What was left out, and why.

    Attributes:
        allowed: whether anything may be left out; else the first is an error.
        reasons: one line each.
    """

    allowed: bool = False
    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Note one; an error where nothing may be left out."""
        if not self.allowed:
            raise ValueError(f"{reason}; skip=true leaves such samples out and counts them")
        self.reasons.append(reason)


class References:
    """How a benchmark's file of questions and answers is read.

    Args:
        rows: the key of the file's list of rows, where the file is a dict that has more; null: the file is the rows.
        id: the key that names a row; a list joins several; null: the keys of a dict of rows, or the rows' places.
        fields: from the names a scorer needs to where they stand in a row: a key, a path (`image.width`, and `*` for
            each of a list: `answers.*.answer`), or a list of such of which the first that is there counts. Other keys
            of a row are kept under their own names.
        gather: names of fields to collect into lists over all rows of one id (COCO's five captions of a picture).
        options: keys that hold a choice's options, letters usually; those that are there become `options`.
        only: from a key to the value that a row must have there to be read at all, such as `split: test`.

    Raises:
        ValueError: on reading, a file of another format.
    """

    def __init__(
        self,
        rows: str | None = None,
        id: str | Sequence[str] | None = "id",
        fields: Mapping[str, str | Sequence[str]] | None = None,
        gather: Sequence[str] = (),
        options: Sequence[str] = (),
        only: Mapping[str, Any] | None = None,
    ) -> None:
        self.rows, self.id, self.fields, self.only = rows, id, dict(fields or {}), dict(only or {})
        self.gather, self.options = tuple(gather), tuple(options)

    def read(self, path: str | Path, skipped: Skipped) -> dict[str, tuple[str, dict[str, Any]]]:
        """By id, where a reference stands and what it is.

        Raises:
            ValueError: the file is of another format, or rows cannot be used and none may be skipped.
        """
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for where, row in read_rows(path, self.rows):
            if not self._wanted(row):
                continue
            try:
                name, reference = self._one(where, row)
            except Unfit as error:
                skipped.add(str(error))
                continue
            if name in found and self.gather:
                for key in self.gather:
                    found[name][1][key] += reference[key]
            elif name in found:
                skipped.add(f"{where}: sample {name} is there twice, first at {found[name][0]}")
            else:
                found[name] = (where, reference)
        if not found:
            only = "".join(f" with {key} = {value}" for key, value in self.only.items())
            raise ValueError(f"{path} holds no references{only}")
        return found

    def predictions(self, path: str | Path, skipped: Skipped) -> dict[str, tuple[str, Any]]:
        """By id, where a prediction stands and what it is; `prediction` says what of a row that is.

        Raises:
            ValueError: the file is of another format, or rows cannot be used and none may be skipped.
        """
        return read_predictions(path, self.id if isinstance(self.id, str) else None, skipped, self.prediction)

    def prediction(self, where: str, row: Any, name: str) -> Any:
        """What a prediction's row says: its text. Benchmarks that ask for something else read it here.

        Raises:
            Unfit: it says nothing that can be scored.
        """
        return _text(where, row, name)

    def _wanted(self, row: Any) -> bool:
        row = row[1] if isinstance(row, tuple) else row
        return not isinstance(row, dict) or all(row.get(key) == value for key, value in self.only.items())

    def _one(self, where: str, row: Any) -> tuple[str, dict[str, Any]]:
        key, row = row if isinstance(row, tuple) else (None, row)
        if not isinstance(row, dict):
            raise Unfit(f"{where} is no row with named fields")
        if isinstance(row.get("messages"), list):
            return self._sample(where, row)
        if self.id is None:
            name = key if key is not None else where.rpartition(" ")[2]
        else:
            keys = [self.id] if isinstance(self.id, str) else list(self.id)
            lacking = [part for part in keys if row.get(part) in (None, "")]
            if lacking and key is None:
                raise Unfit(f"{where} has no '{lacking[0]}'{nearest(lacking[0], list(row))}")
            name = key if lacking and key is not None else "/".join(str(row[part]) for part in keys)
        reference = {str(k): v for k, v in row.items() if k not in self.options}
        for field_name, place in self.fields.items():
            places = [place] if isinstance(place, str) else list(place)
            values = (dig(row, path) for path in places)
            value = next((value for value in values if value is not None), None)
            if value is None:
                raise Unfit(f"{where} (sample {name}) has no '{' or '.join(places)}'")
            reference[field_name] = [value] if field_name in self.gather and not isinstance(value, list) else value
        if self.options and "options" not in reference:
            reference["options"] = {k: row[k] for k in self.options if row.get(k) not in (None, "", "nan")}
        return str(name), reference

    def _sample(self, where: str, row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A sample of this project: the last assistant turn is the answer."""
        if row.get("id") in (None, ""):
            raise Unfit(f"{where} has no 'id'")
        meta = row.get("meta") or {}
        reference = dict(meta) if isinstance(meta, dict) else {}
        said = [turn for turn in row["messages"] if isinstance(turn, dict) and turn.get("role") == "assistant"]
        asked = [turn for turn in row["messages"] if isinstance(turn, dict) and turn.get("role") == "user"]
        if said:
            reference.setdefault("answer", text_of(said[-1]))
        if asked:
            reference.setdefault("question", text_of(asked[-1]))
        for name in self.gather:
            value = reference.get(name, reference.get("answer"))
            reference[name] = value if isinstance(value, list) else [value]
        return str(row["id"]), reference


def read_predictions(
    path: str | Path,
    id: str | Sequence[str] | None,
    skipped: Skipped,
    said: Callable[[str, Any, str], Any] | None = None,
) -> dict[str, tuple[str, Any]]:
    """By id, where a prediction stands and its text.

    Args:
        id: the key that names a row in this benchmark, or several of which the first that is there does; common
            others are understood too.
        said: from where a row stands, the row and its id to what is scored; its text if not given.

    Raises:
        ValueError: the file is of another format, or rows cannot be used and none may be skipped.
    """
    found: dict[str, tuple[str, Any]] = {}
    for where, name, text in _predictions(path, id, skipped, said or _text):
        if name in found:
            skipped.add(f"{where}: sample {name} is there twice, first at {found[name][0]}")
        else:
            found[name] = (where, text)
    return found


def read_pairs(
    predictions: str | Path,
    references: str | Path,
    format: References,
    skipped: Skipped,
    pair: Literal["id", "order"] = "id",
) -> list[Record]:
    """Predictions beside their references.

    Args:
        pair: by `id`, or the n-th with the n-th (`order`), where a benchmark's predictions carry no ids.

    Raises:
        ValueError: a file is of another format; a prediction is missing, unknown, empty or there twice and none may
            be skipped; the numbers differ where they are paired by order.
    """
    if pair not in ("id", "order"):
        raise ValueError(f"pair is id or order, got pair={pair}")
    if pair == "order":
        return _in_order(predictions, references, format, skipped)
    wanted = format.read(references, skipped)
    said = format.predictions(predictions, skipped)
    unknown = [name for name in said if name not in wanted]
    if unknown and not any(name in wanted for name in said):
        raise ValueError(f"no sample of {predictions} is in {references}: {unknown[0]} is not, for one")
    for name in unknown:
        skipped.add(f"{said[name][0]}: sample {name} is not in {references}")
    records = []
    for name, (where, reference) in wanted.items():
        if name not in said:
            skipped.add(f"{predictions} has no prediction for sample {name} ({where})")
        else:
            records.append(Record(name, said[name][1], reference, where))
    if not records:
        raise ValueError(f"nothing is left to score: all {len(skipped.reasons)} samples were skipped")
    return records


def _in_order(predictions: str | Path, references: str | Path, format: References, skipped: Skipped) -> list[Record]:
    rows = [(where, row) for where, row in read_rows(references, format.rows) if format._wanted(row)]
    said = list(read_rows(predictions))
    if len(rows) != len(said):
        raise ValueError(f"pair=order: {predictions} has {len(said)} rows, {references} has {len(rows)}")
    records: list[Record] = []
    seen: dict[str, int] = {}
    for (where, row), (there, prediction) in zip(rows, said, strict=True):
        try:
            name, reference = format._one(where, row)
            text = format.prediction(there, prediction[1] if isinstance(prediction, tuple) else prediction, name)
        except Unfit as error:
            skipped.add(str(error))
            continue
        seen[name] = seen.get(name, 0) + 1
        records.append(Record(name if seen[name] == 1 else f"{name}#{seen[name]}", text, reference, where))
    if not records:
        raise ValueError(f"nothing is left to score: all {len(skipped.reasons)} samples were skipped")
    return records


def _predictions(
    path: str | Path, id: str | Sequence[str] | None, skipped: Skipped, said: Callable[[str, Any, str], Any]
) -> Iterator[tuple[str, str, Any]]:
    own = [id] if isinstance(id, str) else list(id or ())
    for where, row in read_rows(path):
        try:
            if isinstance(row, tuple):
                key, row = row
                name = str(key)
            else:
                if not isinstance(row, dict):
                    raise Unfit(f"{where} is no row with an id and an answer")
                keys = [key for key in (*own, *IDS) if row.get(key) not in (None, "")]
                if not keys:
                    raise Unfit(f"{where} has no id ({', '.join(own or IDS[:4])})")
                name = str(row[keys[0]])
            yield where, name, said(where, row, name)
        except Unfit as error:
            skipped.add(str(error))


def _text(where: str, row: Any, name: str) -> str:
    """What a prediction's row says."""
    if isinstance(row, dict):
        keys = [key for key in TEXTS if key in row]
        if not keys:
            raise Unfit(f"{where} (sample {name}) has no prediction: one of {', '.join(TEXTS[:-1])} is needed")
        row = row[keys[0]]
    if isinstance(row, bool) or not isinstance(row, str | int | float):
        kind = {list: "a list", dict: "a dict", type(None): "null", bool: "true or false"}.get(type(row), "something")
        raise Unfit(f"{where}: the prediction for sample {name} is {kind}, not text")
    if not str(row).strip():
        raise Unfit(f"{where}: the prediction for sample {name} is empty")
    return str(row)


def read_rows(path: str | Path, within: str | None = None) -> Iterator[Row]:
    """Each row of a file, with where it stands; a dict's rows are tuples of their key and themselves.

    Args:
        within: the key that holds the rows.

    Raises:
        ValueError: the file is of another format; it is named.
        FileNotFoundError: it is missing.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a .json, .jsonl, .tsv or .csv file")
    if path.suffix in (".tsv", ".csv"):
        yield from _table(path)
        return
    if path.suffix in (".pkl", ".pickle"):
        raise ValueError(f"{path} is a pickle, which can run code when it is read: save it as JSON")
    if path.suffix != ".gz" and (path.suffix == ".jsonl" or _is_lines(path)):
        yield from _lines(path)
        return
    content = read_gzip(path) if path.suffix == ".gz" else read_json(path)
    if within is not None:
        if isinstance(content, dict) and within in content:
            content = content[within]
        elif not isinstance(content, list):
            keys = list(content) if isinstance(content, dict) else []
            raise ValueError(f"{path} is of another format: it has no '{within}'{nearest(within, keys[:8])}")
    if isinstance(content, list):
        for place, row in enumerate(content):
            yield f"{path}: row {place}", row
    elif isinstance(content, dict):
        for key, row in content.items():
            yield f"{path}: {key}", (str(key), row)
    else:
        raise ValueError(f"{path} is of another format: a list or a dict of samples is needed")


def read_gzip(path: str | Path) -> Any:
    """Read gzipped JSON.

    Raises:
        ValueError: the file is not gzip, was cut short, or holds no JSON; it is named.
        FileNotFoundError: it is missing.
    """
    try:
        return json.loads(gzip.decompress(Path(path).read_bytes()).decode())
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ValueError(f"{path} is no whole gzip file: it is damaged or was cut short") from None
    except ValueError as error:
        raise ValueError(f"{path} holds no valid JSON ({error})") from None


def text_of(turn: Mapping[str, Any]) -> str:
    """What a turn of a conversation says, without its pictures."""
    content = turn.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("type") == "text")


def dig(row: Any, path: str) -> Any:
    """What stands at a path, with `*` for each of a list; None where nothing does."""
    if not path:
        return row
    step, _, rest = path.partition(".")
    if step == "*":
        found = [dig(item, rest) for item in row] if isinstance(row, list) else []
        return found if found and None not in found else None
    if not isinstance(row, dict) or step not in row:
        return None
    return dig(row[step], rest)


def _is_lines(path: Path) -> bool:
    """Whether a file that calls itself JSON holds one object per line, as POPE's do."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first, second = file.readline(), file.readline()
    if not second.strip():
        return False
    try:
        return isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield f"{path}: line {number}", json.loads(line)
                    except json.JSONDecodeError as error:
                        raise ValueError(f"{path}: line {number} is not valid JSON ({error.msg})") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no text") from None


def _table(path: Path) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)  # pictures stand in some columns
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            for row in table:
                where = f"{path}: line {table.line_num}"
                if None in row or None in row.values():
                    raise ValueError(f"{where} has another number of fields than the header")
                yield where, dict(row)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no table ({error})") from None
