"""A tiny world for tests: a point must be pushed to a goal. A plug-in package, as a user's own would be."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np

from embodied.interaction import Expert
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec


class PointWorld(gymnasium.Env):
    """A point in the unit square, moved by at most 0.1 per step; success within 0.05 of a goal drawn from the seed.

    Args:
        tasks: `left` and `right` differ in the half that goals are drawn from.
        size: pixels of its only camera; 0 for none.
        max_steps: an episode is truncated then.
        delay: seconds a step waits, as a simulator would compute.
        kill_at: (seed, step) at which the process dies, once if `marker` names a file to remember it by.
        raise_at: (seed, step) at which it raises.
        freeze_at: (seed, step) at which it hangs.
        broken: raise while being built.
    """

    def __init__(
        self,
        tasks=("left", "right"),
        size=16,
        max_steps=40,
        delay=0.0,
        kill_at=None,
        marker=None,
        raise_at=None,
        freeze_at=None,
        broken=False,
        renderer="drawn",
        rate=10.0,
    ):
        if broken:
            raise ValueError("no GL library: install libegl1")
        self.tasks, self.size, self.max_steps, self.delay = list(tasks), size, max_steps, delay
        self.kill_at, self.marker, self.raise_at, self.freeze_at = kill_at, marker, raise_at, freeze_at
        self.embodiment = Embodiment(
            name="point",
            action=ActionSpec(("x", "y"), ("m", "m"), (-0.1, -0.1), (0.1, 0.1)),
            state=StateSpec(("x", "y"), ("m", "m")),
            cameras=(Camera("top", size, size, renderer),) if size else (),
            rate=rate,
        )

    def reset(self, *, seed=None, options=None):
        task = (options or {}).get("task", self.tasks[0])
        random = np.random.default_rng([seed, self.tasks.index(task)])
        self.task, self.seed, self.steps = task, seed, 0
        self.point = random.uniform(0, 1, 2)
        self.goal = random.uniform(0, 1, 2) * [0.5, 1] + [0.5 * (task == "right"), 0]
        return self._observation(), {}

    def step(self, action):
        here = [self.seed, self.steps]
        if list(self.kill_at or []) == here and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if list(self.raise_at or []) == here:
            raise KeyError("joint7")
        if list(self.freeze_at or []) == here and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            time.sleep(60)
        time.sleep(self.delay)
        self.steps += 1
        assert np.isfinite(action).all() and np.abs(action).max() <= 0.1 + 1e-6
        self.point = np.clip(self.point + action, 0, 1)
        distance = float(np.linalg.norm(self.goal - self.point))
        success = distance < 0.05
        return self._observation(), -distance, success, self.steps >= self.max_steps, {"success": success}

    def render(self):
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[int(31 * self.point[1]), int(31 * self.point[0])] = 255
        return picture

    def _observation(self):
        observation = {
            "observation.state": self.point.astype(np.float32),
            "observation.environment_state": self.goal.astype(np.float32),
            "task": f"go to the goal on the {self.task}",
        }
        if self.size:
            image = np.full((self.size, self.size, 3), 32, np.uint8)
            for place, colour in ((self.goal, 1), (self.point, 0)):
                column, row = (place * (self.size - 1)).astype(int)
                image[row, column, colour] = 255
            observation["observation.images.top"] = image
        return observation


class PointExpert(Expert):
    """Walks straight to the goal; gives up (stands still) on every seed that is 3 modulo `fails`."""

    def __init__(self, env, fails=0):
        super().__init__(env)
        self.fails = fails

    def reset(self, seed):
        self.lazy = bool(self.fails) and seed % self.fails == 3

    def act(self):
        away = self.env.goal - self.env.point
        return np.zeros(2) if self.lazy else 0.6 * away  # may leave the bounds: what runs it clips


class DrawnPoint(PointWorld):
    """The same, which also draws its truth: the point's x as a level of green, the goal's as one of red."""

    def drawings(self):
        return {"map": np.full((64, 96, 3), (int(255 * self.goal[0]), int(255 * self.point[0]), 0), np.uint8)}
