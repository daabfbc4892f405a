"""Run a policy through episodes in several environments at once.

Lock-step evaluators wait for the longest episode of every batch, and give each environment a seed by its place in the
batch. Here each *slot* takes the next (task, seed) from one queue and is refilled the moment its episode ends, so that
no environment waits and an episode is the same whichever slot, and however many, it ran in. The policy is asked for the
actions of all slots whose observation has arrived; the others simulate meanwhile.

An episode whose worker process dies starts again, from the beginning, in a new process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from embodied.building import nearest
from embodied.evaluation.recording import Recording
from embodied.evaluation.results import EpisodeRecord
from embodied.evaluation.video import EpisodeVideo, write_still
from embodied.interaction import Policy, stack
from embodied.spec import IMAGES, TASK, pair
from embodied.workers import EnvironmentHost, Pool, Worker, WorkerDied, WorkerError, wait, within_bounds

Episode = tuple[str, int]
"""A task's name and a seed: together they determine an episode."""

OutOfBounds = Literal["clip", "fail"]


class Environments(Pool):
    """Environments of one config, each in its own process.

    Args:
        env: an environment's config: `name`, `make`, and `expert` where there is one.
        count: how many.
        expert: whether the expert watches along and its action comes with every observation.

    Raises:
        ValueError: an expert is wanted and the config has none.
    """

    def __init__(self, env: Mapping[str, Any], count: int, expert: bool = False) -> None:
        name = str(env.get("name", "the environment"))
        if count < 1:
            raise ValueError(f"{name}: at least one environment is needed, got num_envs={count}")
        if expert and not env.get("expert"):
            raise ValueError(f"{name} has no expert: its config names none under env.expert")
        arguments = {"make": env["make"], "expert": env["expert"] if expert else None}
        super().__init__(name, EnvironmentHost, arguments, count)


@dataclass
class _Slot:
    """One environment and the episode in it."""

    number: int
    worker: Worker
    index: int = -1  # of the episode; -1 when there is none
    retries: int = 0
    started: float = 0.0
    observation: dict[str, Any] | None = None  # set while the policy is due
    instruction: str = ""
    rewards: list[float] = field(default_factory=list)
    success: bool = False
    measures: dict[str, float] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # `prediction` and `reference`, for scorers
    clipped: int = 0
    broken: int = 0
    inference: float = 0.0
    filmed: bool = False
    cameras: dict[str, np.ndarray] = field(default_factory=dict)  # what they show now
    truth: dict[str, np.ndarray] = field(default_factory=dict)  # what the environment draws now
    belief: dict[str, np.ndarray] = field(default_factory=dict)  # what the policy drew last
    video: EpisodeVideo | None = None

    @property
    def drawings(self) -> dict[str, np.ndarray]:
        """The truth, and beside it the belief, which may go by the same names."""
        return self.truth | {f"believed_{name}": drawn for name, drawn in self.belief.items()}


def rollout(
    policy: Policy,
    env: Mapping[str, Any] | Environments,
    episodes: Sequence[Episode],
    *,
    num_envs: int = 1,
    group: str = "",
    videos: Collection[Episode] = (),
    out: str | Path | None = None,
    on_episode: Callable[[EpisodeRecord], None] | None = None,
    retries: int = 2,
    timeout: float = 300.0,
    refill: bool = True,
    out_of_bounds: OutOfBounds = "clip",
    recording: Recording | None = None,
) -> list[EpisodeRecord]:
    """Run each episode once.

    Args:
        policy: decides; its embodiment must agree with the environment's.
        env: an environment's config, or environments that are already up (they stay up; `num_envs` is theirs).
        episodes: (task, seed) pairs without repeats.
        num_envs: how many environments run at once; results do not depend on it.
        group: written into the records (`metaworld`).
        videos: the episodes to film, into `<out>/videos`.
        on_episode: called with each record as its episode ends.
        retries: how often an episode is started again after its worker died.
        timeout: seconds after which a silent worker counts as dead.
        refill: False starts new episodes only when all slots have ended, as lock-step evaluators do: to compare with.
        out_of_bounds: an action outside the embodiment's bounds is clipped to them and counted (`clip`), or its episode
            ends as failed (`fail`). One that is not finite always does, and is counted too.
        recording: where the filmed episodes are written for Rerun, too.

    Returns:
        One record per episode, in the order of `episodes`.

    Raises:
        ConventionMismatch: policy and environment disagree, before the first step.
        ValueError: the environment raised, or its process died too often; with task and seed.
    """
    if out_of_bounds not in get_args(OutOfBounds):
        raise ValueError(f"out_of_bounds is one of {', '.join(get_args(OutOfBounds))}, got {out_of_bounds!r}")
    if len(set(episodes)) < len(episodes):
        raise ValueError("an episode is listed twice: each (task, seed) is run once")
    if not episodes:
        return []
    if not isinstance(env, Environments):
        with Environments(env, max(1, min(num_envs, len(episodes))), expert=wants_expert(policy)) as environments:
            return rollout(
                policy, environments, episodes, group=group, videos=videos, out=out, on_episode=on_episode,
                retries=retries, timeout=timeout, refill=refill, out_of_bounds=out_of_bounds, recording=recording,
            )  # fmt: skip
    run = _Rollout(
        policy, env, episodes, group, set(videos), Path(out or "."), on_episode, retries, timeout, refill,
        out_of_bounds, recording,
    )  # fmt: skip
    return run.run()


