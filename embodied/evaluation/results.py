"""What an evaluation leaves on disk: `eval_info.json`, a superset of LeRobot's, that a claim can be checked against.

| key | what |
|---|---|
| `per_task`, `per_group`, `overall` | LeRobot's: successes, rewards, `pc_success` (percent); `ci95` (percent), counts |
| `ci95` | Wilson's 95 % interval of the overall success rate, percent |
| `seeds` | the seeds, sorted, without repeats |
| `episodes` | one record per episode: `task`, `seed`, `success`, `return`, `length`, counters, `video` |
| `env`, `policy`, `embodiment` | what was measured, on what body |
| `config`, `command`, `versions` | how to measure it again |

Counted are actions that were clipped (`clipped_actions`) or not finite (`nan_actions`), and episodes that ended for
another reason than the environment's own (`failed_to_finish`).

Episodes are sorted by task and seed, so that the file does not depend on which of them ended first. JSON has no NaN: a
reward that is not finite is written as null, counted in `nonfinite_rewards`, and left out of the means.

Where an environment measures more than success (`info["measures"]`, such as SPL), episodes and summaries have
`measures`, by name; a mean is over the episodes, and left out where one of them lacks it.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import embodied
from embodied.evaluation.statistics import mean_over_tasks, wilson
from embodied.files import read_json, write_json
from embodied.spec import Embodiment

FILE = "eval_info.json"
FORMAT = "embodied.eval/1"
PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "metaworld", "pybullet", "transformers", "diffusers", "accelerate")


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode, as it went.

    Attributes:
        task, seed: together they say which episode it was; no two records of a result share them.
        success: whether `info["success"]` was ever true.
        sum_reward: the sum of its rewards (`return` on disk); max_reward: the largest.
        length: steps taken.
        group: the family the task belongs to (`metaworld`); LeRobot's `task_group`.
        instruction: what the policy was told.
        nan_actions: actions that were not finite; the first ends the episode as a failure.
        clipped_actions: steps whose action was outside the bounds and was clipped.
        retries: how often the episode was started again after its worker died.
        seconds: wall time. inference_ms: mean time per step that the policy took, its share of the batch.
        video: path relative to the result folder; None where none was made.
        still: the same of a picture of what environment and policy drew last (`embodied.interaction.Drawings`).
        error: why the episode could not be finished; it then counts as a failure. None where it could.
        measures: what else the environment says the episode came to (`info["measures"]`: SPL, ...), by name.
        prediction, reference: rows for `embodied-score`, where the environment has them; see `write_rows`.
    """

    task: str
    seed: int
    success: bool
    sum_reward: float
    max_reward: float
    length: int
    group: str = ""
    instruction: str = ""
    nan_actions: int = 0
    clipped_actions: int = 0
    retries: int = 0
    seconds: float = 0.0
    inference_ms: float = 0.0
    video: str | None = None
    error: str | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    prediction: Mapping[str, Any] | None = None
    reference: Mapping[str, Any] | None = None
    still: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "task": self.task,
            "seed": int(self.seed),
            "success": bool(self.success),
            "return": _finite(self.sum_reward),
            "max_reward": _finite(self.max_reward),
            "length": int(self.length),
            "group": self.group,
            "instruction": self.instruction,
            "nan_actions": int(self.nan_actions),
            "clipped_actions": int(self.clipped_actions),
            "retries": int(self.retries),
            "seconds": _finite(self.seconds),
            "inference_ms": _finite(self.inference_ms),
            "video": self.video,
            "error": self.error,
            **({"still": self.still} if self.still else {}),
            **({"measures": {name: _finite(value) for name, value in self.measures.items()}} if self.measures else {}),
        }


