"""A sweep (`-m`) leaves one table: what varied, what came of it, and what failed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.files import read_json, write_json, write_text

FILE = "sweep_job.json"


def write_job(folder: Path, overrides: Sequence[str], results: Mapping[str, Any], error: str | None = None) -> None:
    """Record one job of a sweep in its own folder: its overrides, its scalar results, and why it failed if it did."""
    scalars = {key: _plain(value) for key, value in results.items() if isinstance(value, int | float | str | bool)}
    write_json(folder / FILE, {"overrides": list(overrides), "results": scalars, "error": error})


def forget_jobs(folder: Path) -> None:
    """Remove the records of an earlier sweep in the same folder, and nothing else of it."""
    for file in folder.glob(f"*/{FILE}"):
        file.unlink()


def write_table(folder: Path) -> tuple[str, int]:
    """One Markdown and one CSV table over the jobs of a sweep (`sweep.md`, `sweep.csv` in `folder`).

    Returns:
        The Markdown, and how many jobs failed.
    """
    files = sorted(folder.glob(f"*/{FILE}"), key=lambda f: int(f.parent.name) if f.parent.name.isdigit() else -1)
    jobs = [read_json(file) for file in files]
    if not jobs:
        return f"no job of the sweep in {folder} ended", 0
    swept = [dict(o.split("=", 1) for o in job["overrides"] if "=" in o) for job in jobs]
    keys = list(dict.fromkeys(key for s in swept for key in s))
    varied = [key for key in keys if len({s.get(key) for s in swept}) > 1] or keys[:3]
    results = list(dict.fromkeys(key for job in jobs for key in job["results"]))
    failed = sum(job["error"] is not None for job in jobs)
    header = ["job", *varied, *results, *(["error"] if failed else [])]
    rows = [
        [file.parent.name, *(s.get(key, "") for key in varied), *(_shown(job["results"].get(key)) for key in results)]
        + ([job["error"] or ""] if failed else [])
        for file, s, job in zip(files, swept, jobs, strict=True)
    ]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [header, ["---"] * len(header), *rows]]
    markdown = "\n".join("| " + " | ".join(row) + " |" for row in escaped)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([header, *rows])
    write_text(folder / "sweep.md", markdown + "\n")
    write_text(folder / "sweep.csv", table.getvalue())
    return markdown, failed


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
