"""Meta-World's 50 manipulation tasks (Yu et al. 2019, arXiv 1910.10897; v3 of the Farama release) from pixels or state.

A Sawyer arm with a parallel gripper. What this adds to the library:

- **The seed decides the episode.** Meta-World ignores `reset(seed=)`: where objects and goals are was drawn when the
  environment was made, and what an earlier episode left in the model, in the solver's warm start or in Python
  attributes leaks into the next. Here every reset makes a new Meta-World object and a new `MjData` around the compiled
  model, with the model's arrays put back first, in 9 ms. An episode then equals, bit by bit, the first one of a new
  Meta-World environment that was given the same object and goal positions.
- **A policy sees what a robot would.** `observation.state` is the hand's position and the gripper's opening. Where the
  object and the goal are is in `observation.environment_state`, which only state modes have. (The coloured sphere that
  marks a goal is in the pictures, as in Meta-World's own: without it nobody could know where to reach.)
- **Pictures are the right way up.** Meta-World mounts the four `corner` cameras upside down; their pictures are turned
  by 180 degrees here, as LeRobot does for corner2. `Camera.renderer` records it.
- **Nothing is clipped in silence.** Meta-World clips actions to [-1, 1]; `info["clipped"]` counts how many of the
  episode's actions were, or `out_of_bounds="error"` refuses them. NaN is always refused.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import yaml
from gymnasium import spaces

from embodied.building import nearest
from embodied.spec import ENVIRONMENT_STATE, IMAGES, STATE, TASK, ActionSpec, Embodiment, StateSpec
from envs.mujoco.appearance import Appearance
from envs.mujoco.opengl import load_mujoco
from envs.mujoco.rendering import Quality, Renderer, Solid, View, place_cameras, views_of
from envs.perturbations import Drawn, Perturbations

CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
HAND = 4
"""Meta-World's vector starts with the hand's position and the gripper's opening,"""
OBJECTS = 18
"""goes on to here with up to two objects' positions and quaternions (then the frame before, then the goal)."""
TRUTH = OBJECTS - HAND + 3
SURROUNDINGS = ("basic_floor", "table_wood", "wall_metal")
"""The materials of floor, table and wall."""
TABLE = ((-0.35, 0.4), (0.35, 0.9))
"""The part of the table's top, which is at height 0, where things may lie about: corners (x, y), metres."""
BIG = 1 << 16
"""Model arrays of more bytes are geometry and textures, which no task changes."""

ACTION_SPEC = ActionSpec(
    names=("x", "y", "z", "gripper"),
    units=("cm", "cm", "cm", "1"),
    low=(-1.0, -1.0, -1.0, -1.0),
    high=(1.0, 1.0, 1.0, 1.0),
    control="delta",
    space="cartesian",
    frame="world",
    gripper=3,
    gripper_closed=1,
)
"""How far the target that pulls the hand moves in this step, and how hard the fingers close (+1) or open (-1)."""

STATE_SPEC = StateSpec(names=("x", "y", "z", "gripper_opening"), units=("m", "m", "m", "1"), frame="world")
"""The hand's position, and how far the fingers are apart, from 0 (closed) to 1 (10 cm)."""

RATE = 80.0
"""Actions per second: 5 physics steps of 2.5 ms each."""


@cache
def instructions() -> dict[str, str]:
    """Each task's name and what it asks for in words."""
    return dict(yaml.safe_load(Path(__file__).with_name("metaworld_tasks.yaml").read_text(encoding="utf-8")))


@cache
def rephrased() -> dict[str, list[str]]:
    """Other words for each task."""
    return dict(yaml.safe_load(Path(__file__).with_name("metaworld_rephrased.yaml").read_text(encoding="utf-8")))


