"""Gymnasium spaces from the plain data that a server describes them by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces


def space_of(data: Mapping[str, Any]) -> spaces.Space:
    """The space that `envs.remote.server.space` described.

    Raises:
        ValueError: of a kind that cannot cross.
    """
    kind = data.get("kind")
    if kind == "Box":
        return spaces.Box(data["low"], data["high"], dtype=np.dtype(data["dtype"]).type)
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if kind == "MultiBinary":
        n = np.asarray(data["n"])
        return spaces.MultiBinary(int(n) if n.ndim == 0 else n)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(data["nvec"], dtype=np.dtype(data["dtype"]).type, start=data["start"])
    if kind == "Text":
        return spaces.Text(data["high"], min_length=data["low"], charset=data["characters"])
    if kind == "Dict":
        return spaces.Dict([(key, space_of(part)) for key, part in data["spaces"]])
    if kind == "Tuple":
        return spaces.Tuple([space_of(part) for part in data["spaces"]])
    if kind == "Sequence":
        return spaces.Sequence(space_of(data["feature"]), stack=data["stack"])
    raise ValueError(f"a space of kind {kind} cannot be served; these can: Box, Discrete, MultiBinary, MultiDiscrete, "
                     "Text, Dict, Tuple, Sequence")  # fmt: skip
