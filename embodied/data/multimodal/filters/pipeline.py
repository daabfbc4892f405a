"""Filters one after the other, and a report of what each of them left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from embodied.data.multimodal.faults import Faults, OnError, check_on_error
from embodied.data.multimodal.filters.base import Filter, Opened
from embodied.data.multimodal.sample import BrokenSample, Sample

EXAMPLES = 5
"""How many ids of samples are kept for each reason."""


class Report:
    """What a pipeline did.

    Attributes:
        seen, kept: samples.
        removed: by filter, by reason: how many.
        examples: by filter, by reason: ids of the first few.
        faults: samples that could not be looked at.
    """

    def __init__(self, filters: Iterable[str]) -> None:
        self.seen = self.kept = 0
        self.removed: dict[str, Counter[str]] = {name: Counter() for name in filters}
        self.examples: dict[str, dict[str, list[str]]] = {name: {} for name in self.removed}
        self.faults = Faults()

    def note(self, name: str, reason: str, sample: Sample) -> None:
        """A filter left a sample out."""
        self.removed[name][reason] += 1
        kept = self.examples[name].setdefault(reason, [])
        if len(kept) < EXAMPLES:
            kept.append(f"{sample.source}/{sample.id}" if sample.source else sample.id)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        filters = {
            name: {
                "removed": reasons.total(),
                "reasons": {
                    reason: {"removed": count, "examples": self.examples[name][reason]}
                    for reason, count in reasons.most_common()
                },
            }
            for name, reasons in self.removed.items()
        }
        return {"seen": self.seen, "kept": self.kept, "filters": filters, "broken": self.faults.to_dict()}

    def __str__(self) -> str:
        """A table: filter, how many it left out and of how many that reached it, reasons, an example."""
        lines = [f"{'filter':<24}{'reached':>10}{'removed':>10}  reasons"]
        left = self.seen - self.faults.total
        for name, reasons in self.removed.items():
            why = ", ".join(f"{n} {reason} ({self.examples[name][reason][0]})" for reason, n in reasons.most_common())
            lines.append(f"{name:<24}{left:>10}{reasons.total():>10}  {why}".rstrip())
            left -= reasons.total()
        lines.append(f"{'kept':<24}{self.kept:>10} of {self.seen}")
        return "\n".join(lines + ([str(self.faults)] if self.faults.total else []))


class Pipeline:
    """Lets through the samples that every filter keeps, one at a time and in their order.

    Args:
        filters: by name, in the order they are asked; cheap ones first, because the first to refuse decides.
        on_error: what to do about a sample that cannot be looked at: `raise`, or `skip` and count it.

    Attributes:
        report: of the last run, up to where it is.

    Raises:
        ValueError: there are no filters, or something else among them.
    """

    def __init__(self, filters: Mapping[str, Filter], on_error: OnError = "skip") -> None:
        check_on_error(on_error)
        if not filters:
            raise ValueError("a pipeline needs at least one filter")
        for name, one in filters.items():
            if not isinstance(one, Filter):
                raise ValueError(f"filter '{name}' is a {type(one).__name__}, not a Filter")
        self.filters, self.on_error = dict(filters), on_error
        self.report = Report(self.filters)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples that stay. What the filters remember of earlier runs counts on.

        Raises:
            BrokenSample: one cannot be looked at, and `on_error` is `raise`.
        """
        self.report = report = Report(self.filters)
        for sample in samples:
            report.seen += 1
            opened = Opened(sample)
            try:
                refused = next(self._refusals(opened), None)
                if refused is None:
                    for one in self.filters.values():
                        one.remember(opened)
            except BrokenSample as fault:
                if self.on_error == "raise":
                    raise
                report.faults.note(fault.at(sample=sample.id), sample.source)
                continue
            if refused is not None:
                report.note(*refused, sample)
                continue
            report.kept += 1
            yield sample

    def _refusals(self, opened: Opened) -> Iterator[tuple[str, str]]:
        for name, one in self.filters.items():
            why = one.refuse(opened)
            if why is not None:
                yield name, why
