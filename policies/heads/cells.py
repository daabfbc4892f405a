"""Recurrent layers as heads use them: built by name, begun empty, and read one step further in a rollout."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from embodied.contracts import Memory

Cell = Literal["lstm", "gru"]


def recurrent(head: str, cell: Cell, inputs: int, size: int, layers: int, dropout: float = 0.0) -> nn.RNNBase:
    """LSTM or GRU that reads (B, T, `inputs`).

    Raises:
        ValueError: in `head`'s name, an unknown cell or a size below 1.
    """
    if cell not in get_args(Cell):
        raise ValueError(f"{head}: cell is one of {', '.join(get_args(Cell))}, got {cell!r}")
    if size < 1 or layers < 1:
        raise ValueError(f"{head}: size and layers must be at least 1, got {size} and {layers}")
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    return kind(inputs, size, layers, batch_first=True, dropout=dropout)


def begin(rnn: nn.RNNBase, rows: int) -> Memory:
    """The state of `rows` episodes that have not begun: (rows, layers, size), twice for an LSTM."""
    parts = 2 if isinstance(rnn, nn.LSTM) else 1
    device = next(rnn.parameters()).device
    return tuple(torch.zeros(rows, rnn.num_layers, rnn.hidden_size, device=device) for _ in range(parts))


def read_next(rnn: nn.RNNBase, step: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """What follows from one more step (B, 1, inputs): features (B, size) and the state with it."""
    state = tuple(part.transpose(0, 1).contiguous() for part in memory)  # torch has layers first
    with torch.autocast(step.device.type, enabled=False):
        seen, after = rnn(step.float(), state if len(state) > 1 else state[0])
    after = after if isinstance(after, tuple) else (after,)
    return seen[:, -1], tuple(part.transpose(0, 1) for part in after)
