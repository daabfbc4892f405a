"""The expert of every task in houses: what the environment's own oracle would do."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.interaction import Expert


class HouseExpert(Expert):
    """Follows the shortest way greedily and does the task's last action where it ends; deterministic.

    Args:
        env: an environment with an `oracle`, such as `envs.house.tasks.base.HouseTask`.

    Raises:
        ValueError: another kind of environment.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        if not hasattr(type(env), "oracle"):
            raise ValueError(f"HouseExpert demonstrates in houses, not in {type(env).__name__}")

    def reset(self, seed: int) -> None:
        pass

    def act(self) -> np.ndarray:
        """The index of an action, (1,), float32."""
        return self.env.oracle()
