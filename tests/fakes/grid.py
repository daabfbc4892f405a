"""A tiny world whose actions are names: walk over a grid to a goal."""

from __future__ import annotations

import gymnasium
import numpy as np

from embodied.interaction import Expert
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

NAMES = ("turn left", "turn right", "go forward")
WAYS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""What one step forward adds to the place, per heading; the next heading is on the left."""


class GridWorld(gymnasium.Env):
    """A walker on a `size` x `size` grid, which turns and walks; success when it stands on the goal."""

    def __init__(self, size=4, max_steps=20):
        self.size, self.max_steps, self.tasks = size, max_steps, ["reach"]
        names = ("x", "y", "heading x", "heading y", "goal x", "goal y")
        action = ActionSpec(NAMES, ("1",) * 3, (0.0,) * 3, (1.0,) * 3, "categorical", "none", "none")
        camera = Camera("top", size, size, "drawn")
        self.embodiment = Embodiment("walker", action, StateSpec(names, ("1",) * 6), (camera,), rate=1.0)

    def reset(self, *, seed=None, options=None):
        random = np.random.default_rng(seed)
        self.place, self.goal = random.integers(0, self.size, (2, 2))
        if (self.place == self.goal).all():
            self.goal = (self.goal + 1) % self.size
        self.heading = int(random.integers(4))
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        (index,) = action
        assert index in (0, 1, 2)
        if index == 2:
            self.place = np.clip(self.place + WAYS[self.heading], 0, self.size - 1)
        else:
            self.heading = (self.heading + (1 if index == 0 else -1)) % 4
        self.steps += 1
        success = bool((self.place == self.goal).all())
        return self._observation(), float(success), success, self.steps >= self.max_steps, {"success": success}

    def _observation(self):
        state = np.concatenate([self.place, WAYS[self.heading], self.goal])
        image = np.zeros((self.size, self.size, 3), np.uint8)
        image[tuple(self.place)], image[tuple(self.goal)] = (255, 0, 0), (0, 255, 0)
        seen = {"observation.images.top": image, "observation.state": state.astype(np.float32)}
        return seen | {"task": "walk to the goal"}


class GridExpert(Expert):
    """Turns to where the goal is and walks."""

    def reset(self, seed): ...

    def act(self):
        away = self.env.goal - self.env.place
        gains = WAYS @ away
        if gains[self.env.heading] > 0:
            return np.array([2])
        return np.array([0 if gains[(self.env.heading + 1) % 4] > 0 else 1])
