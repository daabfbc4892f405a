"""A dataset through filters into a new one, with a report: `embodied-dataset action=clean`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from embodied.data.multimodal.faults import Faults
from embodied.data.multimodal.filters.base import Filter
from embodied.data.multimodal.filters.pipeline import Pipeline, Report
from embodied.data.multimodal.readers.base import Reader
from embodied.data.multimodal.readers.chat import NothingToWrite, write_chat
from embodied.data.multimodal.sample import Sample
from embodied.files import atomic_folder, write_json
from embodied.progress import Progress

SAMPLES, REPORT = "samples.jsonl", "report.json"


def clean(
    reader: Reader,
    filters: Mapping[str, Filter],
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    stream: TextIO | None = None,
) -> Report:
    """Write the samples that every filter keeps to `out/samples.jsonl`, and what became of the others to `report.json`.

    Pictures stay where they are; the folder appears when all is written. Broken samples are dealt with as the reader's
    `on_error` says.

    Args:
        reader: the dataset.
        filters: by name, in their order.
        out: folder to make.
        settings: what the report says the filters and the dataset were.
        stream: where progress is shown.

    Raises:
        ValueError: the folder holds something already, or nothing is left to write.
        BrokenSample: a sample is broken, and the reader is to stop there.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: give another out, or remove it")
    pipeline, progress = Pipeline(filters, reader.on_error), Progress(len(reader), "samples", stream=stream)

    def counted() -> Iterator[Sample]:
        for index, sample in reader.numbered():
            progress.advance(index + 1 - progress.done)
            yield sample
        if progress.done < len(reader):
            progress.advance(len(reader) - progress.done)

    with atomic_folder(out) as folder:
        try:
            write_chat(folder / SAMPLES, pipeline(counted()))
        except NothingToWrite:
            why = _why(pipeline.report, reader.faults)
            raise ValueError(f"none of {len(reader)} samples is left to write to {out}: {why}") from None
        report = pipeline.report.to_dict() | {"unreadable": reader.faults.to_dict(), "settings": dict(settings or {})}
        write_json(folder / REPORT, report)
    return pipeline.report


def _why(report: Report, unreadable: Faults) -> str:
    reasons = [f"{n} {reason}" for counted in report.removed.values() for reason, n in counted.most_common()]
    for faults in (report.faults, unreadable):
        reasons += [f"{n} {reason}" for reason, n in faults.reasons.most_common()]
    return ", ".join(reasons)
