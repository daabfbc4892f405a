"""Expert demonstrations in a simulator -> a LeRobot v3.0 dataset.

Worker processes run whole episodes and stage them; the main process only decides which seeds are run and puts the
dataset together at the end. Which episodes are in it, in which order, does not depend on how many workers there were,
which of them was faster, or how often the collection was killed and started again:

- Episode i of a task has seed `seed + i`. A seed whose expert fails is left out (`only_success`) and the next one is
  tried: a task's episodes are its first N seeds that succeed.
- A seed is tried only while those before it may not suffice: the seeds tried are those a single worker would try.
- A staged episode is there whole or not at all. Seeds that failed are noted in `meta/failures.jsonl`.

With `noise`, what is executed is the expert's action plus Gaussian noise, and what is stored is the expert's action:
the demonstrations visit states the expert would avoid, and show how to come back (DART, Laskey et al. 2017).

With `policy`, an agent acts and the expert says at each step what it would have done, which is what is stored (DAgger,
Ross et al. 2011): the demonstrations visit the states that the agent's own mistakes lead to. Episodes that fail are
kept, since the expert's actions are right in them too. With `stored="policy"` it is what the policy itself does: a
policy that searches, say, is a better teacher of searching than an expert who knows where everything is.
"""

from __future__ import annotations

import inspect
import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import numpy as np

from embodied.building import build, find_class
from embodied.data.lerobot import begin, finalize, stage_episode
from embodied.files import only_one, write_text
from embodied.interaction import Policy, stack
from embodied.progress import Progress
from embodied.spec import ACTION, TASK, Embodiment, pair
from embodied.workers import EXPERT_ACTION, EnvironmentHost, Pool, Worker, WorkerDied, WorkerError, wait, within_bounds

FAILURES = "meta/failures.jsonl"
STRIDE = 1_000_000
"""Episode i of the k-th task has number k * STRIDE + i."""
ATTEMPTS_PER_DEATH = 3