def write_eval_info(
    out: str | Path,
    records: Sequence[EpisodeRecord],
    *,
    policy: str,
    env: Mapping[str, Any],
    embodiment: Embodiment | None,
    config: Mapping[str, Any],
    eval_s: float,
    command: str | None = None,
    num_envs: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `<out>/eval_info.json`, atomically.

    Args:
        out: the result folder.
        records: every episode that was asked for.
        policy: what was evaluated, as the command named it.
        env: `name` and `make` of the environment's config.
        embodiment: the environment's.
        config: the resolved config, plain containers.
        eval_s: wall time of all episodes, seconds.
        command: the exact command line; this process's where None.
        num_envs: how many ran at once.
        extra: more to record, under keys that are not taken yet.

    Returns:
        What was written.

    Raises:
        ValueError: no records, or two of the same task and seed.
    """
    if not records:
        raise ValueError("an evaluation without episodes has no result")
    records = sorted(records, key=lambda r: (r.group, r.task, r.seed))
    for one, other in itertools.pairwise(records):
        if (one.group, one.task, one.seed) == (other.group, other.task, other.seed):
            raise ValueError(f"two episodes of {one.task} have seed {one.seed}: each (task, seed) is evaluated once")
    by_task: dict[tuple[str, str], list[EpisodeRecord]] = {}
    by_group: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        by_task.setdefault((record.group, record.task), []).append(record)
        by_group.setdefault(record.group, []).append(record)
    overall = _summary(records)
    mean, interval = mean_over_tasks({task: [r.success for r in rows] for task, rows in by_task.items()})
    info = {
        "format": FORMAT,
        "policy": policy,
        "env": dict(env),
        "num_envs": num_envs,
        "per_task": [
            {
                "task_group": group,
                "task_id": index,
                "task": task,
                "metrics": {
                    "sum_rewards": [_finite(r.sum_reward) for r in rows],
                    "max_rewards": [_finite(r.max_reward) for r in rows],
                    "successes": [bool(r.success) for r in rows],
                    "video_paths": [r.video for r in rows if r.video],
                },
                **_summary(rows),
            }
            for index, ((group, task), rows) in enumerate(by_task.items())
        ],
        "per_group": {group: _summary(rows) for group, rows in by_group.items()},
        "overall": overall
        | {
            "mean_task_pc_success": 100 * mean,
            "mean_task_ci95": [100 * interval.low, 100 * interval.high],
            "eval_s": _finite(eval_s),
            "eval_ep_s": _finite(eval_s / len(records)),
        },
        "ci95": overall["ci95"],
        "seeds": sorted({int(r.seed) for r in records}),
        "episodes": [record.to_dict() for record in records],
        "embodiment": None if embodiment is None else strict(embodiment.to_dict()),
        "config": strict(config),
        "command": command if command is not None else command_line(),
        "versions": versions(),
    }
    for key, value in (extra or {}).items():
        assert key not in info, f"eval_info.json already has a '{key}'"
        info[key] = strict(value)
    write_json(Path(out) / FILE, info)
    return info


def write_rows(out: str | Path, records: Sequence[EpisodeRecord]) -> bool:
    """Write `<out>/predictions.json` and `references.json`, which `embodied-score` reads; whether there are any.

    References are `{"episodes": [...]}` as habitat-lab has them where they have an `episode_id`, else a list, in which
    what several episodes share (a path with several instructions) stands once.
    """
    rows = [(r.prediction, r.reference) for r in records if r.prediction is not None and r.reference is not None]
    if not rows:
        return False
    references: list[Any] = []
    for _, reference in rows:
        if (plain := strict(reference)) not in references[-3:]:
            references.append(plain)
    write_json(Path(out) / "predictions.json", [strict(prediction) for prediction, _ in rows])
    habitat = all("episode_id" in reference for reference in references)
    write_json(Path(out) / "references.json", {"episodes": references} if habitat else references)
    return True


def read_eval_info(path: str | Path) -> dict[str, Any]:
    """A result, from its folder or from the file itself.

    Of scored answers (`embodied.evaluation.scorers.result`) each is an episode: its task is the benchmark, its seed the
    sample's id, its return the score, and it is a success where that is more than a half.

    Raises:
        ValueError: there is none, it is damaged, or it has no per-episode outcomes with seeds.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        inside = sorted(str(found.parent) for found in path.glob(f"eval/*/{FILE}")) if path.is_dir() else []
        hint = f"; it has the results {', '.join(inside)}" if inside else ""
        raise ValueError(f"no evaluation result at {path}: {file} does not exist{hint}")
    info = read_json(file)
    if isinstance(info, dict) and isinstance(info.get("samples"), list) and "scores" in info:
        return info | {"episodes": _answers_as_episodes(info, file)}
    if not isinstance(info, dict) or "overall" not in info:
        raise ValueError(f"{file} is not an evaluation result: it has no 'overall'")
    episodes = info.get("episodes")
    if not isinstance(episodes, list) or not episodes:
        raise ValueError(f"{file} has no 'episodes': outcomes with seeds are needed, and it was written without them")
    for number, episode in enumerate(episodes):
        lacking = [key for key in ("task", "seed", "success", "return", "length") if key not in episode]
        if lacking:
            raise ValueError(f"{file}: episode {number} has no {', '.join(lacking)}")
    return info


def _answers_as_episodes(info: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    episodes = []
    for sample in info["samples"]:
        score = sample.get("score")
        if not isinstance(score, int | float):
            raise ValueError(f"{file}: sample {sample.get('id')} has no score of its own, so answers cannot be paired")
        episodes.append(
            {"task": info["name"], "seed": sample["id"], "success": score > 0.5, "return": score, "length": 1}
        )
    if not episodes:
        raise ValueError(f"{file} has no samples")
    return episodes


def versions() -> dict[str, str | None]:
    """What the numbers were made with: packages, Python, machine, and the code's git commit if there is one."""
    found: dict[str, str | None] = {
        "embodied": embodied.__version__,
        "git": git_commit(),
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"platform": platform.platform()}


def git_commit() -> str | None:
    """The commit this code was checked out from, with `+` where files were changed since; None outside a checkout."""
    root = Path(embodied.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        ask = {"cwd": root, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **ask).stdout.strip()  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def command_line() -> str:
    """The command this process was started with, to paste into a shell."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def strict(value: Any) -> Any:
    """The same in JSON's own types: numbers that are not finite become null, paths and the rest become text."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return _finite(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _summary(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    won, n = sum(bool(r.success) for r in records), len(records)
    low, high = wilson(won, n)
    return {
        "pc_success": 100 * won / n,
        "ci95": [100 * low, 100 * high],
        "n_success": won,
        "n_episodes": n,
        "avg_sum_reward": _mean([r.sum_reward for r in records]),
        "avg_max_reward": _mean([r.max_reward for r in records]),
        "avg_length": sum(int(r.length) for r in records) / n,
        "clipped_actions": sum(int(r.clipped_actions) for r in records),
        "nan_actions": sum(int(r.nan_actions) for r in records),
        "failed_to_finish": sum(r.error is not None for r in records),
        "nonfinite_rewards": sum(not math.isfinite(r.sum_reward) for r in records),
        "video_paths": [r.video for r in records if r.video],
        **({"measures": averages} if (averages := _averages(records)) else {}),
    }


def _averages(records: Sequence[EpisodeRecord]) -> dict[str, float | None]:
    """Means of the measures that every episode has."""
    names = [name for name in records[0].measures if all(name in record.measures for record in records)]
    return {name: _mean([record.measures[name] for record in records]) for name in names}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    kept = [value for value in values if math.isfinite(value)]
    return float(sum(kept)) / len(kept) if kept else None
