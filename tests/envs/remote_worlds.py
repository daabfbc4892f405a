"""Environments that other processes serve in the tests of `envs.remote`; no part of the project is needed here."""

import collections
import os
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Everything(gymnasium.Env):
    """Observes a bit of every kind of space."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    render_mode = "rgb_array"
    observation_space = spaces.Dict(
        {
            "picture": spaces.Box(0, 255, (7, 5, 3), np.uint8),
            "joints": spaces.Box(-np.inf, np.inf, (4,), np.float64),
            "buttons": spaces.MultiBinary([2, 3]),
            "pair": spaces.Tuple([spaces.Discrete(5, start=-2), spaces.Text(20, min_length=1)]),
            "more": spaces.Dict({"choices": spaces.MultiDiscrete([3, 4]), "half": spaces.Box(-1, 1, (2,), np.float16)}),
            "items": spaces.Sequence(spaces.Discrete(9)),
        }
    )
    action_space = spaces.Dict({"push": spaces.Box(-1, 1, (2,), np.float32), "say": spaces.Text(9)})

    def __init__(self, scale=1.0):
        self.scale = scale

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        for number, part in enumerate(self.observation_space.values()):
            part.seed((seed or 0) + number)
        self.count = 0
        return self._see(), {"options": options, "none": None}

    def step(self, action):
        self.count += 1
        info = {
            "said": action["say"],
            "push": action["push"],
            "array": np.arange(6).reshape(2, 3)[:, ::2],
            "scalar": np.float32(0.1),
            "tuple": (1, [2, (3,)], "naïve"),
            "ordered": collections.OrderedDict(a=np.bool_(True), b=b"raw"),
            "big": 2**63,
            "nan": float("nan"),
            3: "three",
        }
        return self._see(), np.float64(self.scale * self.count), False, bool(self.count == 3), info

    def _see(self):
        return {name: part.sample() for name, part in self.observation_space.items()}

    def render(self):
        return np.full((2, 2, 3), self.count, np.uint8)


class Armed(Everything):
    """The same, moved by two numbers; solved by its second step."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def step(self, action):
        assert action.shape == (2,) and action.dtype == np.float32
        seen, reward, terminated, truncated, info = super().step({"push": action, "say": ""})
        return seen, reward, terminated, truncated, info | {"solved": self.count == 2}


class Faulty(gymnasium.Env):
    """Does what its action says: 0 nothing, 1 raises, 2 dies, 3 hangs, 4 sends much, 5 an object in info, 6 an object
    as observation, 7 waits a little."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(8)

    def __init__(self, broken=None, marker=None):
        self.marker = marker
        if broken:
            raise RuntimeError("no  licence\nfound")

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {"pid": os.getpid()}

    def step(self, action):
        seen, info = np.zeros(1, np.float32), {"pid": os.getpid()}
        if action == 1:
            raise KeyError("drawer")
        if action == 2:
            os.kill(os.getpid(), 9)
        if action == 3:
            time.sleep(600)
        if action == 4:
            seen = np.zeros(300_000)
        if action == 5:
            info["inner"] = {"lock": self, "fine": 1}
        if action == 6:
            seen = self
        if action == 7:
            time.sleep(0.7)
        return seen, 0.0, False, False, info

    def close(self):
        if self.marker:
            with open(self.marker, "w") as file:  # noqa: PTH123
                file.write("closed")


class Counter:
    """An object that is no environment."""

    remote_methods = ("add",)

    def __init__(self):
        self.total = 0

    def add(self, number, twice=False):
        self.total += number * (2 if twice else 1)
        return {"total": self.total, "array": np.full(3, self.total)}

    def secret(self):
        raise AssertionError("not for clients")
