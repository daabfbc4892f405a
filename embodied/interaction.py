"""The loop of acting: what a policy, an expert, an environment and the execution of a chunk are.

Free of torch, so that simulator processes and a robot's runtime start fast and stay small. `embodied.contracts` offers
the same names beside those of the learned parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from embodied.spec import Embodiment

Observation = Mapping[str, Any]
"""One flat observation as `embodied.spec` lists it, or a batch: the same keys, arrays stacked, `task` a list of str."""

Drawings = Mapping[str, np.ndarray]
"""Pictures for people by name, uint8 (H, W, 3): maps, mostly. Videos show them scaled to the height of the cameras, 256
pixels or a little more, so they are drawn for that or larger. A name keeps its size throughout an episode. Nobody acts
on them, and no demonstration holds them."""


class Cloud(NamedTuple):
    """Coloured points in space.

    Attributes:
        places: (N, 3) float32, metres, in the frame that `observation.pose` leads to.
        colours: (N, 3) uint8.
    """

    places: np.ndarray
    colours: np.ndarray


class Execution(ABC):
    """How the chunks that a head predicts become one action per step, for one episode.

    The agent keeps a copy per slot. Each step it asks `wants_chunk`, gives a fresh chunk if so, and takes `next`.
    """

    @abstractmethod
    def reset(self) -> None:
        """Forget the episode before."""

    @abstractmethod
    def wants_chunk(self) -> bool:
        """Whether the next action needs a chunk predicted from the present observation."""

    @abstractmethod
    def push(self, chunk: np.ndarray) -> None:
        """A chunk (H, A), in the embodiment's units, whose first action is for the present step."""

    @abstractmethod
    def next(self) -> np.ndarray:
        """The action (A,) for the present step."""


class Policy(ABC):
    """Whatever can drive a body: an agent, an export, a remote server, a scripted expert, a random policy.

    A policy serves several episodes at once, each in a *slot*. Slots start and end at different times.

    Attributes:
        embodiment: the body it was made for; None where it takes any.
    """

    embodiment: Embodiment | None = None

    @abstractmethod
    def reset(self, slots: int) -> None:
        """Forget everything and get ready for `slots` episodes at once."""

    @abstractmethod
    def start(self, slot: int, seed: int, task: str) -> None:
        """A new episode begins in `slot`; all its randomness comes from `seed`."""

    @abstractmethod
    def act(self, observations: Observation, slots: Sequence[int]) -> np.ndarray:
        """One action per slot.

        Args:
            observations: a batch; row i belongs to `slots[i]`.
            slots: which slots are asking, without repeats.

        Returns:
            Actions (len(slots), A) in the embodiment's units. A row depends on its own slot's history and seed alone.
        """

    def drawings(self, slot: int) -> Drawings:
        """What it believes, to look at: its map of the episode in `slot`, as of the last `act`.

        Asked for after every `act` while an episode is filmed, and shown beside the cameras; it changes nothing.
        """
        return {}

    def remarks(self) -> list[str]:
        """What is to be said of an evaluation beside its figures, a line each: answers that were no action, say."""
        return []

    def cloud(self, slot: int) -> Cloud | None:
        """What it remembers in space, as of the last `act`; None where that is nothing.

        Asked for after every `act` while an episode is recorded for Rerun; it changes nothing.
        """
        return None


class Expert(ABC):
    """A scripted demonstrator for one kind of environment; it may read the simulator's truth.

    Built with the unwrapped environment it will watch.
    """

    def __init__(self, env: Any) -> None:
        self.env = env

    @abstractmethod
    def reset(self, seed: int) -> None:
        """The environment was just reset; any randomness of the expert comes from `seed`."""

    @abstractmethod
    def act(self) -> np.ndarray:
        """The expert's action (A,) for the environment's present state."""


@runtime_checkable
class Environment(Protocol):
    """A `gymnasium.Env` that says what body it simulates.

    `reset(seed=..., options={"task": name})` fully determines an episode, whatever was run before in the same process.
    `info["success"]` is a bool after every step; the instruction is `observation["task"]`. Rendering contexts are
    created lazily, in the process that uses them.

    Attributes:
        embodiment: its body and conventions.
        tasks: names it accepts in `options["task"]`; the first is the default.
        max_steps: after how many steps an episode is truncated.
    """

    embodiment: Embodiment
    tasks: Sequence[str]
    max_steps: int

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]: ...

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]: ...

    def close(self) -> None: ...


@runtime_checkable
class Illustrated(Protocol):
    """What an environment may offer besides: pictures of the truth, which no policy sees."""

    def drawings(self) -> Drawings:
        """The present state of the episode from outside: a map of it, say. Asked for while an episode is filmed."""


def stack(observations: Sequence[Observation]) -> dict[str, Any]:
    """One batch from single observations with the same keys: arrays stacked, text listed."""
    first = observations[0]
    return {
        key: [o[key] for o in observations] if isinstance(first[key], str) else np.stack([o[key] for o in observations])
        for key in first
    }