def wants_expert(policy: Policy) -> bool:
    """Whether a policy reads the expert's action from the observations (`policies.ExpertPolicy`)."""
    return bool(getattr(policy, "wants_expert", False))


class _Rollout:
    def __init__(
        self,
        policy: Policy,
        environments: Environments,
        episodes: Sequence[Episode],
        group: str,
        videos: set[Episode],
        out: Path,
        on_episode: Callable[[EpisodeRecord], None] | None,
        retries: int,
        timeout: float,
        refill: bool,
        out_of_bounds: OutOfBounds,
        recording: Recording | None,
    ) -> None:
        if policy.embodiment is not None:
            pair(agent=policy.embodiment, env=environments.embodiment)
        for task in {task for task, _ in episodes}:
            if task not in environments.tasks:
                raise ValueError(f"{environments.name} has no task '{task}'{nearest(task, environments.tasks)}")
        self.policy, self.environments, self.episodes = policy, environments, list(episodes)
        self.group, self.videos, self.out, self.on_episode = group, videos, out, on_episode
        self.retries, self.timeout, self.refill, self.out_of_bounds = retries, timeout, refill, out_of_bounds
        self.recording = recording
        self.queue = deque(range(len(episodes)))
        self.slots = [_Slot(number, worker) for number, worker in enumerate(environments.workers)]
        self.records: dict[int, EpisodeRecord] = {}
        self.patience = 0.0

    def run(self) -> list[EpisodeRecord]:
        self.policy.reset(len(self.slots))
        deadline = 0.0
        try:
            self._fill()
            while busy := [slot for slot in self.slots if slot.index >= 0]:
                due = [slot for slot in busy if slot.observation is not None]
                away = [slot for slot in busy if slot.observation is None]
                now = time.monotonic()
                if due and (not away or now >= deadline):
                    self._act(due)
                    continue
                silent = min(slot.worker.asked_at or now for slot in away) + self.timeout - now
                arrived = wait([slot.worker for slot in away], min(silent, deadline - now) if due else silent)
                for slot in away:
                    if slot.worker in arrived:
                        self._receive(slot)
                    elif time.monotonic() - (slot.worker.asked_at or now) > self.timeout:
                        self._again(slot, WorkerDied(f"the worker process said nothing for {self.timeout:.0f} seconds"))
                if not due:
                    deadline = time.monotonic() + self.patience
                self._fill()
        finally:
            for slot in self.slots:
                _abandon(slot)
        return [self.records[index] for index in range(len(self.episodes))]

    def _fill(self) -> None:
        """Give waiting episodes to free slots."""
        if not self.refill and any(slot.index >= 0 for slot in self.slots):
            return
        for slot in self.slots:
            if slot.index < 0 and self.queue:
                slot.index, slot.retries, slot.started = self.queue.popleft(), 0, time.monotonic()
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        task, seed = self.episodes[slot.index]
        slot.observation, slot.rewards, slot.success, slot.inference = None, [], False, 0.0
        slot.clipped, slot.broken, slot.measures, slot.rows = 0, 0, {}, {}
        slot.filmed, slot.cameras, slot.truth, slot.belief = (task, seed) in self.videos, {}, {}, {}
        self.policy.start(slot.number, seed, task)
        if self.recording is not None:
            self.recording.begin((task, seed))
        try:
            slot.worker.ask("reset", seed=seed, task=task, filmed=slot.filmed)
        except WorkerDied as death:
            self._again(slot, death)

    def _receive(self, slot: _Slot) -> None:
        task, seed = self.episodes[slot.index]
        try:
            reply = slot.worker.answer()
        except WorkerDied as death:
            self._again(slot, death)
            return
        except WorkerError as error:
            raise ValueError(f"{self.environments.name}, task {task}, seed {seed}: {error}") from None
        observation = reply["observation"]
        if "reward" in reply:
            slot.rewards.append(reply["reward"])
            slot.success |= reply["success"]
            slot.measures = reply.get("measures", slot.measures)
            slot.rows = {key: reply[key] for key in ("prediction", "reference") if key in reply}
        else:
            slot.instruction = str(observation.get(TASK, ""))
        if slot.filmed:
            slot.cameras = {key: value for key, value in observation.items() if key.startswith(IMAGES)}
            slot.truth = reply["drawings"]
            if reply.get("rendering") is not None:
                slot.cameras = {"rendering": reply["rendering"]}
        ended = reply.get("terminated") or reply.get("truncated") or len(slot.rewards) >= self.environments.max_steps
        if ended:
            self._film(slot, observation)  # the policy is not asked any more: what it believed last stays
            self._finish(slot)
        else:
            slot.observation = observation

    def _act(self, due: list[_Slot]) -> None:
        """Ask the policy for the actions of some slots, and send them off."""
        batch = stack([slot.observation for slot in due if slot.observation is not None])
        begun = time.perf_counter()
        actions = self.policy.act(batch, [slot.number for slot in due])
        seconds = time.perf_counter() - begun
        # Wait for stragglers as long as half a call takes: one more call for them would cost more.
        self.patience = 0.9 * self.patience + 0.1 * min(seconds / 2, 0.1)
        spec = self.environments.embodiment.action
        numeric = spec.kind in ("continuous", "categorical")
        if len(actions) != len(due) or (numeric and np.shape(actions) != (len(due), spec.width)):
            raise ValueError(
                f"{type(self.policy).__name__} returned actions of shape {np.shape(actions)} for {len(due)} slots: "
                f"{self.environments.name} takes ({len(due)}, {spec.width})"
            )
        for slot, action in zip(due, actions, strict=True):
            slot.inference += seconds / len(due)
            seen, slot.observation = slot.observation, None
            if slot.filmed:
                slot.belief = dict(self.policy.drawings(slot.number))
                self._film(slot, seen or {})
            if numeric and not np.isfinite(action).all():
                slot.broken += 1
                self._finish(slot, f"the action of step {len(slot.rewards)} was not finite")
                continue
            if spec.kind == "categorical" and action[0] not in range(spec.dim):
                wrong = f"the action of step {len(slot.rewards)} was {action[0]:g}"
                self._finish(slot, f"{wrong}, no index from 0 to {spec.dim - 1}")
                continue
            if spec.kind == "continuous":
                clipped = within_bounds(action, self.environments.embodiment)
                outside = ~np.isclose(clipped, action, rtol=0, atol=1e-5)
                if outside.any() and self.out_of_bounds == "fail":
                    first = int(np.argmax(outside))
                    wrong = f"the action of step {len(slot.rewards)} had {spec.names[first]} = {action[first]:g}"
                    self._finish(slot, f"{wrong}, outside {spec.low[first]:g} to {spec.high[first]:g}")
                    continue
                slot.clipped += bool(outside.any())
                action = clipped
            try:
                slot.worker.ask("step", action=action, filmed=slot.filmed)
            except WorkerDied as death:
                self._again(slot, death)
        self._fill()

    def _finish(self, slot: _Slot, error: str | None = None) -> None:
        task, seed = self.episodes[slot.index]
        length = len(slot.rewards)
        success = slot.success and error is None
        video = still = None
        if drawings := slot.drawings:
            file = write_still(self._video(slot).with_suffix(".png"), drawings)
            still = str(file.relative_to(self.out))
        if slot.video is not None:
            slot.video.end(success)
            slot.video.__exit__(None, None, None)
            video, slot.video = str(slot.video.path.relative_to(self.out)), None
        record = EpisodeRecord(
            task=task,
            seed=seed,
            success=success,
            sum_reward=float(np.sum(slot.rewards)),
            max_reward=float(np.max(slot.rewards, initial=-np.inf)) if length else 0.0,
            length=length,
            group=self.group,
            instruction=slot.instruction,
            nan_actions=slot.broken,
            clipped_actions=slot.clipped,
            retries=slot.retries,
            seconds=time.monotonic() - slot.started,
            inference_ms=1000 * slot.inference / max(length, 1),
            video=video,
            still=still,
            error=error,
            measures=slot.measures,
            **slot.rows,
        )
        self.records[slot.index] = record
        if self.recording is not None:
            self.recording.end(record)
        slot.index = -1
        if self.on_episode is not None:
            self.on_episode(record)

    def _again(self, slot: _Slot, death: WorkerDied) -> None:
        """Replace the slot's worker and start its episode once more."""
        task, seed = self.episodes[slot.index]
        if slot.retries >= self.retries:
            often = f"{death}, {slot.retries + 1} times in a row"
            raise ValueError(f"{self.environments.name}, task {task}, seed {seed}: {often}")
        slot.retries += 1
        _abandon(slot)
        slot.worker = self.environments.replace(slot.worker)
        self._start(slot)

    def _film(self, slot: _Slot, observation: Mapping[str, Any]) -> None:
        """One more picture: what is seen now, and beside it what the policy believes of it."""
        drawings = slot.drawings
        if self.recording is not None:
            self.recording.step(self.episodes[slot.index], observation, drawings, self.policy.cloud(slot.number))
        if not slot.cameras and not drawings:
            return
        if slot.video is None:
            slot.video = EpisodeVideo(
                self._video(slot), self.environments.embodiment.rate, slot.instruction
            ).__enter__()
        slot.video.add(slot.cameras, drawings)

    def _video(self, slot: _Slot) -> Path:
        task, seed = self.episodes[slot.index]
        return self.out / "videos" / f"{task.replace('/', '_')}_{seed}.mp4"


def _abandon(slot: _Slot) -> None:
    """Leave no half-made video."""
    if slot.video is not None:
        error = InterruptedError("the episode was not finished")
        slot.video.__exit__(type(error), error, None)
        slot.video = None
