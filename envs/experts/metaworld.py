"""Meta-World's bundled scripted policies as experts: they read where object and goal are, and know how to get there."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from embodied.interaction import Expert


class MetaWorldExpert(Expert):
    """The scripted policy of whatever task the environment runs; deterministic.

    Args:
        env: an `envs.mujoco.metaworld.MetaWorld`, in any observation mode.

    Raises:
        ValueError: another kind of environment.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        if not callable(getattr(env, "official", None)):
            raise ValueError(f"MetaWorldExpert demonstrates in MetaWorld, not in {type(env).__name__}")
        self._policy: Any = None

    def reset(self, seed: int) -> None:
        policies: dict[str, Any] = importlib.import_module("metaworld.policies").ENV_POLICY_MAP
        self._policy = policies[f"{self.env.task}-v3"]()

    def act(self) -> np.ndarray:
        """The policy's action (4,), float32, cut to the bounds as Meta-World itself would."""
        if self._policy is None:
            raise ValueError("MetaWorldExpert: call reset before act")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Environments clip response": so does this
            action = self._policy.get_action(self.env.official())
        return np.clip(np.asarray(action, dtype=np.float32), -1.0, 1.0)
