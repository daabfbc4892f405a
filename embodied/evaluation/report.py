"""One self-contained page per result (`report.html`)."""

from __future__ import annotations

from pathlib import Path


def write_report(out: str | Path) -> Path:
    """Write `<out>/report.html` from `<out>/eval_info.json`; returns its path."""
    raise NotImplementedError
