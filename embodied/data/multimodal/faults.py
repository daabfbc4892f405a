"""What was wrong with samples that were left out: how many, why, in which files, and some of them in full."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, get_args

from embodied.data.multimodal.sample import BrokenSample

OnError = Literal["raise", "skip"]
EXAMPLES = 3
"""How many messages are kept for each reason."""

FILES = 1000
"""How many files are counted by name; faults of further ones are counted together, so that memory is bounded."""

OTHERS = "other files"


def check_on_error(on_error: str) -> None:
    """Stop where a policy is none.

    Raises:
        ValueError: it is neither `raise` nor `skip`.
    """
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error is raise (stop at a broken sample) or skip (count it and go on), got {on_error!r}")


class Faults:
    """Broken samples, counted by reason and by file; the same sample is counted once, however often it is met.

    Attributes:
        reasons: how many samples have each kind of fault.
        files: how many faults each file has.
        examples: by reason, the messages of the first few.
    """

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.files: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._met: set[int] = set()

    def note(self, fault: BrokenSample, source: str = "") -> None:
        """Count a fault of a sample of `source`."""
        key = hash((source, fault.file, fault.sample, str(fault)))
        if key in self._met:
            return
        self._met.add(key)
        self.reasons[fault.reason] += 1
        name = fault.file or source
        self.files[name if name in self.files or len(self.files) < FILES else OTHERS] += 1
        kept = self.examples.setdefault(fault.reason, [])
        if len(kept) < EXAMPLES:
            kept.append(str(fault))

    @property
    def total(self) -> int:
        """How many samples were left out."""
        return sum(self.reasons.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: `{total, reasons, files, examples}`, most frequent first."""
        return {
            "total": self.total,
            "reasons": dict(self.reasons.most_common()),
            "files": dict(self.files.most_common()),
            "examples": {reason: list(kept) for reason, kept in self.examples.items()},
        }

    def __str__(self) -> str:
        """`3 samples left out: 2 missing image, 1 empty answer (train.json: 3)`; empty where there are none."""
        if not self.total:
            return ""
        why = ", ".join(f"{n} {reason}" for reason, n in self.reasons.most_common())
        files = [f"{file}: {n}" for file, n in self.files.most_common(3)]
        more = [f"and {len(self.files) - 3} more files"] if len(self.files) > 3 else []
        return f"{self.total} samples left out: {why} ({', '.join(files + more)})"
