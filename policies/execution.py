"""How predicted chunks become one action per step: in pieces, or blended.

`RecedingHorizon` runs the first part of a chunk, then looks again (Diffusion Policy, Chi et al. 2023, arXiv
2303.04137): few predictions, but blind in between. `TemporalEnsemble` looks every step and blends all chunks that had
something to say about it (ACT, Zhao et al. 2023, arXiv 2304.13705): smooth, one prediction per step.
"""

from __future__ import annotations

import numpy as np

from embodied.interaction import Execution


class RecedingHorizon(Execution):
    """Executes the first steps of a chunk, then asks for the next.

    Args:
        steps: how many of the H steps are executed; None executes the whole chunk.

    Raises:
        ValueError: `steps` is not positive; a chunk is shorter than `steps`.
    """

    def __init__(self, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"RecedingHorizon: steps must be at least 1, got {steps}")
        self.steps = steps
        self.reset()

    def reset(self) -> None:
        self._chunk: np.ndarray | None = None
        self._done = 0

    def wants_chunk(self) -> bool:
        return self._chunk is None or self._done >= len(self._chunk)

    def push(self, chunk: np.ndarray) -> None:
        if self.steps is not None and len(chunk) < self.steps:
            raise ValueError(
                f"RecedingHorizon: steps is {self.steps}, but a chunk has only {len(chunk)}: "
                f"lower execution.steps or raise chunk.horizon"
            )
        self._chunk, self._done = np.array(chunk[: self.steps]), 0

    def next(self) -> np.ndarray:
        if self._chunk is None or self.wants_chunk():
            raise ValueError("RecedingHorizon: every step of the last chunk was executed; push the next one first")
        self._done += 1
        return self._chunk[self._done - 1]


class TemporalEnsemble(Execution):
    """Blends every chunk that covers the present step.

    The weights are those of ACT's code (`imitate_episodes.py`): prediction i gets exp(-coefficient * i), counted from
    the *oldest*, i = 0; then they are made to sum to 1.

    Args:
        coefficient: ACT's m; 0 averages, larger trusts old predictions more, negative trusts new ones more.
    """

    def __init__(self, coefficient: float = 0.01) -> None:
        self.coefficient = coefficient
        self.reset()

    def reset(self) -> None:
        self._chunks: list[np.ndarray] = []  # oldest first; the first row of each is for the present step
        self._looked = False

    def wants_chunk(self) -> bool:
        return not self._looked

    def push(self, chunk: np.ndarray) -> None:
        self._chunks.append(np.array(chunk))
        self._looked = True

    def next(self) -> np.ndarray:
        if not self._chunks:
            raise ValueError("TemporalEnsemble: no chunk covers this step; push one first")
        weights = np.exp(-self.coefficient * np.arange(len(self._chunks)))
        action = (weights / weights.sum()) @ np.stack([chunk[0] for chunk in self._chunks]).astype(np.float64)
        self._chunks = [chunk[1:] for chunk in self._chunks if len(chunk) > 1]
        self._looked = False
        return action.astype(np.float32)
