"""A checkpoint: the agent as anyone can load it, and beside it the exact state to train on from.

    config.json, model.safetensors, tokenizer/   the agent, with averaged weights (EMA) and merged LoRA if on
    training_state/
        trainer.json            step, precision, and the circumstances that exactness depends on
        optimizer.safetensors   `<entry>/<parameter>`
        ema.safetensors         averaged weights, where EMA is on
        weights.safetensors     raw weights, where the agent's own file has others

A checkpoint is written under another name and appears whole or not at all.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embodied.files import atomic_folder, read_json, write_json
from embodied.training.ema import EMA
from embodied.training.lora import kept_apart, merged
from embodied.training.optimizer import load_state, state_tensors

if TYPE_CHECKING:
    from embodied.training.objective import Learner

STATE = "training_state"
TRAINER, OPTIMIZER, AVERAGE, RAW = "trainer.json", "optimizer.safetensors", "ema.safetensors", "weights.safetensors"
FORMAT = "embodied-training/1"


def save(
    folder: Path,
    agent: Learner,
    optimizer: torch.optim.Optimizer,
    ema: EMA | None,
    facts: Mapping[str, Any],
) -> None:
    """Write a checkpoint.

    Args:
        facts: JSON for `trainer.json`; `step` and whatever else is to be known on resuming.

    Raises:
        OSError: it could not be written; nothing that was there is lost.
    """
    with writing(folder), atomic_folder(folder) as temporary:
        state = temporary / STATE
        state.mkdir()
        raw = _raw_names(agent, ema)
        if raw:
            _save({name: p.detach() for name, p in agent.named_parameters() if name in raw}, state / RAW)
        if ema is not None:
            _save(ema.shadow, state / AVERAGE)
        _save(state_tensors(optimizer), state / OPTIMIZER)
        write_json(state / TRAINER, {"format": FORMAT, **facts})
        with ExitStack() as stack:
            if ema is not None:
                stack.enter_context(ema.applied())
            stack.enter_context(merged(agent))
            agent.save_pretrained(temporary)


def facts(folder: Path) -> dict[str, Any]:
    """`trainer.json` of a checkpoint.

    Raises:
        ValueError: it is missing or damaged.
    """
    file = folder / STATE / TRAINER
    if not file.is_file():
        raise ValueError(f"{folder} is no checkpoint to continue from: there is no {STATE}/{TRAINER} in it")
    found = read_json(file)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{file} is not the state of a training that this version can continue")
    return found


def load_raw(folder: Path, agent: nn.Module, ema: EMA | None) -> None:
    """Give an agent loaded from a checkpoint its raw weights, and the average its own.

    Raises:
        ValueError: a file is missing, damaged, or of another agent.
    """
    wanted = _raw_names(agent, ema)
    if wanted:
        raw = _load(folder / STATE / RAW)
        parameters = {name: p for name, p in agent.named_parameters() if name in wanted}
        _check(folder / STATE / RAW, parameters, raw)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(raw[name])
    if ema is not None:
        average = _load(folder / STATE / AVERAGE)
        _check(folder / STATE / AVERAGE, ema.shadow, average)
        ema.load(average)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer the state it was saved with.

    Raises:
        ValueError: the file is missing, damaged, or of another agent.
    """
    file = folder / STATE / OPTIMIZER
    try:
        load_state(optimizer, _load(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}" if str(file) not in str(error) else str(error)) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns safetensors' own kind of error for a full disk into the `OSError` that it is."""
    try:
        yield
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number.group(1)) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error


def _raw_names(agent: nn.Module, ema: EMA | None) -> set[str]:
    """Parameters whose raw value is not what the agent's own file holds."""
    return kept_apart(agent) | (set(ema.shadow) if ema is not None else set())


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(file), metadata={"format": "pt"})


def _load(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(f"{file} is missing; {_advice(file)}")
    try:
        return load_file(str(file))
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}); {_advice(file)}") from None


def _advice(file: Path) -> str:
    return f"remove {file.parent.parent} to continue from the checkpoint before it"


def _check(file: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            raise ValueError(
                f"{file} does not fit this agent: '{name}' is missing or has another shape; {_advice(file)}"
            )
