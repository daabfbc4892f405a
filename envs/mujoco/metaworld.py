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

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import gymnasium
import numpy as np

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, texts
from envs.mujoco.opengl import load_mujoco
from envs.mujoco.rendering import View, place_cameras
from envs.mujoco.scene import Ground, MujocoBody, Pristine
from envs.perturbations import KINDS

CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
HAND = 4
"""Meta-World's vector starts with the hand's position and the gripper's opening,"""
OBJECTS = 18
"""goes on to here with up to two objects' positions and quaternions (then the frame before, then the goal)."""
TABLE = ((-0.35, 0.4), (0.35, 0.9))
"""The part of the table's top, which is at height 0, where things may lie about: corners (x, y), metres."""

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

POSE = ("x", "y", "z", "q1", "q2", "q3", "q4")
BODY = Body(
    name="sawyer",
    action=ACTION_SPEC,
    state=STATE_SPEC,
    truth=(*(f"object{i}_{part}" for i in (1, 2) for part in POSE), "goal_x", "goal_y", "goal_z"),
    rate=RATE,
)


class MetaWorld(MujocoBody):
    """One or several Meta-World tasks; implements `embodied.interaction.Environment`.

    The state is the hand's x, y, z (m) and the gripper's opening, 0 to 1. The truth is Meta-World's own: two objects'
    position (m) and quaternion (zeros where there is one; the component order varies by task), and the goal's position
    (m). The reward is Meta-World's own, 0 to 10.

    Args:
        tasks: names without `-v3`; None for all 50.
        cameras: of `CAMERAS`, in order.
        max_steps: after how many steps an episode is truncated; 500 is Meta-World's own, and its most.
        camera_positions: put a camera elsewhere, metres; LeRobot's Meta-World data has corner2 at (0.75, 0.075, 0.7).
        keep: how many tasks stay compiled; compiling takes 0.2 to 0.4 s, keeping 20 MB, or 80 MB with pictures.

    All others: see `MujocoBody`.

    Raises:
        ValueError: an unknown task, camera, mode or perturbation; Meta-World is not installed.
    """

    instructions = texts(__file__, "tasks")
    rephrased = texts(__file__, "rephrased")
    default_steps = 500
    camera_names = CAMERAS
    upside_down = UPSIDE_DOWN
    perturbable = KINDS
    surroundings = ("basic_floor", "table_wood", "wall_metal")

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
        if not 1 <= max_steps <= 500:
            raise ValueError(f"MetaWorld: max_steps is 1 to 500 (Meta-World ends an episode there), got {max_steps}")
        super().__init__(
            tasks,
            cameras,
            height,
            width,
            observe,
            max_steps,
            stop_on_success,
            out_of_bounds,
            camera_positions,
            shadows,
            reflections,
            samples,
            perturb,
            render_mode,
        )
        self._keep = self._renderer.keep = max(keep, 1)
        self._compiled: OrderedDict[str, _Compiled] = OrderedDict()
        self._sim: Any = None
        self._seen = np.zeros(0)

    def body(self, task: str) -> Body:
        _library()
        return BODY

    def begin(self, task: str, seed: int) -> None:
        self._sim, self._seen = self._model_of(task).begin(seed, self.drawn.start())

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        self._seen, reward, _, _, measures = self._sim.step(action)
        return float(reward), bool(measures["success"])

    def feel(self) -> np.ndarray:
        return self._seen[:HAND]

    def truth(self) -> np.ndarray:
        return np.concatenate([self._seen[HAND:OBJECTS], self._seen[-3:]])

    def official(self) -> np.ndarray:
        """Meta-World's own observation (39,), float64, of the present state: what its scripted experts read.

        Raises:
            ValueError: before the first reset.
        """
        self.running("official")
        return self._seen.copy()

    def ground(self) -> Ground:
        now = self._seen
        return Ground(*TABLE, 0.0, [now[HAND : HAND + 3], now[HAND + 7 : HAND + 10], now[-3:]], gap=0.12)

    def scene(self) -> tuple[Any, Any]:
        return self._sim.model, self._sim.data

    def close(self) -> None:
        """Give back the OpenGL context and the compiled tasks; the environment can be reset again."""
        super().close()
        self._compiled.clear()
        self._sim = None

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
        self._pristine = Pristine(self.model)

    def begin(self, seed: int, start: np.ndarray) -> tuple[Any, np.ndarray]:
        """A Meta-World object at the start of the episode that the seed names, and its observation (39,).

        Args:
            seed: where object and goal are.
            start: how far the hand starts off its place, (3,) metres.
        """
        self._pristine.restore()
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
        if np.any(start):
            sim.hand_init_pos = np.asarray(sim.hand_init_pos) + start
        gymnasium.envs.mujoco.MujocoEnv.reset(sim)
        # Its tasks leave the goal marker and some objects drawn where they were before; this moves what depends on
        # positions alone and leaves the physics' state as it is.
        self._mujoco.mj_kinematics(self.model, sim.data)
        self._mujoco.mj_comPos(self.model, sim.data)
        self._mujoco.mj_camlight(self.model, sim.data)
        sim._prev_obs = now = sim._get_curr_obs_combined_no_goal()
        return sim, np.concatenate([now, now, sim._get_pos_goal()])


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
