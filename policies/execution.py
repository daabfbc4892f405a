"""How predicted chunks become one action per step: in pieces, or blended.

`RecedingHorizon` runs the first part of a chunk, then looks again (Diffusion Policy, Chi et al. 2023, arXiv
2303.04137): few predictions, but blind in between. `TemporalEnsemble` looks every step and blends all chunks that had
something to say about it (ACT, Zhao et al. 2023, arXiv 2304.13705): smooth, one prediction per step.
`AdaptiveEnsemble` blends only those that agree with the newest (CogACT, Li et al. 2024, arXiv 2411.19650), so that it
does not average two ways round an obstacle.

All count a head's latency in steps, for a simulator that would otherwise wait while a robot does not: a chunk arrives
`latency` steps after the observation it was predicted from. What it says about the steps in between comes too late and
is dropped, the chunks that had arrived before go on meanwhile, and the next observation is looked at only when the last
prediction has arrived. An episode's first chunk is waited for: nothing has begun yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied.interaction import Execution


@dataclass(frozen=True)
class _Chunk:
    """A chunk, the step its first action is for, and the step from which it can be used."""

    actions: np.ndarray
    start: int
    arrival: int

    def at(self, step: int) -> np.ndarray:
        return self.actions[step - self.start]

    def covers(self, step: int) -> bool:
        return self.arrival <= step < self.start + len(self.actions)


class ChunkExecution(Execution):
    """Keeps the chunks that may still be needed; subclasses say which of them speak.

    Args:
        latency: steps that pass between an observation and the arrival of its chunk: the seconds a prediction takes, on
            the machine that will run it, times the body's rate, rounded up. With 0, the simulator waits.

    Raises:
        ValueError: `latency` is negative; a chunk is over before it arrives.
    """

    def __init__(self, latency: int = 0) -> None:
        if latency < 0:
            raise ValueError(f"{type(self).__name__}: latency must not be negative, got {latency}")
        self.latency = latency
        self.reset()

    def reset(self) -> None:
        self._chunks: list[_Chunk] = []  # oldest first
        self._step = 0
        self._due = 0  # the step at which the next chunk is wanted

    def wants_chunk(self) -> bool:
        return self._step >= self._due

    def push(self, chunk: np.ndarray) -> None:
        if len(chunk) <= self.latency:
            raise ValueError(
                f"{type(self).__name__}: a chunk has {len(chunk)} actions, all of which are over before it arrives: "
                f"lower execution.latency ({self.latency}) or raise chunk.horizon"
            )
        self._due = self._step + self._pause(len(chunk))
        arrival = self._step + self.latency if self._chunks else self._step
        self._chunks.append(_Chunk(np.array(chunk), self._step, arrival))

    def next(self) -> np.ndarray:
        self._chunks = [c for c in self._chunks if c.start + len(c.actions) > self._step]
        speaking = [c for c in self._chunks if c.covers(self._step)]
        if not speaking:
            raise ValueError(f"{type(self).__name__}: no chunk covers this step; push the next one first")
        action = self._choose(np.stack([c.at(self._step) for c in speaking]))
        self._step += 1
        return action

    def _pause(self, horizon: int) -> int:
        """Steps from one chunk of `horizon` actions to the next: at once, but one prediction at a time."""
        return max(1, self.latency)

    def _choose(self, predictions: np.ndarray) -> np.ndarray:
        """One action (A,) from what the chunks that cover this step say about it, (N, A), the oldest first."""
        raise NotImplementedError


class RecedingHorizon(ChunkExecution):
    """Executes the first steps of a chunk, then asks for the next.

    Args:
        steps: how many of the H steps are executed; None executes all that are left after `latency`. With 1, every step
            is the newest prediction's.
        latency: see `ChunkExecution`.

    Raises:
        ValueError: `steps` is not positive; a chunk is shorter than `steps` and `latency` together; `steps` is less
            than `latency`, so that the next prediction cannot be ready in time.
    """

    def __init__(self, steps: int | None = None, latency: int = 0) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"RecedingHorizon: steps must be at least 1, got {steps}")
        if steps is not None and steps < latency:
            raise ValueError(
                f"RecedingHorizon: steps is {steps}, but a prediction takes {latency} steps: raise execution.steps, "
                "or the next chunk comes too late"
            )
        self.steps = steps
        super().__init__(latency)

    def push(self, chunk: np.ndarray) -> None:
        steps = len(chunk) - self.latency if self.steps is None else self.steps
        if len(chunk) < steps + self.latency or steps < self.latency:
            late = f" and latency {self.latency}" if self.latency else ""
            raise ValueError(
                f"RecedingHorizon: steps is {steps}{late}, but a chunk has only {len(chunk)}: "
                f"lower execution.{'latency' if self.steps is None else 'steps'} or raise chunk.horizon"
            )
        super().push(chunk)

    def _pause(self, horizon: int) -> int:
        return horizon - self.latency if self.steps is None else self.steps

    def _choose(self, predictions: np.ndarray) -> np.ndarray:
        return predictions[-1]

    def next(self) -> np.ndarray:
        if self.wants_chunk():  # older chunks may reach further, but are not what was asked for
            raise ValueError("RecedingHorizon: every step of the last chunk was executed; push the next one first")
        return super().next()


class TemporalEnsemble(ChunkExecution):
    """Blends every chunk that covers the present step.

    The weights are those of ACT's code (`imitate_episodes.py`): prediction i gets exp(-coefficient * i), counted from
    the *oldest*, i = 0; then they are made to sum to 1.

    Args:
        coefficient: ACT's m; 0 averages, larger trusts old predictions more, negative trusts new ones more.
        latency: see `ChunkExecution`.
    """

    def __init__(self, coefficient: float = 0.01, latency: int = 0) -> None:
        self.coefficient = coefficient
        super().__init__(latency)

    def _choose(self, predictions: np.ndarray) -> np.ndarray:
        return _blend(predictions, np.exp(-self.coefficient * np.arange(len(predictions))))


class AdaptiveEnsemble(ChunkExecution):
    """Blends the chunks that cover the present step by how much they agree with the newest.

    The weights are those of CogACT's code (`sim_cogact/adaptive_ensemble.py`): prediction i gets exp(alpha * cosine of
    its angle with the newest prediction); then they are made to sum to 1.

    Args:
        alpha: 0 averages, larger trusts those that agree more (official code: 0.1).
        chunks: how many of the newest predictions are blended at most; None for no limit but the horizon.
        latency: see `ChunkExecution`.

    Raises:
        ValueError: `chunks` is not positive.
    """

    def __init__(self, alpha: float = 0.1, chunks: int | None = None, latency: int = 0) -> None:
        if chunks is not None and chunks < 1:
            raise ValueError(f"AdaptiveEnsemble: chunks must be at least 1, got {chunks}")
        self.alpha, self.chunks = alpha, chunks
        super().__init__(latency)

    def _choose(self, predictions: np.ndarray) -> np.ndarray:
        predictions = predictions[-self.chunks :] if self.chunks else predictions
        newest = predictions[-1].astype(np.float64)
        lengths = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
        return _blend(predictions, np.exp(self.alpha * (predictions @ newest) / (lengths + 1e-7)))


def _blend(predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return ((weights / weights.sum()) @ predictions.astype(np.float64)).astype(np.float32)
