"""One self-contained page per result (`report.html`): what was measured, how sure it is, and what it looked like.

Videos are referenced beside the page; everything else is inside it, so that the result folder can be moved or mailed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from embodied.evaluation.page import (
    command,
    duration,
    facts,
    histogram,
    interval_bar,
    interval_rows,
    note,
    number,
    page,
    pairs,
    percent,
    ranges,
    section,
    table,
    text,
)
from embodied.evaluation.results import FILE, read_eval_info
from embodied.files import write_text

REPORT = "report.html"
MANY = 300
"""Beyond this many episodes their tiles shrink to coloured squares."""
ACRONYMS = {"spl": "SPL", "ppl": "PPL", "ndtw": "nDTW", "sdtw": "SDTW"}
TELLING = ("spl", "ndtw", "progress", "distance_to_goal")
"""Measures that stand below a video."""


def write_report(out: str | Path) -> Path:
    """Write `<out>/report.html` from `<out>/eval_info.json`; returns its path.

    Raises:
        ValueError: there is no result in `out`, or it is damaged.
    """
    file = Path(out) / REPORT
    write_text(file, report(read_eval_info(out)))
    return file


def report(info: Mapping[str, Any]) -> str:
    """The page of a result."""
    policy, env = str(info.get("policy", "policy")), _env_name(info)
    body = [
        _head(info, policy, env),
        _hero(info),
        *map(note, warnings(info)),
        command(info["command"]) if info.get("command") else "",
        _tasks(info),
        _measures(info),
        _videos(info),
        _episodes(info["episodes"]),
        _distributions(info["episodes"]),
        _failures(info["episodes"]),
        _embodiment(info.get("embodiment")),
        _made_with(info),
    ]
    return page(f"{policy} on {env}", "\n".join(body), f"All figures are in {FILE} beside this page.")


def warnings(info: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing the headline."""
    overall, episodes = info["overall"], info["episodes"]
    low, high = overall["ci95"]
    found = []
    if high - low > 30:
        found.append(
            f"Only {overall['n_episodes']} episodes: the true success rate may lie anywhere between "
            f"{low:.0f} and {high:.0f} %. More episodes narrow this."
        )
    broken, clipped, steps = (
        sum(e.get(k) or 0 for e in episodes) for k in ("nan_actions", "clipped_actions", "length")
    )
    if broken:
        found.append(f"{broken:,} episodes ended with an action that was not finite: the policy is numerically broken.")
    if clipped > 0.01 * steps:
        found.append(f"{clipped:,} of {steps:,} actions left the bounds and were clipped.")
    unfinished = sum(bool(e.get("error")) for e in episodes)
    if unfinished:
        found.append(f"Episodes that could not be finished and count as failures: {unfinished}.")
    again = sum(e.get("retries") or 0 for e in episodes)
    if again:
        found.append(f"Simulator processes that died, their episodes run again from the start: {again}.")
    return found


def _head(info: Mapping[str, Any], policy: str, env: str) -> str:
    told = sorted({e.get("instruction") for e in info["episodes"] if e.get("instruction")})
    said = f'<p class="quote">“{text(told[0])}”</p>' if len(told) == 1 else ""
    return f'<header><p class="over">Evaluation</p><h1>{text(policy)} on {text(env)}</h1>{said}</header>'


def _hero(info: Mapping[str, Any]) -> str:
    overall, episodes = info["overall"], info["episodes"]
    rate, (low, high) = overall["pc_success"], overall["ci95"]
    won, n, tasks = overall["n_success"], overall["n_episodes"], len(info["per_task"])
    over = f" over {tasks} tasks" if tasks > 1 else ""
    headline = (
        f'<div class="card"><p class="rate">{rate:.1f}<small>%</small></p>'
        f'<p class="soft">{won} of {n} episodes succeeded{over}; 95 % interval {low:.1f} to {high:.1f} % (Wilson)</p>'
        f"{interval_bar(rate, low, high)}</div>"
    )
    at_once = info.get("num_envs")
    lengths = [e["length"] for e in episodes if e["success"]]
    thought = [e["inference_ms"] for e in episodes if e.get("inference_ms")]
    clipped, broken, steps = (
        sum(e.get(k) or 0 for e in episodes) for k in ("clipped_actions", "nan_actions", "length")
    )
    rows = [
        ("Episodes", f"{n:,}"),
        ("Seeds", text(ranges(info["seeds"], 2))),
        ("Steps to success", f"{number(sum(lengths) / len(lengths))} <small>mean</small>" if lengths else "–"),
        ("Return", f"{number(overall['avg_sum_reward'])} <small>mean</small>"),
        ("Actions clipped", f"{clipped:,} <small>of {steps:,}</small>"),
        ("Actions not finite", f"{broken:,}"),
        ("Policy per step", f"{number(sum(thought) / len(thought), 2)} <small>ms</small>" if thought else "–"),
        ("Wall time" + (f", {at_once} at once" if at_once else ""), duration(overall["eval_s"])),
    ]
    return f'<div class="hero">{headline}{facts(rows)}</div>'


