"""Learning-rate schedules: transformers' own, as a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import SchedulerType, get_scheduler

from embodied.building import nearest

STATEFUL = {SchedulerType.REDUCE_ON_PLATEAU.value, "greedy"}


def make_schedule(
    name: str, max_steps: int, warmup: float = 0, options: Mapping[str, Any] | None = None
) -> Callable[[int], float]:
    """The factor on every learning rate at the update after `step` earlier ones.

    Args:
        name: as in `transformers.get_scheduler`: cosine, linear, constant, constant_with_warmup, ...
        max_steps: where the schedule ends.
        warmup: linear rise over this many steps, or, below 1, over this share of `max_steps`.
        options: further arguments of that schedule, such as `num_cycles`.

    Raises:
        ValueError: there is no such schedule, it depends on more than the step, or it objects to its options.
    """
    known = [kind.value for kind in SchedulerType if kind.value not in STATEFUL]
    if name not in known:
        raise ValueError(f"schedule.name: no '{name}'{nearest(name, known)}")
    if warmup < 0:
        raise ValueError(f"schedule.warmup is a number of steps or a share below 1, got {warmup}")
    rise = int(warmup * max_steps) if warmup < 1 else int(warmup)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    try:
        made = get_scheduler(name, optimizer, rise, max_steps, dict(options or {}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"schedule.options do not suit '{name}': {error}") from None
    factor: Callable[[int], float] = made.lr_lambdas[0]
    return factor
