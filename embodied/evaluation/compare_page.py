"""The page of a comparison: the verdict, each task's difference, and the episodes that decide it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from embodied.evaluation.page import (
    command,
    facts,
    interval_rows,
    note,
    number,
    page,
    percent,
    section,
    table,
    text,
)


def compare_page(result: Mapping[str, Any], command_line: str, folder: str | Path) -> str:
    """The page of what `embodied.evaluation.compare.compare` returned.

    Args:
        result: the comparison.
        command_line: what made it.
        folder: where the page will lie; links to videos are relative to it.
    """
    body = [_one(comparison, Path(folder)) for comparison in result["comparisons"]]
    body.append(section("Made with", command(command_line)))
    return page(
        f"Comparison with {result['baseline']}", "\n".join(body), "All figures are in compare.json beside this page."
    )


def _one(comparison: Mapping[str, Any], folder: Path) -> str:
    row = comparison["overall"]
    low, high = row["ci95"]
    reach = max(abs(low), abs(high), 10.0)
    chart = interval_rows([("B − A", row["difference"], low, high, "")], -reach, reach, "points")
    sides = interval_rows([_side(comparison, "a"), _side(comparison, "b")])
    sign = "+" if row["difference"] > 0 else "−" if row["difference"] < 0 else ""
    head = (
        f'<p class="over">Comparison</p><h1>{text(comparison["verdict"])}</h1><div class="hero"><div class="card">'
        f'<p class="rate">{sign}{abs(row["difference"]):.1f}<small>points</small></p>'
        f'<p class="soft">B − A in success; 95 % interval {low:+.1f} to {high:+.1f} (paired bootstrap)</p></div>'
    )
    figures = facts(
        [
            ("Pairs", f"{row['n']:,}"),
            ("McNemar p, exact", f"{row['p']:.3g}"),
            ("Both succeed", str(row["both"])),
            ("Neither", str(row["neither"])),
            ("Only A", str(row["only_a"])),
            ("Only B", str(row["only_b"])),
        ]
    )
    parts = [
        f"<header>{head}{figures}</div></header>",
        sides,
        *map(note, comparison["notes"]),
    ]
    per_task = comparison["per_task"]
    if len(per_task) > 1:
        ends = [abs(end) for task in per_task for end in task["ci95"]]
        rows = [
            (task["task"], task["difference"], *task["ci95"], f"<strong>{task['difference']:+.1f}</strong>")
            for task in sorted(per_task, key=lambda t: t["difference"])
        ]
        about = "B − A in points of success, with 95 % bootstrap intervals; right of zero B is better."
        parts.append(section("Tasks", interval_rows(rows, -max([*ends, 10]), max([*ends, 10]), "points"), about))
        parts.append(f'<div class="card" style="margin-top:20px">{_task_table(per_task)}</div>')
    else:
        parts.append(section("Difference", chart))
    parts.append(_disagreements(comparison, folder))
    return "\n".join(parts)


def _side(comparison: Mapping[str, Any], side: str) -> tuple[str, float, float, float, str]:
    """One policy's own success rate, as a row of a chart."""
    rate, (low, high) = comparison["overall"][f"pc_success_{side}"], comparison["overall"][f"ci95_{side}"]
    said = f"<strong>{percent(rate)}</strong> ({low:.1f} to {high:.1f})"
    return f"{side.upper()}: {comparison[side]}", rate, low, high, said


def _task_table(per_task: list[Mapping[str, Any]]) -> str:
    header = ("Task", "Pairs", "A", "B", "Only A", "Only B", "p", "p, all tasks")
    rows = [
        (
            text(task["task"]),
            str(task["n"]),
            percent(task["pc_success_a"]),
            percent(task["pc_success_b"]),
            str(task["only_a"]),
            str(task["only_b"]),
            f"{task['p']:.3g}",
            f"{task['p_holm']:.3g}",
        )
        for task in per_task
    ]
    return table(header, rows, right=range(1, 8))


def _disagreements(comparison: Mapping[str, Any], folder: Path) -> str:
    rows = [
        (
            text(row["task"]),
            text(row["seed"]),
            "✓" if row["winner"] == "a" else "✗",
            "✓" if row["winner"] == "b" else "✗",
            _link(comparison["a"], row["video_a"], folder, "A")
            + " "
            + _link(comparison["b"], row["video_b"], folder, "B"),
        )
        for row in comparison["disagreements"][:200]
    ]
    if not rows:
        return ""
    count = len(comparison["disagreements"])
    about = f"{number(count)} episodes that one policy solved and the other did not: these alone decide."
    body = f'<div class="card">{table(("Task", "Seed", "A", "B", "Videos"), rows, right=(1,))}</div>'
    return section("Where they differ", body, about)


def _link(result: str, video: str | None, folder: Path, label: str) -> str:
    if not video:
        return ""
    path = Path(result)
    path = path.parent if path.suffix == ".json" else path
    return f'<a href="{text(quote(os.path.relpath(path / video, folder)))}">{label}</a>'
