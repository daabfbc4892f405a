"""A served environment as the rest of the project sees one: with a body, tasks, an instruction and a success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from embodied.building import nearest
from embodied.spec import DEPTH, ENVIRONMENT_STATE, IMAGES, STATE, TASK, ActionSpec, Camera, Embodiment, StateSpec
from envs.remote import server
from envs.remote.env import RemoteEnv

KEYS = (STATE, ENVIRONMENT_STATE, IMAGES, DEPTH)


class RemoteBody(RemoteEnv):
    """A remote environment that satisfies `embodied.interaction.Environment`.

    One that says itself what body it simulates (it has `embodiment` and `tasks`) is passed through as it is. For any
    other Gymnasium environment with a `Box` or `Discrete` action space, the settings below say what its numbers are;
    what its actions mean physically is not known, so their control and frame are `none`.

    Args:
        env, arguments, python, imports, address, token_file, timeout, start_timeout, max_message: see `RemoteEnv`.
        tasks: their names; the environment's own where it says them.
        instruction: what is asked for in words; the task's name where left out.
        keys: where each key of our observations is in the served one: `{observation.state: joints.position,
            observation.images.front: rgb}`; a dot enters a `Dict` or `Tuple`, an empty path is all of it. Left out: a
            vector is the state, a picture is the camera `main`.
        success: the key of `info` that says it.
        success_return: instead: an episode whose rewards sum to this, or more, is a success.
        max_steps: after how many steps an episode is truncated; None for the environment's own limit.
        rate: actions per second; None for the `render_fps` of its metadata.

    Raises:
        ValueError: what `RemoteEnv` raises; an action space of another kind; a key or path that does not exist; no
            limit of steps.
    """

    def __init__(
        self,
        env: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        python: str | None = None,
        imports: Sequence[str] = (),
        address: str | None = None,
        token_file: str | None = None,
        timeout: float = 60.0,
        start_timeout: float = 300.0,
        max_message: int = server.LIMIT,
        tasks: Sequence[str] | None = None,
        instruction: str | None = None,
        keys: Mapping[str, str] | None = None,
        success: str = "success",
        success_return: float | None = None,
        max_steps: int | None = None,
        rate: float | None = None,
    ) -> None:
        super().__init__(env, arguments, python, imports, address, token_file, timeout, start_timeout, max_message)
        self.native = hasattr(self, "embodiment")
        try:
            if tasks and self.native:
                for task in tasks:
                    if task not in self.tasks:
                        raise ValueError(f"{self._link.name} has no task '{task}'{nearest(task, self.tasks)}")
            if keys and self.native:
                raise ValueError(f"{self._link.name} names its observations itself: it takes no keys")
            self.max_steps = max_steps or self.max_steps
            if not self.max_steps or self.max_steps < 1:
                raise ValueError(f"{self._link.name} has no limit of steps: give max_steps, 1 or more")
            self.success, self.success_return = success, success_return
            self.tasks = tuple(tasks or getattr(self, "tasks", None) or ["task"])
            self.instruction = instruction
            if not self.native:
                self.keys = dict(keys) if keys else self._usual_keys()
                rate = rate or float(self.metadata.get("render_fps") or 0) or 1.0
                self.embodiment = self._embodiment(rate)
                self.observation_space = self._space()
        except ValueError:
            self._link.close()
            raise
        self._steps, self._return = 0, 0.0
        self._task = self.tasks[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the episode that (seed, task) names.

        Raises:
            ValueError: a task that is none of `tasks`; an observation that lacks a key; see `RemoteEnv.reset`.
        """
        options = dict(options or {})
        self._task = options.get("task", self.tasks[0])
        if self._task not in self.tasks:
            raise ValueError(f"this environment has no task '{self._task}'{nearest(self._task, self.tasks)}")
        self._steps, self._return = 0, 0.0
        if self.native:
            return super().reset(seed=seed, options=options | {"task": self._task})
        options.pop("task", None)
        observation, info = super().reset(seed=seed, options=options or None)
        return self._seen(observation), info | {"success": False, "task": self._task}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action (A,), as `embodiment.action` declares it.

        Raises:
            ValueError: an action of another shape, or not finite; no success in `info`; see `RemoteEnv.step`.
        """
        if not self.native:
            action = self._action(action)
        observation, reward, terminated, truncated, info = super().step(action)
        self._steps += 1
        self._return += float(reward)
        truncated = bool(truncated) or self._steps >= (self.max_steps or 0)
        if self.native:
            return observation, float(reward), bool(terminated), truncated, info
        if self.success_return is not None:
            success = self._return >= self.success_return
        elif self.success in info:
            success = bool(info[self.success])
        else:
            has = ", ".join(sorted(map(str, info))) or "nothing"
            raise ValueError(
                f"{self._link.name} does not say whether it is solved: info has no '{self.success}', it has {has}; "
                "name the key with success, or give success_return"
            )
        info = info | {"success": success, "task": self._task}
        return self._seen(observation), float(reward), bool(terminated), truncated, info

    def render(self) -> Any:
        """The served environment's picture; None where it was made without a `render_mode`."""
        return super().render() if self.native or self.render_mode else None

    def _action(self, action: Any) -> Any:
        given = np.asarray(action, np.float32).reshape(-1)
        width = self.embodiment.action.width
        if given.shape != (width,) or not np.isfinite(given).all():
            raise ValueError(f"an action is {width} finite numbers, got {np.asarray(action).tolist()}")
        if isinstance(self.action_space, spaces.Discrete):
            return int(self.action_space.start) + round(float(given[0]))
        assert isinstance(self.action_space, spaces.Box)
        return given.reshape(self.action_space.shape).astype(self.action_space.dtype)

    def _seen(self, observation: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {TASK: self.instruction or self._task}
        for key, path in self.keys.items():
            value = np.asarray(_at(observation, path, self._link.name))
            if key.startswith(IMAGES):
                seen[key] = value.astype(np.uint8)
            elif key.startswith(DEPTH):
                seen[key] = value.astype(np.float32).reshape(value.shape[:2])
            else:
                seen[key] = value.astype(np.float32).reshape(-1)
        return seen

    def _usual_keys(self) -> dict[str, str]:
        space = self.observation_space
        if isinstance(space, spaces.Box):
            is_picture = space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3
            return {IMAGES + "main" if is_picture else STATE: ""}
        parts = ", ".join(space.spaces) if isinstance(space, spaces.Dict) else type(space).__name__
        raise ValueError(
            f"{self._link.name} observes {parts}: say in keys what is what, such as {{{STATE}: {parts.split(',')[0]}}}"
        )

    def _embodiment(self, rate: float) -> Embodiment:
        name = (str(self._server["env"]) if self._address is None else "remote").rpartition(":")[2]
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            names = tuple(str(value) for value in range(int(space.n)))
            low, high = (0.0,) * len(names), (1.0,) * len(names)
            action = ActionSpec(names, ("1",) * len(names), low, high, "categorical", "none", "none", frame="none")
        elif isinstance(space, spaces.Box):
            names = tuple(f"action_{place}" for place in range(int(np.prod(space.shape))))
            low, high = (tuple(map(float, bound.reshape(-1))) for bound in (space.low, space.high))
            action = ActionSpec(names, ("1",) * len(names), low, high, "continuous", "none", "none", frame="none")
        else:
            raise ValueError(f"{self._link.name} takes a {type(space).__name__} as action; a Box or Discrete is needed")
        state, cameras = None, []
        for key, path in self.keys.items():
            part = _at(self.observation_space, path, self._link.name)
            if key == STATE:
                width = int(np.prod(part.shape or (1,)))
                state = StateSpec(tuple(f"state_{i}" for i in range(width)), ("1",) * width, frame="none")
            elif key.startswith(IMAGES):
                if part.shape is None or len(part.shape) != 3 or part.shape[2] != 3:
                    raise ValueError(f"{self._link.name}: '{path}' is no picture (H, W, 3), it is {part}")
                camera = key.removeprefix(IMAGES)
                height, width, _ = part.shape
                cameras.append(Camera(camera, height, width, f"remote:{name}", DEPTH + camera in self.keys))
            elif key != ENVIRONMENT_STATE and not key.startswith(DEPTH):
                raise ValueError(f"there is no observation '{key}'; keys are {', '.join(KEYS)} with a camera's name")
        return Embodiment(name, action, state, tuple(cameras), rate)

    def _space(self) -> spaces.Dict:
        parts: dict[str, spaces.Space] = {TASK: spaces.Text(1000)}
        for key, path in self.keys.items():
            shape = _at(self.observation_space, path, self._link.name).shape or (1,)
            if key.startswith(IMAGES):
                parts[key] = spaces.Box(0, 255, shape, np.uint8)
            elif key.startswith(DEPTH):
                parts[key] = spaces.Box(0, np.inf, shape[:2], np.float32)
            else:
                parts[key] = spaces.Box(-np.inf, np.inf, (int(np.prod(shape)),), np.float32)
        return spaces.Dict(parts)


def _at(value: Any, path: str, name: str) -> Any:
    """What a path leads to, in an observation or in its space."""
    for word in path.split(".") if path else ():
        try:
            value = value[int(word) if isinstance(value, tuple | list | spaces.Tuple) else word]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"{name}: there is no '{path}' in what it observes") from None
    return value