class MetaWorld(gymnasium.Env):
    """One or several Meta-World tasks; implements `embodied.interaction.Environment`.

    Observations, by `observe`:

    | key | pixels | state | both | |
    |---|---|---|---|---|
    | `observation.images.<camera>` | x | | x | uint8 (H, W, 3) |
    | `observation.state` | x | x | x | float32 (4,): hand x, y, z in metres, gripper opening in [0, 1] |
    | `observation.environment_state` | | x | x | float32 (17,): objects and goal, see below |
    | `task` | x | x | x | the instruction |

    The environment state is Meta-World's own: two objects' position (m) and quaternion (zeros where there is one; the
    component order varies by task), and the goal's position (m). The reward is Meta-World's own, 0 to 10. `info` holds
    `success` (bool), `task` (the task's name) and `clipped` (how many actions of this episode were out of bounds).

    Args:
        tasks: names without `-v3`; None for all 50.
        cameras: of `CAMERAS`, in order.
        height, width: pixels of each picture.
        observe: `pixels`, `state` or `both`.
        max_steps: after how many steps an episode is truncated; 500 is Meta-World's own, and its most.
        stop_on_success: whether the first success ends the episode.
        out_of_bounds: `clip` actions outside [-1, 1] and count them, or raise an `error`.
        camera_positions: put a camera elsewhere, metres; LeRobot's Meta-World data has corner2 at (0.75, 0.075, 0.7).
        shadows, reflections, samples: see `rendering.Quality`.
        keep: how many tasks stay compiled; compiling takes 0.2 to 0.4 s, keeping 20 MB, or 80 MB with pictures.
        perturb: level by kind of perturbation, see `envs.perturbations`.

    Raises:
        ValueError: an unknown task, camera, mode or perturbation; Meta-World is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(RATE)}  # noqa: RUF012 (gymnasium's name)

    def __init__(
        self,
        tasks: Sequence[str] | None = None,
        cameras: Sequence[str] = ("corner2",),
        height: int = 96,
        width: int = 96,
        observe: str = "pixels",
        max_steps: int = 500,
        stop_on_success: bool = True,
        out_of_bounds: str = "clip",
        camera_positions: Mapping[str, Sequence[float]] | None = None,
        shadows: bool = False,
        reflections: bool = False,
        samples: int = 0,
        keep: int = 10,
        perturb: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.tasks = tuple(instructions() if tasks is None else tasks)
        for task in self.tasks:
            if task not in instructions():
                raise ValueError(f"Meta-World has no task '{task}'{nearest(task, instructions())}")
        _one_of("observe", observe, ("pixels", "state", "both"))
        _one_of("out_of_bounds", out_of_bounds, ("clip", "error"))
        if not self.tasks:
            raise ValueError("MetaWorld: tasks is empty; null means all 50")
        if not 1 <= max_steps <= 500:
            raise ValueError(f"MetaWorld: max_steps is 1 to 500 (Meta-World ends an episode there), got {max_steps}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"MetaWorld: render_mode is rgb_array or none, got '{render_mode}'")
        if observe != "state" and not cameras:
            raise ValueError(f"MetaWorld: observe={observe} needs a camera; there is {', '.join(CAMERAS)}")
        self._perturbations = Perturbations(perturb or {})
        _library()
        self.max_steps, self.stop_on_success, self.out_of_bounds = max_steps, stop_on_success, out_of_bounds
        self.render_mode = render_mode
        self._with_truth, self._with_pixels = observe != "pixels", observe != "state"
        self._views = views_of(cameras, CAMERAS, height, width, UPSIDE_DOWN, camera_positions)
        quality = Quality(shadows, reflections, samples)
        self._renderer = Renderer(self._views, quality, keep)
        seen = tuple(quality.camera(view) for view in self._views) if self._with_pixels else ()
        self.embodiment = Embodiment("sawyer", ACTION_SPEC, STATE_SPEC, seen, RATE)
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SPEC.dim,), np.float32)
        self.observation_space = self._space()
        self._compiled: OrderedDict[str, _Compiled] = OrderedDict()
        self._keep = max(keep, 1)
        self.task, self._instruction = self.tasks[0], ""
        self._extras: list[Solid] = []
        self._sim: Any = None
        self._truth = np.zeros(0)
        self._steps = self._clipped = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the episode that (seed, task) names; the same wherever the libraries are, whatever ran before.

        Args:
            seed: where object and goal are; None draws one from the environment's own generator.
            options: `{"task": name}`; without it, the first of `tasks`.

        Raises:
            ValueError: a task that is none of `tasks`, an unknown option, a negative seed.
        """
        if seed is not None and seed < 0:
            raise ValueError(f"MetaWorld: a seed is 0 or more, got {seed}")
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        unknown = set(options or {}) - {"task"}
        if unknown:
            raise ValueError(f"MetaWorld: unknown reset option '{min(unknown)}'; there is task")
        task = (options or {}).get("task", self.tasks[0])
        if task not in self.tasks:
            raise ValueError(f"this environment was not made for task '{task}'{nearest(task, self.tasks)}")
        self.task = task
        drawn = self._perturbations.of(task, seed)
        self._instruction = drawn.instruction(instructions()[task], rephrased()[task])
        self._sim, self._truth = self._model_of(task).begin(seed, drawn)
        clear = [self._truth[HAND : HAND + 3], self._truth[HAND + 7 : HAND + 10], self._truth[-3:]]
        things = drawn.distractors(*TABLE, clear, gap=0.12)
        self._extras = [Solid(x.shape, x.size, x.colour, (*x.place, x.size)) for x in things]
        self._steps = self._clipped = 0
        return self._observe(), {"success": False, "task": task, "clipped": 0}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action (4,), float, in the units of `ACTION_SPEC`.

        Raises:
            ValueError: the wrong shape, NaN, or (with `out_of_bounds="error"`) outside [-1, 1].
        """
        if self._sim is None:
            raise ValueError("MetaWorld: call reset before step")
        if self._steps >= self.max_steps:
            raise ValueError(f"MetaWorld: the episode ended after {self.max_steps} steps; call reset")
        self._truth, reward, _, _, measures = self._sim.step(self._bounded(action))
        self._steps += 1
        success = bool(measures["success"])
        info = {"success": success, "task": self.task, "clipped": self._clipped}
        return self._observe(), float(reward), success and self.stop_on_success, self._steps >= self.max_steps, info

    def truth(self) -> np.ndarray:
        """Meta-World's own observation (39,), float64, of the present state: what its scripted experts read.

        Raises:
            ValueError: before the first reset.
        """
        if self._sim is None:
            raise ValueError("MetaWorld: call reset before truth")
        return self._truth.copy()

    def render(self) -> np.ndarray:
        """The first camera's picture of the present state, uint8 (H, W, 3)."""
        if self._sim is None:
            raise ValueError("MetaWorld: call reset before render")
        if not self._views:
            raise ValueError("MetaWorld: there is no camera to render from; name one in cameras")
        return next(iter(self._renderer.render(self._sim.model, self._sim.data, self._extras).values()))

    def close(self) -> None:
        """Give back the OpenGL context and the compiled tasks; the environment can be reset again."""
        self._renderer.close()
        self._compiled.clear()
        self._sim = None

    def _bounded(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (ACTION_SPEC.dim,):
            raise ValueError(f"an action is 4 numbers ({', '.join(ACTION_SPEC.names)}), got shape {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"action {action.tolist()} at step {self._steps} of task {self.task} is not finite")
        inside = np.clip(action, -1.0, 1.0)
        if not np.array_equal(inside, action):
            if self.out_of_bounds == "error":
                raise ValueError(f"action {action.tolist()} at step {self._steps} of task {self.task} leaves [-1, 1]")
            self._clipped += 1
        return inside

    def _observe(self) -> dict[str, Any]:
        now = self._truth
        observation: dict[str, Any] = {STATE: now[:HAND].astype(np.float32), TASK: self._instruction}
        if self._with_truth:
            observation[ENVIRONMENT_STATE] = np.concatenate([now[HAND:OBJECTS], now[-3:]]).astype(np.float32)
        if self._with_pixels:
            pictures = self._renderer.render(self._sim.model, self._sim.data, self._extras)
            observation |= {IMAGES + name: picture for name, picture in pictures.items()}
        return observation

    def _space(self) -> spaces.Dict:
        texts = [*instructions().values(), *(text for texts in rephrased().values() for text in texts)]
        parts: dict[str, spaces.Space] = {
            STATE: spaces.Box(-np.inf, np.inf, (STATE_SPEC.dim,), np.float32),
            TASK: spaces.Text(max(map(len, texts)), charset="abcdefghijklmnopqrstuvwxyz ,"),
        }
        if self._with_truth:
            parts[ENVIRONMENT_STATE] = spaces.Box(-np.inf, np.inf, (TRUTH,), np.float32)
        if self._with_pixels:
            for view in self._views:
                parts[IMAGES + view.name] = spaces.Box(0, 255, (view.height, view.width, 3), np.uint8)
        return spaces.Dict(parts)

    def _model_of(self, task: str) -> _Compiled:
        if task not in self._compiled:
            while len(self._compiled) >= self._keep:
                self._renderer.forget(self._compiled.popitem(last=False)[1].model)
            self._compiled[task] = _Compiled(task, self._views)
        self._compiled.move_to_end(task)
        return self._compiled[task]


class _Compiled:
    """A task's compiled model, from which any number of independent episodes begin, one at a time."""

    def __init__(self, task: str, views: Sequence[View]) -> None:
        self._mujoco = load_mujoco()
        self._class = _library()[f"{task}-v3"]
        made = self._class()
        self.model = made.model
        made.close()
        place_cameras(self.model, views)
        names = [name for name in dir(self.model) if not name.startswith("_")]
        arrays = {name: getattr(self.model, name) for name in names if _is_array(self.model, name)}
        self._appearance = Appearance(self.model, SURROUNDINGS)
        self._cameras = [view.name for view in views]
        self._pristine = [(array, array.copy()) for array in arrays.values() if 0 < array.nbytes <= BIG]

    def begin(self, seed: int, drawn: Drawn) -> tuple[Any, np.ndarray]:
        """A Meta-World object at the start of the episode that the seed names, and its observation (39,).

        Args:
            seed: where object and goal are.
            drawn: how the episode is perturbed.
        """
        for array, content in self._pristine:
            array[...] = content
        sim = self._class.__new__(self._class)
        sim._initialize_simulation = lambda: (self.model, self._mujoco.MjData(self.model))  # instead of compiling again
        self._class.__init__(sim)
        sim._set_task_called = True
        sim._partially_observable = False  # the goal is part of the truth, as in Meta-World's multi-task benchmarks
        sim.__dict__.pop("sawyer_observation_space", None)  # cached for a hidden goal
        # Meta-World resets a model twice: the first pass draws positions until they are acceptable and puts them into
        # the model, the second begins the episode. The first needs no hand in its place, which saves half the time.
        sim._freeze_rand_vec, sim.seeded_rand_vec = False, True
        sim.np_random = np.random.Generator(np.random.PCG64(seed))
        sim.init_tcp, sim._reset_hand = sim.tcp_center, lambda steps=50: None
        sim.reset_model()
        del sim._reset_hand
        sim._freeze_rand_vec = True
        if np.any(drawn.start()):
            sim.hand_init_pos = np.asarray(sim.hand_init_pos) + drawn.start()
        gymnasium.envs.mujoco.MujocoEnv.reset(sim)
        if drawn.levels:
            self._appearance.apply(drawn, self._cameras)
        # Its tasks leave the goal marker and some objects drawn where they were before; this moves what depends on
        # positions alone and leaves the physics' state as it is.
        self._mujoco.mj_kinematics(self.model, sim.data)
        self._mujoco.mj_comPos(self.model, sim.data)
        self._mujoco.mj_camlight(self.model, sim.data)
        sim._prev_obs = now = sim._get_curr_obs_combined_no_goal()
        return sim, np.concatenate([now, now, sim._get_pos_goal()])


def _is_array(model: Any, name: str) -> bool:
    with contextlib.suppress(Exception):
        return isinstance(getattr(model, name), np.ndarray)
    return False


@cache
def _library() -> Mapping[str, Any]:
    """Meta-World's classes by name.

    Raises:
        ValueError: it is not installed.
    """
    load_mujoco()
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ModuleNotFoundError as error:
        raise ValueError(f"Meta-World is not installed ({error}): pip install -e '.[mujoco]'") from None
    return ALL_V3_ENVIRONMENTS


def _one_of(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"MetaWorld: {name} is one of {', '.join(options)}, got '{value}'")
