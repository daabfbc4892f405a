"""Environments of gymnasium-robotics (Farama) behind one adapter; a family states its tasks, body and cameras.

What this adds to the library:

- **The seed decides the episode**: before each one, model and data go back to how they were when compiled, so that it
  equals, bit by bit, the first episode of a new official environment that was reset with the same seed.
- **A policy sees what a robot would**: `observation.state` is what the body feels; where objects and goals are is in
  `observation.environment_state`, which pixel policies do not have. Goals are visible in the pictures.
- **Cameras and fast pictures**: `envs.mujoco.rendering`; the library's own viewer is not used.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.mujoco.opengl import load_mujoco
from envs.mujoco.scene import MujocoBody, Snapshot, Viewpoint, cameras_added


class GymnasiumRobotics(MujocoBody):
    """One family; see `MujocoBody` for the arguments.

    Attributes:
        sim: the official environment that runs the present episode.
        seen: its last observation.
    """

    official: ClassVar[Mapping[str, str]]
    """The library's own name of each task's environment."""

    sim: Any = None
    seen: Any = None

    def options(self, task: str) -> dict[str, Any]:
        """Arguments for the official environment."""
        return {}

    def viewpoints(self, task: str) -> Mapping[str, Viewpoint]:
        """Cameras to add to the model."""
        return {}

    def begun(self) -> None:
        """Called when the official environment has been reset: a place to move goal markers."""

    @abstractmethod
    def succeeded(self, info: Mapping[str, Any]) -> bool:
        """Whether the task is done, from what the official step returned."""

    def official_environment(self, task: str) -> Any:
        """The official environment of a task, compiled once."""
        return self._compile(task)[0]

    def begin(self, task: str, seed: int) -> None:
        self.sim, snapshot = self._compile(task)
        snapshot.restore()
        self.seen, _ = self.sim.reset(seed=seed)
        self.begun()

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        self.seen, reward, _, _, info = self.sim.step(action)
        return float(reward), self.succeeded(info)

    def scene(self) -> tuple[Any, Any]:
        return self.sim.model, self.sim.data

    def _compile(self, task: str) -> tuple[Any, Snapshot]:
        made: dict[str, tuple[Any, Snapshot]] = self.__dict__.setdefault("_compiled", {})
        if task not in made:
            _library()
            # Some of them write their model to a file with a name of the time of day and leave it there.
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                before, tempfile.tempdir = tempfile.tempdir, folder
                try:
                    with cameras_added(self.viewpoints(task)):
                        official = gymnasium.make(self.official[task], disable_env_checker=True, **self.options(task))
                finally:
                    tempfile.tempdir = before
            sim: Any = official.unwrapped
            self.place(sim.model)
            made[task] = sim, Snapshot(sim.model, sim.data)
        return made[task]


@cache
def _library() -> None:
    load_mujoco()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # it prints news of its releases
            warnings.simplefilter("ignore")
            import gymnasium_robotics
    except ModuleNotFoundError as error:
        raise ValueError(f"gymnasium-robotics is not installed ({error}): pip install -e '.[mujoco]'") from None
    gymnasium.register_envs(gymnasium_robotics)
