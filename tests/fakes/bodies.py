"""Bodies that see the same world and move in it differently: what a crew is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embodied.data import DatasetWriter
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec
from fakes.point import PointExpert, PointWorld

REACH = 0.1


class Body(PointWorld):
    """A point pushed to its goal by other means: `turn` rotates what x and y of an action do, and further dimensions
    of the action do nothing. Its state is `dims` numbers that start with the point's place.

    Args:
        name: the body's.
        turn: radians.
        spare: how many dimensions of an action do nothing.
        dims: size of the state; 0 for none.
        cameras: names; all show the same picture.
        others: see `PointWorld`.
    """

    def __init__(self, name="point", turn=0.0, spare=0, dims=2, cameras=("top",), **others):
        super().__init__(**others)
        c, s = np.cos(turn), np.sin(turn)
        self.turn, self.dims, self.cameras = np.array([[c, -s], [s, c]]), dims, tuple(cameras)
        names = ("x", "y", *(f"spare{i}" for i in range(spare)))
        reach = (2 * REACH,) * len(names)
        units = ("m",) * len(names)
        self.embodiment = Embodiment(
            name=name,
            action=ActionSpec(names, units, tuple(-r for r in reach), reach),
            state=StateSpec(tuple(f"s{i}" for i in range(dims)), ("m",) * dims) if dims else None,
            cameras=tuple(Camera(camera, self.size, self.size, "drawn") for camera in cameras),
            rate=10.0,
        )

    def step(self, action):
        push = np.clip(self.turn @ np.asarray(action)[:2], -REACH, REACH)
        return super().step(push)

    def _observation(self):
        observation = super()._observation()
        place = np.zeros(self.dims, np.float32)
        place[: min(self.dims, 2)] = observation.pop("observation.state")[: self.dims]
        image = observation.pop("observation.images.top")
        pictures = {f"observation.images.{camera}": image for camera in self.cameras}
        return observation | pictures | ({"observation.state": place} if self.dims else {})


class BodyExpert(PointExpert):
    """Straight to the goal, in the body's own terms."""

    def act(self):
        push = np.clip(super().act(), -REACH, REACH)
        spare = self.env.embodiment.action.dim - 2
        return np.concatenate([self.env.turn.T @ push, np.zeros(spare)])


def write_body(root: str | Path, body: Body, episodes: int, seed: int = 0) -> Path:
    """Demonstrations of a body's expert, as any dataset is written."""
    expert = BodyExpert(body)
    with DatasetWriter(root, body.embodiment) as writer:
        for i in range(episodes):
            observation, _ = body.reset(seed=seed + i, options={"task": body.tasks[i % len(body.tasks)]})
            expert.reset(seed + i)
            columns, ended = {}, False
            task = observation["task"]
            while not ended:
                action = expert.act().astype(np.float32)
                seen = {k: v for k, v in observation.items() if k not in ("task", "observation.environment_state")}
                for key, value in (seen | {"action": action}).items():
                    columns.setdefault(key, []).append(value)
                observation, _, success, late, _ = body.step(action)
                ended = success or late
            writer.add_episode({key: np.stack(values) for key, values in columns.items()}, task)
    return Path(root)


def success_rate(policy, body: Body, episodes: int = 20, seed: int = 1000) -> float:
    """Of a policy on a body, over unseen seeds."""
    policy.reset(1)
    won = 0
    for i in range(episodes):
        task = body.tasks[i % len(body.tasks)]
        observation, _ = body.reset(seed=seed + i, options={"task": task})
        policy.start(0, seed + i, task)
        ended = False
        while not ended:
            batch = {k: [v] if isinstance(v, str) else v[None] for k, v in observation.items()}
            spec = body.embodiment.action
            observation, _, success, late, _ = body.step(np.clip(policy.act(batch, [0])[0], spec.low, spec.high))
            won, ended = won + success, success or late
    return won / episodes
