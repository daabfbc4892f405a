"""Is one policy better than another? Answered on the episodes that both were given, never by looking at two rates.

Results are paired by (task, seed): the same episode, so that its difficulty cancels. The first result is the baseline;
each of the others is compared with it by McNemar's exact test and a bootstrap interval of the difference, per task and
over all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embodied.evaluation.page import ranges
from embodied.evaluation.statistics import (
    MIN_DISCORDANT,
    McNemar,
    holm,
    mcnemar,
    paired_bootstrap,
    pairs_needed,
    wilson,
)

FORMAT = "embodied.compare/1"
ALPHA = 0.05
VIEW = frozenset(
    {"tasks", "cameras", "camera_positions", "height", "width", "observe", "depth", "renderer", "keep"}
    | {"shadows", "reflections", "samples"}
)
"""Arguments of an environment that decide what a policy sees or which tasks there are, not what an episode is."""

Episode = Mapping[str, Any]
Key = tuple[str, int | str]
"""Task and seed; of scored answers, benchmark and sample."""


def compare(
    infos: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    allow: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare results, as `read_eval_info` gives them, with the first of them.

    Args:
        infos: two or more results.
        names: what to call them.
        allow: go on although their environments differ; the differences become notes.
        resamples, seed: of the bootstrap.

    Returns:
        Plain JSON types: `baseline`, `comparisons` (each with `overall`, `per_task`, `verdict`, `notes`,
        `disagreements`). Rates and differences are in percent.

    Raises:
        ValueError: fewer than two results, no episode in common, or environments that differ.
    """
    if len(infos) < 2:
        raise ValueError("a comparison needs two or more results: embodied-compare runs/a/eval/x runs/b/eval/x")
    comparisons = [
        _one(infos[0], other, names[0], name, allow, resamples, seed)
        for other, name in zip(infos[1:], names[1:], strict=True)
    ]
    for comparison, p in zip(comparisons, holm([c["overall"]["p"] for c in comparisons]), strict=True):
        comparison["overall"]["p_holm"] = p
        comparison["verdict"] = _verdict(comparison, len(comparisons))
    return {"format": FORMAT, "baseline": names[0], "comparisons": comparisons}


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What makes episodes of the same seed different episodes: field, and both values."""
    left, right = a.get("env") or {}, b.get("env") or {}
    make, other = left.get("make"), right.get("make")
    if make is None or other is None:
        if left.get("name") != right.get("name"):
            yield "env.name", left.get("name"), right.get("name")
    else:
        for key in sorted((set(make) | set(other)) - VIEW):
            if make.get(key) != other.get(key):
                yield f"env.make.{key}", make.get(key), other.get(key)
    body, other_body = a.get("embodiment"), b.get("embodiment")
    if body and other_body:
        if body.get("rate") != other_body.get("rate"):
            yield "embodiment.rate", body.get("rate"), other_body.get("rate")
        action, other_action = body.get("action") or {}, other_body.get("action") or {}
        for key in sorted(set(action) | set(other_action)):
            if action.get(key) != other_action.get(key):
                yield f"embodiment.action.{key}", action.get(key), other_action.get(key)


def table(comparison: Mapping[str, Any]) -> str:
    """A comparison as lines of text: one per task, and one over all."""
    header = ["", "pairs", "A %", "B %", "B - A", "95 % interval", "only A", "only B", "p"]
    per_task = comparison["per_task"]
    named = [(row["task"], row) for row in per_task] if len(per_task) > 1 else []
    rows = [header]
    for name, row in [*named, ("all" if named else per_task[0]["task"], comparison["overall"])]:
        low, high = row["ci95"]
        rates = [f"{row['pc_success_a']:.1f}", f"{row['pc_success_b']:.1f}", f"{row['difference']:+.1f}"]
        counts = [str(row["only_a"]), str(row["only_b"]), f"{row['p']:.3g}"]
        rows.append([name, str(row["n"]), *rates, f"{low:+.1f} to {high:+.1f}", *counts])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _one(
    a: Mapping[str, Any], b: Mapping[str, Any], name_a: str, name_b: str, allow: bool, resamples: int, seed: int
) -> dict[str, Any]:
    of_a, of_b = _by_key(a, name_a), _by_key(b, name_b)
    notes = [f"{where} differs: {x!r} (A) against {y!r} (B)" for where, x, y in differing(a, b)]
    if notes and not allow:
        raise ValueError(
            f"{name_a} and {name_b} were not measured in the same environment: {notes[0]}; "
            "allow=true compares them anyway"
        )
    shared = sorted(set(of_a) & set(of_b))
    if not shared:
        raise ValueError(
            f"no episode in common: {name_a} has {_described(of_a)}, {name_b} has {_described(of_b)}; "
            "evaluate both on the same tasks with the same seed="
        )
    alone = [(name_a, len(of_a) - len(shared)), (name_b, len(of_b) - len(shared))]
    notes += [f"{count} episodes only {name} has are left out" for name, count in alone if count]
    notes += _versions_note(a, b)
    if any("scores" in info and {e["return"] for e in info["episodes"]} - {0, 1} for info in (a, b)):
        notes.append("scores are fractions: rates count answers that got more than a half")
    if [of_a[key] for key in shared] == [of_b[key] for key in shared]:
        notes.append("both results have the same episodes to the last step: is it the same policy twice?")
    tasks = sorted({task for task, _ in shared})
    per_task = []
    for task in tasks:
        keys = [key for key in shared if key[0] == task]
        per_task.append({"task": task, **_test(of_a, of_b, keys, resamples, seed)})
    for row, p in zip(per_task, holm([row["p"] for row in per_task]), strict=True):
        row["p_holm"] = p
    return {
        "a": name_a,
        "b": name_b,
        "overall": _test(of_a, of_b, shared, resamples, seed),
        "per_task": per_task,
        "notes": notes,
        "disagreements": [
            {"task": key[0], "seed": key[1], "winner": "a" if of_a[key]["success"] else "b"}
            | {f"video_{side}": episodes[key].get("video") for side, episodes in (("a", of_a), ("b", of_b))}
            for key in shared
            if bool(of_a[key]["success"]) != bool(of_b[key]["success"])
        ],
    }


def _test(
    of_a: Mapping[Key, Episode], of_b: Mapping[Key, Episode], keys: Sequence[Key], resamples: int, seed: int
) -> dict[str, Any]:
    """The statistics of some pairs. Rates are means over tasks, each weighing the same."""
    a, b = [bool(of_a[key]["success"]) for key in keys], [bool(of_b[key]["success"]) for key in keys]
    tasks = [key[0] for key in keys]
    test = mcnemar(a, b)
    interval = paired_bootstrap(a, b, tasks, resamples=resamples, seed=seed)
    rate_a, rate_b = _mean_of_tasks(a, tasks), _mean_of_tasks(b, tasks)
    found = {
        "n": test.n,
        "pc_success_a": 100 * rate_a,
        "pc_success_b": 100 * rate_b,
        "ci95_a": [100 * end for end in wilson(sum(a), len(a))],
        "ci95_b": [100 * end for end in wilson(sum(b), len(b))],
        "difference": 100 * (rate_b - rate_a),
        "ci95": [100 * interval.low, 100 * interval.high],
        "both": test.both,
        "only_a": test.only_a,
        "only_b": test.only_b,
        "neither": test.neither,
        "p": test.p,
        "pairs_needed": pairs_needed(test),
    }
    finite = [key for key in keys if of_a[key]["return"] is not None and of_b[key]["return"] is not None]
    if finite:
        x, y = [of_a[key]["return"] for key in finite], [of_b[key]["return"] for key in finite]
        labels = [key[0] for key in finite]
        ends = paired_bootstrap(x, y, labels, resamples=resamples, seed=seed)
        found["return_difference"] = _mean_of_tasks(y, labels) - _mean_of_tasks(x, labels)
        found["return_ci95"] = list(ends)
    return found


def _verdict(comparison: Mapping[str, Any], of: int) -> str:
    row, better = comparison["overall"], "B" if comparison["overall"]["difference"] > 0 else "A"
    test = McNemar(row["both"], row["only_a"], row["only_b"], row["neither"], row["p"])
    chance = f"McNemar p = {row['p']:.2g}" + (f", {row['p_holm']:.2g} for {of} comparisons" if of > 1 else "")
    if row["p_holm"] < ALPHA and row["difference"]:
        return f"{better} is better by {abs(row['difference']):.1f} points ({chance})"
    if test.discordant < MIN_DISCORDANT:
        return (
            f"Undecided: the two differ in {test.discordant} of {test.n} episodes, and fewer than {MIN_DISCORDANT} "
            "can never show which is better. More episodes are needed"
        )
    needed = row["pairs_needed"]
    more = f" A true difference of this size would take about {needed} episodes to show." if needed else ""
    return f"Undecided: no difference shown in {test.n} episodes ({chance}).{more}"


def _by_key(info: Mapping[str, Any], name: str) -> dict[Key, Episode]:
    found: dict[Key, Episode] = {}
    for episode in info["episodes"]:
        seed = episode["seed"]
        key = (str(episode["task"]), seed if isinstance(seed, str) else int(seed))
        if key in found:
            raise ValueError(f"{name} has two episodes of {key[0]} with seed {key[1]}: episodes cannot be paired")
        found[key] = episode
    return found


def _described(episodes: Mapping[Key, Episode]) -> str:
    tasks = sorted({task for task, _ in episodes})
    shown = ", ".join(tasks[:3]) + (f" and {len(tasks) - 3} more" if len(tasks) > 3 else "")
    named = next((seed for _, seed in episodes if isinstance(seed, str)), None)
    if named is not None:
        return f"{shown} with {len(episodes)} samples such as {named}"
    return f"{shown} with seeds {ranges((int(seed) for _, seed in episodes), 3)}"


def _versions_note(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    left, right = a.get("versions") or {}, b.get("versions") or {}
    simulators = ("mujoco", "metaworld", "pybullet", "gymnasium")
    return [
        f"{name} {left.get(name)} (A) against {right.get(name)} (B): episodes of the same seed may differ"
        for name in simulators
        if left.get(name) != right.get(name)
    ]


def _mean_of_tasks(values: Sequence[float] | Sequence[bool], tasks: Sequence[str]) -> float:
    groups: dict[str, list[float]] = {}
    for value, task in zip(values, tasks, strict=True):
        groups.setdefault(task, []).append(float(value))
    return sum(sum(group) / len(group) for group in groups.values()) / len(groups)
