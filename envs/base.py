"""What every simulated body does alike, so that an adapter only says what is its own.

An adapter states its tasks, its body and five things to do: begin an episode, take a step, read the body's own sensors,
read the simulator's truth, take pictures. The rest is here, and the same for all: options are checked, actions are
bounded and counted, episodes end, observations have the keys that `embodied.spec` lists, and a perturbed split
(`envs.perturbations`) draws what it changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import yaml
from gymnasium import spaces

from embodied.building import nearest
from embodied.spec import ENVIRONMENT_STATE, IMAGES, STATE, TASK, ActionSpec, Camera, Embodiment, StateSpec
from envs.perturbations import Drawn, Perturbations

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.-'"


@dataclass(frozen=True)
class Body:
    """What a task's robot is.

    Attributes:
        name: the robot's.
        action: what it can be told to do.
        state: what it feels.
        truth: a name for each component of `observation.environment_state`.
        rate: actions per second.
    """

    name: str
    action: ActionSpec
    state: StateSpec
    truth: tuple[str, ...]
    rate: float


def texts(module: str, kind: str) -> dict[str, Any]:
    """What a YAML beside a module says of each task: `texts(__file__, "rephrased")` reads `<module>_rephrased.yaml`."""
    path = Path(module)
    return dict(yaml.safe_load(path.with_name(f"{path.stem}_{kind}.yaml").read_text(encoding="utf-8")))


class SimulatedBody(gymnasium.Env, ABC):
    """The common part of an `embodied.interaction.Environment`.

    Observations, by `observe`:

    | key | pixels | state | both | |
    |---|---|---|---|---|
    | `observation.images.<camera>` | x | | x | uint8 (H, W, 3) |
    | `observation.state` | x | x | x | float32 (S,), what the body feels: `embodiment.state` |
    | `observation.environment_state` | | x | x | float32 (E,), the simulator's truth: `truth_names` |
    | `task` | x | x | x | the instruction |

    `info` holds `success` (bool), `task` (its name), `clipped` (how many actions of this episode were out of bounds),
    and what the adapter adds.

    Args:
        tasks: which of `instructions`; None for all.
        cameras: what the pictures are taken with, unless `observe` is `state`.
        observe: `pixels`, `state` or `both`.
        max_steps: after how many steps an episode is truncated; None for the benchmark's own number.
        stop_on_success: whether the first success ends the episode.
        out_of_bounds: `clip` actions to their bounds and count them, or raise an `error`.
        perturb: level by kind of perturbation, see `envs.perturbations`; the kinds are those of `perturbable`.

    Attributes:
        drawn: how the present episode is perturbed.
        words: what it asks for in words, before anything is filled in.

    Raises:
        ValueError: an unknown task, mode or perturbation; tasks of different bodies; the simulator is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's name)
    instructions: ClassVar[Mapping[str, str]]
    """Each task's name and what it asks for in words."""
    rephrased: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Other words for each task."""
    perturbable: ClassVar[tuple[str, ...]] = ("instruction",)
    """The kinds of perturbation that make sense here."""
    default_steps: ClassVar[Mapping[str, int] | int]
    """The benchmark's own limit on an episode."""

    def __init__(
        self,
        tasks: Sequence[str] | None = None,
        cameras: Sequence[Camera] = (),
        observe: str = "pixels",
        max_steps: int | None = None,
        stop_on_success: bool = True,
        out_of_bounds: str = "clip",
        perturb: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        name = type(self).__name__
        self.tasks = tuple(self.instructions if tasks is None else tasks)
        if not self.tasks:
            raise ValueError(f"{name}: tasks is empty; there is {', '.join(self.instructions)}")
        for task in self.tasks:
            if task not in self.instructions:
                raise ValueError(f"{name} has no task '{task}'{nearest(task, self.instructions)}")
        for option, value, known in (
            ("observe", observe, ("pixels", "state", "both")),
            ("out_of_bounds", out_of_bounds, ("clip", "error")),
            ("render_mode", render_mode or "rgb_array", ("rgb_array",)),
        ):
            if value not in known:
                raise ValueError(f"{name}: {option} is one of {', '.join(known)}, got '{value}'")
        if observe != "state" and not cameras:
            raise ValueError(f"{name}: observe={observe} needs a camera")
        if max_steps is None:
            steps = self.default_steps
            max_steps = steps if isinstance(steps, int) else max(steps[task] for task in self.tasks)
        if max_steps < 1:
            raise ValueError(f"{name}: max_steps is 1 or more, got {max_steps}")
        self._perturbations = Perturbations(perturb or {})
        for kind, level in self._perturbations.levels.items():
            if level and kind not in self.perturbable:
                raise ValueError(f"{name} takes no perturbation '{kind}'; there is {', '.join(self.perturbable)}")
        body, *others = (self.body(task) for task in self.tasks)
        if any(other != body for other in others):
            raise ValueError(f"{name}: {', '.join(self.tasks)} have bodies that differ; name one task")
        self.max_steps, self.stop_on_success, self.out_of_bounds = max_steps, stop_on_success, out_of_bounds
        self.render_mode = render_mode
        self.metadata = self.metadata | {"render_fps": round(body.rate)}
        self.with_truth, self.with_pixels = observe != "pixels", observe != "state"
        self.truth_names = body.truth
        self.embodiment = Embodiment(
            body.name, body.action, body.state, tuple(cameras) if self.with_pixels else (), body.rate
        )
        self._low = np.asarray(body.action.low, np.float32)
        self._high = np.asarray(body.action.high, np.float32)
        self.action_space = spaces.Box(self._low, self._high, dtype=np.float32)
        self.observation_space = self._space()
        self.task = self.tasks[0]
        self.drawn: Drawn = self._perturbations.of(self.task, 0)
        self.words = self.instructions[self.task]
        self._begun = False
        self._steps = self._clipped = 0

    def body(self, task: str) -> Body:
        """The body of a task; called before anything else is set up."""
        raise NotImplementedError

    @abstractmethod
    def begin(self, task: str, seed: int) -> None:
        """Put the simulator at the start of the episode that (task, seed) names, whatever ran before.

        Where `perturbable` has it, the hand starts `drawn.start()` off.
        """

    @abstractmethod
    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        """One step with an action (A,), float32, within bounds; the reward, and whether the task is done."""

    @abstractmethod
    def feel(self) -> np.ndarray:
        """What the body's own sensors say, (S,)."""

    @abstractmethod
    def truth(self) -> np.ndarray:
        """The simulator's truth, (E,), float64: `truth_names` names its components."""

    @abstractmethod
    def pictures(self) -> dict[str, np.ndarray]:
        """One picture per camera, by name, uint8 (H, W, 3)."""

    def dress(self) -> None:
        """Look as the perturbed episode wants it; called after `begin`, and no physics may notice."""

    def solved(self) -> bool:
        """Whether the task is done before the first action."""
        return False

    def also(self) -> dict[str, Any]:
        """More entries for `info`."""
        return {}

    def instruction(self) -> str:
        """What the present episode asks for."""
        return self.words

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the episode that (seed, task) names; the same in any process, whatever ran before.

        Args:
            seed: None draws one from the environment's own generator.
            options: `{"task": name}`; without it, the first of `tasks`.

        Raises:
            ValueError: a task that is none of `tasks`, an unknown option, a negative seed.
        """
        name = type(self).__name__
        if seed is not None and seed < 0:
            raise ValueError(f"{name}: a seed is 0 or more, got {seed}")
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        unknown = set(options or {}) - {"task"}
        if unknown:
            raise ValueError(f"{name}: unknown reset option '{min(unknown)}'; there is task")
        task = (options or {}).get("task", self.tasks[0])
        if task not in self.tasks:
            raise ValueError(f"this environment was not made for task '{task}'{nearest(task, self.tasks)}")
        self.task = task
        self._steps = self._clipped = 0
        self.drawn = self._perturbations.of(task, seed)
        self.words = self.drawn.instruction(self.instructions[task], self.rephrased.get(task, ()))
        self.begin(task, seed)
        if self.drawn.levels:
            self.dress()
        self._begun = True
        return self._observe(), {"success": self.solved(), "task": task, "clipped": 0} | self.also()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action (A,), in the units of `embodiment.action`.

        Raises:
            ValueError: the wrong shape, NaN, or (with `out_of_bounds="error"`) outside its bounds.
        """
        self.running("step")
        if self._steps >= self.max_steps:
            raise ValueError(f"{type(self).__name__}: the episode ended after {self.max_steps} steps; call reset")
        reward, success = self.advance(self._bounded(action))
        self._steps += 1
        info = {"success": success, "task": self.task, "clipped": self._clipped} | self.also()
        return self._observe(), float(reward), success and self.stop_on_success, self._steps >= self.max_steps, info

    def render(self) -> np.ndarray:
        """The first camera's picture of the present state, uint8 (H, W, 3)."""
        self.running("render")
        pictures = self.pictures()
        if not pictures:
            raise ValueError(f"{type(self).__name__}: there is no camera to render from; name one in cameras")
        return next(iter(pictures.values()))

    def close(self) -> None:
        """Give back what the simulator holds; the environment can be reset again."""
        self._begun = False

    def running(self, what: str) -> None:
        """Refuse what needs an episode that has begun.

        Raises:
            ValueError: before the first reset, or closed since.
        """
        if not self._begun:
            raise ValueError(f"{type(self).__name__}: call reset before {what}")

    def _bounded(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float32)
        names = self.embodiment.action.names
        if action.shape != (len(names),):
            listed = ", ".join(names if len(names) <= 10 else (*names[:9], "..."))
            raise ValueError(f"an action is {len(names)} numbers ({listed}), got shape {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"action {action.tolist()} at step {self._steps} of task {self.task} is not finite")
        inside = np.clip(action, self._low, self._high)
        if not np.array_equal(inside, action):
            if self.out_of_bounds == "error":
                first = int(np.flatnonzero(inside != action)[0])
                raise ValueError(
                    f"action out of bounds: {names[first]}={action[first]:g} at step {self._steps} of task {self.task} "
                    f"leaves [{self._low[first]:g}, {self._high[first]:g}]"
                )
            self._clipped += 1
        return inside

    def _observe(self) -> dict[str, Any]:
        observation: dict[str, Any] = {STATE: self.feel().astype(np.float32), TASK: self.instruction()}
        if self.with_truth:
            observation[ENVIRONMENT_STATE] = self.truth().astype(np.float32)
        if self.with_pixels:
            observation |= {IMAGES + name: picture for name, picture in self.pictures().items()}
        return observation

    def _space(self) -> spaces.Dict:
        assert self.embodiment.state is not None
        parts: dict[str, spaces.Space] = {
            STATE: spaces.Box(-np.inf, np.inf, (self.embodiment.state.dim,), np.float32),
            TASK: spaces.Text(200, charset=LETTERS),
        }
        if self.with_truth:
            parts[ENVIRONMENT_STATE] = spaces.Box(-np.inf, np.inf, (len(self.truth_names),), np.float32)
        for camera in self.embodiment.cameras:
            parts[IMAGES + camera.name] = spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
        return spaces.Dict(parts)
