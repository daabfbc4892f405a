"""What scoring leaves on disk: `eval_info.json` with every figure, interval and sample, and `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.evaluation.page import (
    command,
    facts,
    interval_rows,
    note,
    number,
    page,
    pairs,
    percent,
    section,
    table,
    text,
)
from embodied.evaluation.results import FILE, command_line, strict, versions
from embodied.evaluation.scorers.base import Metric, Scores
from embodied.files import write_json, write_text

FORMAT = "embodied.score/1"
REPORT = "report.html"
SHOWN = 200
"""How many samples the page lists; all are in the JSON file."""


def write_scores(
    out: str | Path,
    scores: Scores,
    *,
    name: str,
    config: Mapping[str, Any],
    skipped: Sequence[str] = (),
    skipped_count: int | None = None,
    prompt: str | None = None,
    generation: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write both files, each whole or not at all.

    Args:
        out: the result folder.
        scores: what the scorer found.
        name: of the profile or task.
        config: the resolved config.
        skipped: why samples were left out, one line each.
        skipped_count: how many were, where `skipped` holds examples only.
        prompt, generation, model: how the answers were made: the prompt's form, the settings of the generation, and
            the model with its chat template; None where answers came from a file, which does not say.

    Returns:
        What was written to `eval_info.json`.
    """
    headline, best = scores.headline
    info: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "headline": headline,
        "n": best.n,
        "scores": {key: metric.to_dict() for key, metric in scores.metrics.items()},
        "groups": {
            group: {key: metric.to_dict() for key, metric in metrics.items()}
            for group, metrics in scores.groups.items()
        },
        "notes": list(scores.notes),
        "skipped": {"count": len(skipped) if skipped_count is None else skipped_count, "reasons": list(skipped)},
        "prompt": prompt,
        "generation": None if generation is None else strict(generation),
        "model": None if model is None else strict(model),
        "tools": strict(scores.tools),
        "samples": [strict(sample) for sample in scores.samples],
        "config": strict(config),
        "command": command_line(),
        "versions": versions(),
    }
    write_json(Path(out) / FILE, info)
    write_text(Path(out) / REPORT, score_page(info))
    return info


def stated(metric: Metric | Mapping[str, Any]) -> str:
    """A figure with its interval, in words: `87.5 % (95 % interval 52.9 to 97.8)`."""
    plain = metric.to_dict() if isinstance(metric, Metric) else metric
    rate = plain["unit"] == "rate"
    value = percent(100 * plain["value"]) if rate else number(plain["value"], 3)
    if plain["ci95"] is None:
        return value
    low, high = plain["ci95"]
    ends = f"{100 * low:.1f} to {100 * high:.1f}" if rate else f"{number(low, 3)} to {number(high, 3)}"
    return f"{value} (95 % interval {ends})"


def score_page(info: Mapping[str, Any]) -> str:
    """The page of a result, as `write_scores` returned it."""
    head = info["scores"][info["headline"]]
    shown = (f"{100 * head['value']:.1f}", "%") if head["unit"] == "rate" else (number(head["value"], 3), "")
    about = stated(head).partition("(")[2].rstrip(")")
    hero = (
        f'<p class="over">Scores</p><h1>{text(info["name"])}</h1><div class="hero"><div class="card">'
        f'<p class="rate">{text(shown[0])}<small>{shown[1]}</small></p>'
        f'<p class="soft">{text(info["headline"])}{"; " + text(about) if about else ""}</p></div>'
    )
    figures = facts(
        [
            ("Samples", f"{len(info['samples']):,}"),
            ("Skipped", str(info["skipped"]["count"])),
            ("Interval", text(head["interval"])),
            ("Model", text((info["model"] or {}).get("name") or "answers from a file")),
        ]
    )
    parts = [f"<header>{hero}{figures}</div></header>", *map(note, info["notes"])]
    if info["skipped"]["count"]:
        parts.append(
            note(f"{info['skipped']['count']} samples were left out; the first: {info['skipped']['reasons'][0]}")
        )
    parts.append(section("Figures", f'<div class="card">{_figures(info["scores"])}</div>'))
    if info["groups"]:
        parts.append(section("Parts", _groups(info)))
    parts.append(section("Samples", f'<div class="card">{_samples(info["samples"])}</div>', _samples_about(info)))
    made = [
        ("prompt", info["prompt"]),
        ("generation", _plain(info["generation"])),
        ("chat template", (info["model"] or {}).get("template")),
        ("scored with", _plain(info["tools"])),
        ("versions", _plain(info["versions"])),
    ]
    rows = [(name, value) for name, value in made if value]
    parts.append(section("Made with", command(info["command"]) + f'<div class="card">{pairs(rows)}</div>'))
    return page(f"{info['name']}: {stated(head)}", "\n".join(parts), f"All figures are in {FILE} beside this page.")


def _figures(scores: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (text(name), text(stated(metric)), str(metric["n"]), text(metric["interval"]))
        for name, metric in scores.items()
    ]
    return table(("Figure", "Value", "n", "Interval"), rows, right=(2,))


def _groups(info: Mapping[str, Any]) -> str:
    """A chart where every part has the headline as a rate with an interval; a table of all its figures always."""
    names = list(next(iter(info["groups"].values())))
    chart = ""
    first = {group: metrics.get(names[0]) for group, metrics in info["groups"].items()}
    if all(metric and metric["unit"] == "rate" and metric["ci95"] for metric in first.values()):
        chart = interval_rows(
            [
                (
                    group,
                    100 * m["value"],
                    100 * m["ci95"][0],
                    100 * m["ci95"][1],
                    f"<strong>{percent(100 * m['value'])}</strong>",
                )
                for group, m in first.items()
                if m
            ]
        )
    rows = [
        (
            text(group),
            *(text(stated(metrics[name])) if name in metrics else "–" for name in names),
            str(metrics[names[0]]["n"]),
        )
        for group, metrics in info["groups"].items()
    ]
    listed = table(("Part", *map(text, names), "n"), rows, right=(len(names) + 1,))
    return f'{chart}<div class="card" style="margin-top:20px">{listed}</div>'


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    keys = [key for key in samples[0] if key not in ("id", "prediction", "score")] if samples else []
    worst = sorted(samples, key=lambda sample: (sample.get("score") is not None, sample.get("score") or 0.0))[:SHOWN]
    rows = []
    for sample in worst:
        made = [text(_short(sample.get(key))) for key in ("prediction", *keys)]
        rows.append([text(sample["id"]), *made, text(number(sample.get("score"), 3))])
    return table(("Sample", "Answer", *map(text, keys), "Score"), rows, right=(len(keys) + 2,))


def _samples_about(info: Mapping[str, Any]) -> str:
    count = len(info["samples"])
    return f"The {SHOWN} with the lowest scores of {count:,}." if count > SHOWN else "Lowest scores first."


def _short(value: Any, most: int = 240) -> str:
    shown = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None) if value else ""