class Source(Protocol):
    """Where a policy comes from; `embodied.evaluation.policies.PolicySource` is one."""

    @property
    def folder(self) -> Path | None:
        """An agent's files."""

    @property
    def node(self) -> Mapping[str, Any] | None:
        """How another policy is built."""

    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON."""


class Demonstrator:
    """Runs expert episodes and stages them; lives in a worker.

    Args:
        make, expert: config nodes of the environment and its expert.
        root: the dataset's folder.
        noise: standard deviation of the noise on executed actions, as a fraction of half the range of each dimension;
            the gripper's dimension has none, since a dropped object is no state to learn from.
        only_success: whether failed episodes are left out.
        policy: what acts instead of the expert, the `folder` of an agent or the `node` of another; None: nothing does.
        mix: the share of steps at which the expert acts nevertheless.
        stored: whose actions are stored, the `expert`'s or the `policy`'s.
    """

    def __init__(
        self,
        make: Mapping,
        expert: Mapping | None,
        root: str,
        noise: float,
        only_success: bool,
        policy: Mapping[str, Any] | None = None,
        mix: float = 0.0,
        stored: Literal["expert", "policy"] = "expert",
    ) -> None:
        self.host = EnvironmentHost(make, expert if stored == "expert" else None)
        self.root, self.noise, self.only_success, self.mix = root, noise, only_success, mix
        self.close = self.host.close
        self.describe = self.host.describe
        self.policy = None if policy is None else _loaded(policy, self.host.embodiment)

    def demonstrate(self, number: int, task: str, seed: int) -> dict[str, Any]:
        """Run the episode (task, seed) and stage it under `number`; its `success` and `length`."""
        columns: dict[str, list[Any]] = {}
        random = np.random.default_rng([seed, zlib.crc32(task.encode())])
        reply = self.host.reset(seed, task)
        instruction = str(reply["observation"].get(TASK, ""))
        if self.policy is not None:
            self.policy.reset(1)
            self.policy.start(0, seed, task)
        length, clipped, success, ended = 0, 0, False, False
        while not ended:
            observation = reply["observation"]
            wanted = observation.pop(EXPERT_ACTION, None)
            own = None if self.policy is None else self.policy.act(stack([observation]), [0])[0]  # it sees every step
            wanted = np.asarray(own if wanted is None else wanted)
            if not np.isfinite(wanted).all():
                raise ValueError(f"the action to be stored of step {length} is not finite")
            label = within_bounds(wanted, self.host.embodiment)
            clipped += not np.allclose(label, wanted, rtol=0, atol=1e-5)
            chosen = label
            if own is not None and random.random() >= self.mix:
                chosen = within_bounds(own, self.host.embodiment)
            observation.pop(TASK, None)
            reply = self.host.step(self._disturbed(chosen, random))
            for key, value in observation.items():
                columns.setdefault(key, []).append(value)
            columns.setdefault(ACTION, []).append(label)
            columns.setdefault("next.reward", []).append(np.float32(reply["reward"]))
            columns.setdefault("next.success", []).append(reply["success"])
            length, success = length + 1, success or reply["success"]
            ended = reply["terminated"] or reply["truncated"] or length >= self.host.env.max_steps
        if success or not self.only_success:
            frames = {key: np.stack(values) for key, values in columns.items()}
            total = float(np.sum(frames["next.reward"]))
            record = {"task": task, "seed": seed, "success": success, "length": length, "return": total}
            record |= {"clipped": clipped}
            stage_episode(self.root, number, frames, task=instruction, record=record)
        return {"success": success, "length": length, "clipped": clipped}

    def _disturbed(self, action: np.ndarray, random: np.random.Generator) -> np.ndarray:
        spec = self.host.embodiment.action
        if self.noise == 0:
            return action
        reach = (np.asarray(spec.high) - np.asarray(spec.low)) / 2
        disturbance = self.noise * reach * random.standard_normal(spec.dim)
        if spec.gripper is not None:
            disturbance[spec.gripper] = 0
        return within_bounds(action + disturbance, self.host.embodiment)


def _loaded(policy: Mapping[str, Any], body: Embodiment) -> Policy:
    if policy.get("node"):
        takes = "embodiment" in inspect.signature(find_class(str(policy["node"]["_target_"]))).parameters
        made: Policy = build(policy["node"], **({"embodiment": body} if takes else {}))
    else:
        from embodied.agent import Agent  # only here: a worker without an agent starts without torch

        made = Agent.from_pretrained(policy["folder"])
    if made.embodiment is not None:
        pair(agent=made.embodiment, environment=body)
    return made


@dataclass
class Summary:
    """What a collection came to.

    Attributes:
        episodes: how many are in the dataset.
        failures: seeds that were tried and left out, since the expert failed on them.
        new: episodes that this call recorded.
        steps: theirs.
        clipped: how many of these steps have an expert's action that left the body's bounds and was clipped to them.
    """

    out: str
    episodes: int
    failures: int
    new: int
    steps: int
    clipped: int


def collect(
    env: Mapping[str, Any],
    out: str | Path,
    episodes: int,
    seed: int = 0,
    num_workers: int = 2,
    noise: float = 0.0,
    images: str = "image",
    only_success: bool = True,
    progress: TextIO | None = None,
    policy: Source | None = None,
    mix: float = 0.0,
    stored: Literal["expert", "policy"] = "expert",
) -> Summary:
    """Collect `episodes` episodes of each task into `<out>`, or go on where that was interrupted.

    Args:
        env: an environment's config: `name`, `make`, `expert`.
        out: the dataset's folder; missing, empty, or begun with the same arguments (`episodes` may differ).
        episodes: per task.
        seed: of each task's first episode.
        num_workers: processes.
        noise: see `Demonstrator`.
        images: `image` or `video`.
        only_success: replace failed episodes by the next seed.
        progress: where the progress line goes; None for nowhere.
        policy: acts instead of the expert; its failed episodes are kept where the expert's actions are stored.
        mix, stored: see `Demonstrator`.

    Raises:
        ValueError: a bad argument; the policy is another body's; the folder holds something else; the environment
            raised (with task and seed); the expert fails so often that the episodes would never come together.
    """
    if episodes < 1 or num_workers < 1:
        raise ValueError(f"episodes and num_workers are at least 1, got episodes={episodes} num_workers={num_workers}")
    if noise < 0 or not np.isfinite(noise):
        raise ValueError(f"noise is a standard deviation, 0 or more, got {noise}")
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, got {seed}")
    name = str(env.get("name", "the environment"))
    if stored not in ("expert", "policy") or (stored == "policy" and (policy is None or mix)):
        raise ValueError(f"stored={stored}: it is expert, or policy with a policy= that acts alone, without mix")
    if stored == "expert" and not env.get("expert"):
        raise ValueError(f"{name} has no expert to collect from: its config names none under env.expert")
    root = Path(out)
    if not 0 <= mix <= 1 or (mix and policy is None):
        raise ValueError(f"mix is the expert's share of the steps that a policy acts in, from 0 to 1, got {mix}")
    only_success = only_success and (policy is None or stored == "policy")
    how = {"make": env["make"], "expert": env.get("expert"), "noise": noise, "only_success": only_success}
    pool = {**how, "root": str(root.absolute())}
    if policy is not None:
        if not policy.folder and not policy.node:
            raise ValueError("a policy that acts instead of the expert is an agent, or one that a config composes")
        acting = {"mix": mix, "stored": stored}
        where = {"node": dict(policy.node)} if policy.node else {"folder": str(policy.folder)}
        pool |= {**acting, "policy": where}
        how |= {**acting, "policy": policy.identity()}
    with only_one(root, "collection"), Pool(name, Demonstrator, pool, num_workers) as workers:
        embodiment = workers.embodiment
        if noise and embodiment.action.kind != "continuous":
            raise ValueError(f"noise={noise} needs continuous actions, those of {name} are {embodiment.action.kind}")
        ready = begin(root, embodiment, images=images, settings={"env": name, "seed": seed, **how})
        plan = _Plan(workers.tasks, episodes, seed, ready, _failures(root))
        before = plan.recorded
        line = Progress(len(plan.tasks) * episodes, "episodes", done=before, stream=progress)
        _run(workers, plan, line, root / FAILURES, only_success)
        finalize(root)
        if plan.failed:
            write_text(root / FAILURES, "".join(json.dumps(row) + "\n" for row in plan.failure_rows()))
    return Summary(
        str(out), len(plan.ready), len(plan.failed), plan.recorded - before, steps=plan.steps, clipped=plan.clipped
    )


class _Plan:
    """Which episodes are still to be tried, in order."""

    def __init__(self, tasks: Sequence[str], episodes: int, seed: int, ready: set[int], failed: set[int]) -> None:
        self.tasks, self.episodes, self.seed = list(tasks), episodes, seed
        self.ready, self.failed, self.running = set(ready), set(failed), set[int]()
        self.steps = self.clipped = 0

    @property
    def recorded(self) -> int:
        """How many of the wanted episodes are there."""
        per_task = [sum(number // STRIDE == k for number in self.ready) for k in range(len(self.tasks))]
        return sum(min(count, self.episodes) for count in per_task)

    def next(self) -> int | None:
        """The number of an episode to try now; None while those running may suffice."""
        for k in range(len(self.tasks)):
            hoped = 0
            number = k * STRIDE
            while hoped < self.episodes:
                if number in self.ready or number in self.running:
                    hoped += 1
                elif number not in self.failed:
                    return number
                number += 1
        return None

    def episode(self, number: int) -> tuple[str, int]:
        """Task and seed of a number."""
        return self.tasks[number // STRIDE], self.seed + number % STRIDE

    def end(self, number: int, kept: bool) -> None:
        self.running.discard(number)
        (self.ready if kept else self.failed).add(number)

    def hopeless(self, number: int) -> str | None:
        """Why it makes no sense to go on, if so, after a failure of this number's task."""
        k = number // STRIDE
        failures = sum(n // STRIDE == k for n in self.failed)
        if failures < max(20, 4 * self.episodes):
            return None
        tried = failures + sum(n // STRIDE == k for n in self.ready)
        return f"{tried - failures} of {tried} seeds of task {self.tasks[k]} succeeded"

    def failure_rows(self) -> Iterator[dict[str, Any]]:
        for number in sorted(self.failed):
            task, seed = self.episode(number)
            yield {"number": number, "task": task, "seed": seed}


def _run(workers: Pool, plan: _Plan, line: Progress, failures: Path, only_success: bool) -> None:
    name = workers.name
    deaths: dict[int, int] = {}
    again: deque[int] = deque()
    busy: dict[Worker, int] = {}
    idle = list(workers.workers)

    def lost(worker: Worker, number: int, death: WorkerDied) -> None:
        task, seed = plan.episode(number)
        deaths[number] = deaths.get(number, 0) + 1
        if deaths[number] >= ATTEMPTS_PER_DEATH:
            raise ValueError(f"{name}, task {task}, seed {seed}: {death}, {deaths[number]} times in a row")
        again.append(number)
        idle.append(workers.replace(worker))

    while True:
        while idle and (number := again.popleft() if again else plan.next()) is not None:
            plan.running.add(number)
            task, seed = plan.episode(number)
            worker = idle.pop(0)
            try:
                worker.ask("demonstrate", number=number, task=task, seed=seed)
                busy[worker] = number
            except WorkerDied as death:
                lost(worker, number, death)
        if not busy:
            return
        for worker in wait(list(busy)):
            number = busy.pop(worker)
            try:
                result = worker.answer()
            except WorkerDied as death:
                lost(worker, number, death)
                continue
            except WorkerError as error:
                task, seed = plan.episode(number)
                raise ValueError(f"{name}, task {task}, seed {seed}: {error}") from None
            idle.append(worker)
            kept = result["success"] or not only_success
            plan.end(number, kept)
            if kept:
                plan.steps, plan.clipped = plan.steps + result["length"], plan.clipped + result["clipped"]
                note = f"{len(plan.failed)} failed and left out" if plan.failed else ""
                line.advance(1, note)
                continue
            task, seed = plan.episode(number)
            with failures.open("a") as file:
                file.write(json.dumps({"number": number, "task": task, "seed": seed}) + "\n")
            if reason := plan.hopeless(number):
                raise ValueError(f"{name}: {reason}; only_success=false keeps failed episodes too")


def _failures(root: Path) -> set[int]:
    """Numbers that failed before; a line cut short by a kill is forgotten, and its seed tried again."""
    found = set()
    for line in (root / FAILURES).read_text().splitlines() if (root / FAILURES).is_file() else []:
        try:
            found.add(int(json.loads(line)["number"]))
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return found
