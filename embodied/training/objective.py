"""One forward pass of training in the number format that pays here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from embodied.contracts import Generators

if TYPE_CHECKING:
    from embodied.agent import Agent
    from embodied.assistant import Assistant
    from embodied.crew import Crew
    from embodied.training.encoder_lesson import EncoderLesson

    Learner = Agent | Crew | Assistant | EncoderLesson
    """What is trained: it has parameters, `loss(batch, generators)` and `save_pretrained(folder)`."""

Precision = Literal["float32", "bfloat16"]
PRECISIONS = ("auto", "float32", "bfloat16")
WORTH = 1.1
"""bfloat16 rounds, so it has to be at least this much faster than float32 to be chosen."""


class Objective(nn.Module):
    """The agent's loss as a forward pass, which is what DistributedDataParallel and torch.compile wrap.

    Args:
        agent: or a crew of several, of which only `loss(batch, generators)` is used.
        precision: bfloat16 is autocast: weights, gradients and optimizer stay float32.
    """

    def __init__(self, agent: Learner, precision: Precision = "float32") -> None:
        super().__init__()
        self.agent: Learner = agent
        self.precision = precision

    def forward(self, batch: Mapping[str, Any], generators: Generators | None = None) -> dict[str, Tensor]:
        """Raw batch to losses, scalars in float32."""
        device = next(self.agent.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            losses = self.agent.loss(batch, generators)
        return {name: value.float() for name, value in losses.items()}


def choose_precision(
    objective: Objective, batch: Mapping[str, Any], generators: Callable[[], Generators]
) -> tuple[Precision, str]:
    """Time a forward and backward pass of this batch in both formats.

    Weights, buffers, gradients and the default random generator are left as they were.

    Returns:
        The format to use, and a sentence that says why.
    """
    device = next(objective.parameters()).device
    if device.type == "cuda":
        good = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "this GPU computes in it") if good else ("float32", "this GPU has no bfloat16")
    if device.type != "cpu":
        return "float32", f"bfloat16 is not tried on {device.type}"
    seconds: dict[Precision, float] = {}
    buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    before = objective.precision
    with torch.random.fork_rng(devices=[]):
        try:
            for precision in ("float32", "bfloat16"):
                objective.precision = precision
                limit = 4 * seconds.get("float32", float("inf"))
                seconds[precision] = _seconds(objective, batch, generators, limit)
        except RuntimeError as error:  # an operation without a bfloat16 kernel
            return "float32", f"bfloat16 does not work here ({str(error).splitlines()[0]})"
        finally:
            objective.precision = before
            objective.zero_grad(set_to_none=True)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
    ratio = seconds["float32"] / seconds["bfloat16"]
    said = f"bfloat16 runs at {ratio:.2f}x the speed of float32 here"
    return ("bfloat16", said) if ratio >= WORTH else ("float32", said)


def _seconds(
    objective: Objective, batch: Mapping[str, Any], generators: Callable[[], Generators], limit: float
) -> float:
    """Median of three passes after one to warm up; just the warm-up if that took longer than `limit`."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        objective(batch, generators())["loss"].backward()
        times.append(time.perf_counter() - start)
        if times[0] > limit:
            return times[0]
    return statistics.median(times[1:])
