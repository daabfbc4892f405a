"""What every task checks when an episode begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from embodied.building import nearest


def seeded(env: Any, seed: int | None, options: Mapping[str, Any] | None) -> int:
    """Seed a task with a `name` and `tasks` as Gymnasium does; the seed of the episode, drawn where none is given.

    Raises:
        ValueError: another task than this one, an unknown option, a negative seed.
    """
    who = type(env).__name__
    if seed is not None and seed < 0:
        raise ValueError(f"{who}: a seed is 0 or more, got {seed}")
    gymnasium.Env.reset(env, seed=seed)
    unknown = set(options or {}) - {"task"}
    if unknown:
        raise ValueError(f"{who}: unknown reset option '{min(unknown)}'; there is task")
    task = (options or {}).get("task", env.name)
    if task != env.name:
        raise ValueError(f"this environment was not made for task '{task}'{nearest(task, env.tasks)}")
    return int(env.np_random.integers(2**31)) if seed is None else seed
