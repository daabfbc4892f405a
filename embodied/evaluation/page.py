"""The pieces that result pages are made of: one frame, tables, and charts drawn as inline SVG.

Everything that comes from a result is escaped here, so that a task's name or an error cannot become part of the page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

import embodied


def page(title: str, body: str, footer: str) -> str:
    """A whole self-contained page; `body` and `footer` are HTML, `title` is text."""
    folder = files("embodied.evaluation")
    frame = Template((folder / "report.html").read_text(encoding="utf-8"))
    style = (folder / "report.css").read_text(encoding="utf-8")
    footer = f"{footer} Made by embodied {text(embodied.__version__)}."
    return frame.substitute(title=text(title), style=style, body=body, footer=footer)


def text(value: Any) -> str:
    """Text, escaped; a dash for nothing."""
    return "–" if value is None or value == "" else html.escape(str(value), quote=True)


def number(value: float | None, digits: int = 1) -> str:
    """`1234.5` as `1,234.5`, without needless zeros; a dash for nothing."""
    if value is None:
        return "–"
    shown = f"{value:,.{digits}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def percent(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """`75` as `1 min 15 s`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ranges(numbers: Iterable[int], most: int = 6) -> str:
    """`0, 1, 2, 7` as `0–2, 7`."""
    spans: list[list[int]] = []
    for value in sorted(set(numbers)):
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    shown = [str(low) if low == high else f"{low}–{high}" for low, high in spans]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more ranges" if len(shown) > most else "")


def section(title: str, body: str, about: str = "") -> str:
    lead = f'<p class="soft small">{text(about)}</p>' if about else ""
    return f"<section><h2>{text(title)}</h2>{lead}{body}</section>"


def note(message: str) -> str:
    return f'<p class="note">{text(message)}</p>'


def command(line: str) -> str:
    return f'<div class="card command"><code>{text(line)}</code><button data-copy>Copy</button></div>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Short figures with their names; the figures are HTML."""
    return '<dl class="card facts">' + "".join(f"<div><dt>{text(k)}</dt><dd>{v}</dd></div>" for k, v in rows) + "</dl>"


def pairs(rows: Iterable[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><td>{text(key)}</td><td>{text(value)}</td></tr>" for key, value in rows)
    return f'<table class="pairs">{cells}</table>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; columns listed in `right` hold numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = (' class="n"' if i in right else "" for i in range(len(cells)))
        return "<tr>" + "".join(f"<{tag}{k}>{c}</{tag}>" for k, c in zip(kinds, cells, strict=True)) + "</tr>"

    return f'<div class="scroll"><table>{row(header, "th")}{"".join(row(cells, "td") for cells in rows)}</table></div>'


def interval_bar(value: float, low: float, high: float) -> str:
    """A rate in percent with its interval on a scale from 0 to 100."""
    return (
        f'<div class="interval" role="img" aria-label="{percent(value)}, interval {percent(low)} to {percent(high)}">'
        f'<i style="left:{low:.2f}%;width:{high - low:.2f}%"></i><b style="left:{value:.2f}%"></b></div>'
        f'<div class="scale">{_ticks(0, 100, "%")}</div>'
    )


def interval_rows(
    rows: Sequence[tuple[str, float, float, float, str]], low: float = 0.0, high: float = 100.0, unit: str = "%"
) -> str:
    """One row per name: a point with its interval on a common scale, and what it says in words.

    Args:
        rows: name, value, interval's low and high end, and HTML for the last column.
        low, high: ends of the scale.
    """

    def at(value: float) -> float:
        return 1000 * (min(max(value, low), high) - low) / (high - low)

    zero = f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="-4" y2="22"/>' if low < 0 < high else ""
    parts = []
    for name, value, left, right, said in rows:
        parts.append(
            f'<span class="name">{text(name)}</span>'
            f'<svg viewBox="0 0 1000 18" preserveAspectRatio="none" aria-hidden="true">'
            f'<line class="track" x1="0" x2="1000" y1="9" y2="9" vector-effect="non-scaling-stroke"/>{zero}'
            f'<line class="range" x1="{at(left):.1f}" x2="{at(right):.1f}" y1="9" y2="9" '
            f'stroke-width="8" stroke-linecap="butt" vector-effect="non-scaling-stroke"/>'
            f'<rect class="point" x="{at(value) - 3:.1f}" y="1" width="6" height="16" rx="2"/></svg>'
            f'<span class="value">{said}</span>'
        )
    axis = f'<span class="blank"></span><div class="scale">{_ticks(low, high, unit)}</div><span class="blank"></span>'
    return f'<div class="card rows">{"".join(parts)}{axis}</div>'


def _ticks(low: float, high: float, unit: str) -> str:
    """Five labels, each centred below its own place on the scale."""
    places = ((share, low + (high - low) * share) for share in (0, 0.25, 0.5, 0.75, 1))
    return "".join(
        f'<span style="left:{100 * share:.0f}%">{number(value, 0)}{" " + unit if share == 1 else ""}</span>'
        for share, value in places
    )


def histogram(title: str, good: Sequence[float], bad: Sequence[float], unit: str = "") -> str:
    """Counts of successes stacked on failures, as an SVG with its title; empty where there are no numbers."""
    values = [*good, *bad]
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(np.ceil(2 * len(values) ** (1 / 2)), 5, 24))
    counts = [np.histogram(part, bins=bins, range=(low, high))[0] for part in (bad, good)]
    top = int(max((counts[0] + counts[1]).max(), 1))
    width, height, left, base = 520, 210, 30, 180
    step, scale = (width - left) / bins, (base - 14) / top
    bars = []
    for i in range(bins):
        floor = float(base)
        for kind, count in zip(("bad", "good"), counts, strict=True):
            if count[i]:
                tall = count[i] * scale
                where = f'x="{left + i * step + 1:.1f}" y="{floor - tall:.1f}"'
                bars.append(f'<rect class="{kind}" {where} width="{step - 2:.1f}" height="{tall:.1f}" rx="2"/>')
                floor -= tall
    marks = [f'<text x="{left - 8}" y="{base - top * scale + 4:.0f}" text-anchor="end">{top}</text>']
    marks.append(f'<line class="rule" x1="{left}" x2="{width}" y1="{base}" y2="{base}"/>')
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        label = number(low + share * (high - low), 0 if high - low > 20 else 2) + (f" {unit}" if share == 1 else "")
        x = left + share * (width - left)
        marks.append(f'<text x="{x:.0f}" y="{base + 20}" text-anchor="{anchor}">{text(label)}</text>')
    drawing = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(title)}">{"".join(bars + marks)}</svg>'
    return f'<div class="card"><h3>{text(title)}</h3>{drawing}</div>'
