"""This process among those that train together, through Accelerate: one, or several started by `accelerate launch`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

T = TypeVar("T")


def make_accelerator(device: str = "auto") -> Accelerator:
    """Accelerate set up for `auto`, `cpu` or `cuda`; the processes are those that were launched.

    Raises:
        ValueError: an unknown device, or no GPU where one was asked for.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"trainer.device is auto, cpu or cuda, got '{device}'")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("trainer.device=cuda, but torch sees no GPU here; trainer.device=cpu trains without one")
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # a head uses the part of the model it needs
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=6))  # while one decodes a dataset, the others wait
    return Accelerator(cpu=device == "cpu" or not torch.cuda.is_available(), kwargs_handlers=[unused, patient])


def total(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """Sum over the processes."""
    if accelerator.num_processes == 1:
        return tensor
    summed: Tensor = accelerator.reduce(tensor.to(accelerator.device), "sum")
    return summed


def main_first(accelerator: Accelerator, work: Callable[[bool], T]) -> T:
    """Do the same in every process, in the main one (`work(True)`) before the others; its failure ends all quietly."""
    failure: BaseException | None = None
    result: Any = None
    if accelerator.is_main_process:
        try:
            result = work(True)
        except Exception as error:
            failure = error
    failed = total(accelerator, torch.tensor([float(failure is not None)])).item() > 0
    if failure is not None:
        raise failure
    if failed:
        raise SystemExit(2)
    return result if accelerator.is_main_process else work(False)


@contextmanager
def signals() -> Iterator[list[int]]:
    """Inside the block SIGTERM and SIGINT are noted in the list and end nothing; a second one ends the process."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        for stop in (signal.SIGTERM, signal.SIGINT):
            before[stop] = signal.getsignal(stop)
            signal.signal(stop, note)
    except ValueError:  # not the main thread: signals are somebody else's business
        pass
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