def _tasks(info: Mapping[str, Any]) -> str:
    tasks = sorted(info["per_task"], key=lambda t: (-t["pc_success"], t["task"]))
    if len(tasks) < 2:
        return ""
    overall = info["overall"]
    rows = [
        (t["task"], t["pc_success"], *t["ci95"], f"<strong>{percent(t['pc_success'])}</strong> of {t['n_episodes']}")
        for t in tasks
    ]
    low, high = overall["mean_task_ci95"]
    about = (
        f"Mean over tasks, each weighing the same: {percent(overall['mean_task_pc_success'])} "
        f"({low:.1f} to {high:.1f} %). Bars are 95 % Wilson intervals."
    )
    return section("Tasks", interval_rows(rows), about)


def _measures(info: Mapping[str, Any]) -> str:
    """What the environment says episodes came to, beside success."""
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for episode in info["episodes"]:
        tasks.setdefault(episode["task"], []).append(episode.get("measures") or {})
    rows = []
    for task, measured in tasks.items():
        for name in dict.fromkeys(name for measures in measured for name in measures if name != "success"):
            values = [measures[name] for measures in measured if measures.get(name) is not None]
            if not values:
                continue
            figures = (sum(values) / len(values), median(values), min(values), max(values))
            cells = (_named(name), *(number(figure, 3) for figure in figures), text(len(values)))
            rows.append((*([text(task)] if len(tasks) > 1 else []), *cells))
    if not rows:
        return ""
    header = (*(["Task"] if len(tasks) > 1 else []), "Measure", "Mean", "Median", "Lowest", "Highest", "Episodes")
    right = tuple(range(len(header) - 5, len(header)))
    about = "Over all episodes, failed ones too, as the environment measures them; distances in metres."
    return section("Measures", f'<div class="card">{table(header, rows, right=right)}</div>', about)


def _named(measure: str) -> str:
    """`soft_spl` as `Soft SPL`."""
    words = [ACRONYMS.get(word, word) for word in measure.split("_")]
    return text(" ".join([words[0] if words[0] in ACRONYMS.values() else words[0].capitalize(), *words[1:]]))


def _videos(info: Mapping[str, Any]) -> str:
    filmed = [e for e in info["episodes"] if e.get("video")]
    if not filmed:
        return ""
    several = len(info["per_task"]) > 1
    still = any(e.get("still") for e in filmed)
    wide = " wide" if still or len((info.get("embodiment") or {}).get("cameras") or ()) > 1 else ""
    clips = "".join(_clip(episode, several, wide) for episode in filmed)
    about = "Point at one to play it." + (" Beside it: the maps as the episode ended." if still else "")
    return section("Videos", f'<div class="clips">{clips}</div>', about)


def _clip(episode: Mapping[str, Any], named: bool, wide: str) -> str:
    task = f"<p>{text(episode['task'])}</p>" if named else ""
    still, mapped = "", ""
    if episode.get("still"):
        what = f"the maps of seed {episode['seed']} as it ended"
        still, mapped = f'<img src="{_url(episode["still"])}" alt="{text(what)}" loading="lazy">', " mapped"
    shown = {name: value for name, value in (episode.get("measures") or {}).items() if name in TELLING}
    came = "".join(f"<span>{_named(name)} {number(value, 2)}</span>" for name, value in shown.items())
    return (
        f'<div class="clip {_outcome(episode)}{wide}{mapped}"><div class="seen">'
        f'<video src="{_url(episode["video"])}#t=0.01" muted loop playsinline preload="metadata"></video>{still}</div>'
        f'<p><span class="mark">{_sign(episode)}</span>'
        f"<span>seed {text(episode['seed'])}</span>{came}<span>{text(episode['length'])} steps</span></p>{task}</div>"
    )


def _episodes(episodes: Sequence[Mapping[str, Any]]) -> str:
    by_task: dict[str, list[str]] = {}
    for episode in episodes:
        by_task.setdefault(episode["task"], []).append(_tile(episode))
    size = "episodes tiny" if len(episodes) > MANY else "episodes"
    filters = "".join(
        f'<input type="radio" name="only" id="{key}"{" checked" if key == "only-all" else ""}>'
        f'<label for="{key}">{label}</label>'
        for key, label in {"only-all": "All", "only-failed": "Failed", "only-won": "Succeeded"}.items()
    )
    groups = "".join(
        (f'<p class="taskname">{text(task)}</p>' if len(by_task) > 1 else "")
        + f'<div class="{size}">{"".join(tiles)}</div>'
        for task, tiles in by_task.items()
    )
    about = "One tile per episode: its seed, and how many steps it took."
    return section("Episodes", f'<div class="filter">{filters}</div>{groups}', about)


