"""Episodes per hour with slot refill against lock-step, 8 slots, side by side.

    python benchmarks/slot_refill.py                    # an environment whose steps wait, as for a simulator elsewhere
    python benchmarks/slot_refill.py --world metaworld  # Meta-World from pixels, which keeps the CPU busy

Three schedules run the same episodes with the same policy in the same worker processes, alternating:

- `refill`: `embodied.evaluation.rollout`, a slot takes the next episode the moment its own ends.
- `rest`: new episodes begin when all slots have ended; a slot that ended earlier rests.
- `lock-step`: as evaluators on vectorised environments do (LeRobot's `rollout` on gymnasium's vector environments):
  each step waits for all slots, and slots that have ended go on, reset automatically, until the last one has.

Their outcomes are compared before any time is printed. What can be gained is the longest episode of a batch over the
mean one. Where the processor is the limit and not the wait for simulators, slots that `rest` leave it to the others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

import gymnasium
import numpy as np

os.environ["EMBODIED_PLUGINS"] = "slot_refill"

from embodied.evaluation.policies import ExpertPolicy
from embodied.evaluation.rollout import Environments, Episode, rollout
from embodied.interaction import Policy, stack
from embodied.spec import ActionSpec, Camera, Embodiment
from embodied.workers import wait


class Waiting(gymnasium.Env):
    """Each step waits; an episode's length comes from its seed: 40 to 100 steps, or (failed) all 200."""

    tasks = ("wait",)
    max_steps = 200

    def __init__(self, step_ms: float = 10.0, failing: float = 0.3) -> None:
        self.seconds, self.failing = step_ms / 1000, failing
        action = ActionSpec(("x",), ("1",), (-1.0,), (1.0,))
        self.embodiment = Embodiment("waiting", action, None, (Camera("top", 96, 96, "none"),), 20.0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        random = np.random.default_rng(seed)
        self.failed = random.uniform() < self.failing
        self.length, self.steps = int(random.integers(40, 101)), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        time.sleep(self.seconds)
        self.steps += 1
        success = self.steps >= self.length and not self.failed
        return self._observation(), 0.0, success, self.steps >= self.max_steps, {"success": success}

    def _observation(self) -> dict[str, Any]:
        return {"observation.images.top": np.full((96, 96, 3), self.steps, np.uint8), "task": "wait"}


class Still(Policy):
    """Does nothing."""

    def reset(self, slots: int) -> None: ...

    def start(self, slot: int, seed: int, task: str) -> None: ...

    def act(self, observations: Any, slots: Any) -> np.ndarray:
        return np.zeros((len(slots), 1), np.float32)


class Unreliable(ExpertPolicy):
    """The expert, except that it stands still on about 3 of 10 seeds, until the episode is truncated."""

    def reset(self, slots: int) -> None:
        self.still = [False] * slots

    def start(self, slot: int, seed: int, task: str) -> None:
        self.still[slot] = bool(np.random.default_rng([seed, *task.encode()]).uniform() < 0.3)

    def act(self, observations: Any, slots: Any) -> np.ndarray:
        actions = super().act(observations, slots).copy()
        actions[[self.still[slot] for slot in slots]] = 0
        return actions


WORLDS: dict[str, tuple[dict[str, Any], type[Policy]]] = {
    "waiting": ({"name": "waiting", "make": {"_target_": "slot_refill.Waiting"}}, Still),
    "metaworld": (
        {
            "name": "metaworld",
            "make": {
                "_target_": "envs.mujoco.metaworld.MetaWorld",
                "tasks": ["button-press-topdown", "drawer-open", "reach", "door-open"],
                "height": 64,
                "width": 64,
                "max_steps": 200,
            },
            "expert": {"_target_": "envs.experts.metaworld.MetaWorldExpert"},
        },
        Unreliable,
    ),
}


def lock_step(policy: Policy, environments: Environments, episodes: list[Episode]) -> dict[Episode, tuple[bool, int]]:
    """Each step waits for all slots; those that have ended go on until the last one has."""
    workers = environments.workers
    outcomes: dict[Episode, tuple[bool, int]] = {}

    def answers(busy: list) -> list[dict[str, Any]]:
        waiting = list(busy)
        while waiting:
            arrived = wait(waiting)
            for worker in arrived:
                replies[worker] = worker.answer()
            waiting = [worker for worker in waiting if worker not in arrived]
        return [replies[worker] for worker in busy]

    replies: dict[Any, dict[str, Any]] = {}
    for start in range(0, len(episodes), len(workers)):
        batch = episodes[start : start + len(workers)]
        some = workers[: len(batch)]
        policy.reset(len(batch))
        for slot, ((task, seed), worker) in enumerate(zip(batch, some, strict=True)):
            policy.start(slot, seed, task)
            worker.ask("reset", seed=seed, task=task)
        current = answers(some)
        lengths, ended = [0] * len(batch), [False] * len(batch)
        while not all(ended):
            actions = policy.act(stack([reply["observation"] for reply in current]), range(len(batch)))
            for slot, worker in enumerate(some):
                over = current[slot].get("terminated") or current[slot].get("truncated")
                if over:  # what gymnasium's vector environments do by themselves
                    worker.ask("reset", seed=batch[slot][1], task=batch[slot][0])
                else:
                    worker.ask("step", action=np.clip(actions[slot], -1, 1))
            current = answers(some)
            for slot, reply in enumerate(current):
                if "reward" not in reply or ended[slot]:
                    continue
                lengths[slot] += 1
                if reply["terminated"] or reply["truncated"]:
                    ended[slot] = True
                    outcomes[batch[slot]] = (reply["success"], lengths[slot])
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS, default="waiting")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    env, kind = WORLDS[arguments.world]
    policy = kind()
    with Environments(env, arguments.slots, expert=kind is Unreliable) as environments:
        tasks = environments.tasks
        episodes = [(tasks[i % len(tasks)], i) for i in range(arguments.episodes)]

        def with_rollout(refill: bool) -> dict[Episode, tuple[bool, int]]:
            records = rollout(policy, environments, episodes, refill=refill)
            return {(record.task, record.seed): (record.success, record.length) for record in records}

        schedules = {
            "refill": lambda: with_rollout(True),
            "rest": lambda: with_rollout(False),
            "lock-step": lambda: lock_step(policy, environments, episodes),
        }
        rollout(policy, environments, episodes[: arguments.slots])  # warms up
        first: dict[Episode, tuple[bool, int]] = {}
        hourly: dict[str, list[float]] = {name: [] for name in schedules}
        for _ in range(arguments.rounds):
            for name, schedule in schedules.items():
                begun = time.perf_counter()
                outcomes = schedule()
                hourly[name].append(3600 * len(episodes) / (time.perf_counter() - begun))
                first = first or outcomes
                if outcomes != first:
                    sys.exit(f"{name} disagrees about the episodes: no times")
    lengths = [length for _, length in first.values()]
    batches = [lengths[i : i + arguments.slots] for i in range(0, len(lengths), arguments.slots)]
    bound = statistics.mean(max(batch) for batch in batches) / statistics.mean(lengths)
    won = sum(success for success, _ in first.values())
    print(f"{arguments.world}: {len(lengths)} episodes of {min(lengths)} to {max(lengths)} steps,", end=" ")
    print(f"{won} succeed, the same in all schedules; {arguments.slots} slots on {os.cpu_count()} cores,", end=" ")
    print(f"{arguments.rounds} alternating rounds, median (smallest to largest)")
    for name, values in hourly.items():
        print(f"  {name:10} {statistics.median(values):8.0f} episodes/hour ({min(values):.0f} to {max(values):.0f})")
    for name in ("rest", "lock-step"):
        ratios = [a / b for a, b in zip(hourly["refill"], hourly[name], strict=True)]
        print(f"refill / {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"longest of a batch / mean episode: {bound:.2f}")


if __name__ == "__main__":
    main()