def _tile(episode: Mapping[str, Any]) -> str:
    words = "success" if episode["success"] else "failed"
    hint = f"{episode['task']}, seed {episode['seed']}: {words} after {episode['length']} steps, "
    hint += f"return {number(episode['return'])}"
    tag, link = ("a", f' href="{_url(episode["video"])}"') if episode.get("video") else ("span", "")
    inside = f"{text(episode['seed'])}<small>{_sign(episode)} {text(episode['length'])}</small>"
    return f'<{tag} class="ep {_outcome(episode)}"{link} title="{text(hint)}">{inside}</{tag}>'


def _distributions(episodes: Sequence[Mapping[str, Any]]) -> str:
    def split(key: str) -> tuple[list[float], list[float]]:
        kept = [e for e in episodes if e[key] is not None]
        return [e[key] for e in kept if e["success"]], [e[key] for e in kept if not e["success"]]

    charts = histogram("Length", *split("length"), "steps") + histogram("Return", *split("return"))
    legend = '<p><span class="legend"><i></i>success</span><span class="legend"><i class="bad"></i>failed</span></p>'
    return section("How long, how much", f'{legend}<div class="two">{charts}</div>')


def _failures(episodes: Sequence[Mapping[str, Any]]) -> str:
    failed = [e for e in episodes if not e["success"]]
    if not failed:
        return ""
    shown, longest = failed[:60], max(e["length"] for e in episodes)
    rows = [
        (
            text(e["task"]),
            text(e["seed"]),
            text(e["length"]),
            number(e["return"]),
            text(e.get("clipped_actions") or 0),
            text(e.get("error") or (_why(e, longest))),
            f'<a href="{_url(e["video"])}">video</a>' if e.get("video") else "",
        )
        for e in shown
    ]
    header = ("Task", "Seed", "Steps", "Return", "Clipped", "Why", "")
    about = f"{len(failed)} of {len(episodes)} episodes" + (
        f"; the first {len(shown)}" if len(failed) > len(shown) else ""
    )
    return section("Failures", f'<div class="card">{table(header, rows, right=(1, 2, 3, 4))}</div>', about + ".")


def _why(episode: Mapping[str, Any], longest: int) -> str:
    if episode.get("error"):
        return str(episode["error"])
    if episode.get("nan_actions"):
        return "actions were not finite"
    return "out of steps" if episode["length"] >= longest else "ended early"


def _embodiment(body: Mapping[str, Any] | None) -> str:
    if not body:
        return ""
    action, state = body["action"], body.get("state")
    conventions = [("Robot", body["name"]), ("Rate", f"{number(body['rate'], 2)} Hz"), ("Control", action["control"])]
    conventions += [("Space", action["space"]), ("Frame", action["frame"]), ("Rotation", action["rotation"])]
    gripper = action["gripper"]
    if gripper is not None:
        conventions.append(("Gripper", f"{action['names'][gripper]}: {action['gripper_closed']:+d} closes"))
    if state:
        conventions.append(
            ("State", ", ".join(f"{n} [{u}]" for n, u in zip(state["names"], state["units"], strict=True)))
        )
    for camera in body["cameras"]:
        depth = ", depth" if camera["depth"] else ""
        conventions.append(
            (f"Camera {camera['name']}", f"{camera['width']} × {camera['height']}{depth}, {camera['renderer']}")
        )
    rows = [
        (text(name), text(unit), number(low, 4), number(high, 4))
        for name, unit, low, high in zip(action["names"], action["units"], action["low"], action["high"], strict=True)
    ]
    both = f'<div class="card"><h3>Conventions</h3>{pairs(conventions)}</div>'
    both += f'<div class="card"><h3>Action</h3>{table(("Name", "Unit", "Low", "High"), rows, right=(2, 3))}</div>'
    return section("Embodiment", f'<div class="two">{both}</div>')


def _made_with(info: Mapping[str, Any]) -> str:
    known = [(name, version) for name, version in (info.get("versions") or {}).items() if version]
    config = json.dumps(info.get("config"), indent=2, ensure_ascii=False)
    whole = f"<details><summary>The whole configuration</summary><pre>{text(config)}</pre></details>"
    return section("Made with", f'<div class="card">{pairs(known)}</div>{whole if info.get("config") else ""}')


def _env_name(info: Mapping[str, Any]) -> str:
    return str((info.get("env") or {}).get("name", "an environment"))


def _outcome(episode: Mapping[str, Any]) -> str:
    return "won" if episode["success"] else "fail"


def _sign(episode: Mapping[str, Any]) -> str:
    return "✓" if episode["success"] else "✗"


def _url(path: str) -> str:
    """A relative reference: no scheme can come of it, whatever the file's name."""
    return text("./" + quote(str(path).lstrip("/")))
