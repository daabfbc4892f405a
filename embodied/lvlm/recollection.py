"""What a map says at each step: its memory written step by step, over whole episodes or one step of a rollout.

In training the rows of a batch are episodes from their beginning on, and every step reads the memory as it was then,
with gradients through all that was written before. A rollout brings its memory and one step at a time. Both take this
path, so that a policy acts on what it was trained on.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.building import build, find_class
from embodied.contracts import MapEncoder, Text


class Tokens(NamedTuple):
    """What one kind of thing says at each step: (B, T, M, D), and which of it is there, (B, T, M)."""

    tokens: Tensor
    present: Tensor


def build_map(node: Mapping[str, Any], width: int, features: int | None) -> MapEncoder:
    """The map of a config node.

    Args:
        node: where it takes `features` and doesn't say how many, they are those of the image encoder.
        width: D.
        features: of the image encoder; None: there is none.

    Raises:
        ValueError: it is no memory that becomes tokens, or whatever its class objects to.
    """
    target: Any = find_class(str(node.get("_target_", "")))
    if not all(hasattr(target, name) for name in ("begin", "update", "read", "forward")):
        raise ValueError(f"model.map: {target.__name__} is no memory that becomes tokens, such as map=occupancy")
    if "features" in inspect.signature(target).parameters and node.get("features") is None:
        if features is None:
            raise ValueError("model.map.features is not given, and there is no image encoder to have them of")
        node = {**node, "features": features}
    made: MapEncoder = build(node, (nn.Module,), width=width)
    return made


def recall(
    encoder: MapEncoder,
    observed: Mapping[str, Tensor],
    text: Text,
    steps: Tensor,
    memory: Any = None,
    slots: Sequence[int] | Tensor | None = None,
) -> Tokens:
    """Write each step into a map's memory and read what it is then.

    Args:
        encoder: the map.
        observed: what it reads, (K, ...), of the K real steps, row by row.
        text: the instruction of each row.
        steps: which of (B, T) steps are real.
        memory: of episodes that go on; None: the rows are episodes from their beginning on.
        slots: which of the memory's each row goes on with; a row that repeats an earlier one's slot writes nothing.

    Returns:
        (K, 1, M, D).
    """
    device, rows = steps.device, len(steps)
    memory = encoder.begin(rows) if memory is None else memory
    slot = torch.arange(rows, device=device) if slots is None else torch.as_tensor(slots, device=device)
    again = torch.tensor([n in slot[:i].tolist() for i, n in enumerate(slot.tolist())], device=device)
    place = (steps.flatten().cumsum(0) - 1).view_as(steps)  # of each real step among the K
    told, order = [], []
    for step in range(steps.shape[1]):
        here = steps[:, step].nonzero().squeeze(1)
        new = here[~again[here]]
        if len(new):
            index = place[new, step]
            encoder.update(memory, {key: value[index.to(value.device)] for key, value in observed.items()}, slot[new])
        if len(here):
            told.append(encoder(memory, Text(text.tokens[here], text.present[here]), slot[here]))
            order.append(place[here, step])
    back = torch.cat(order).argsort()
    most = max(said.shape[1] for said, _ in told)  # a graph grows
    tokens = torch.cat([F.pad(said, (0, 0, 0, most - said.shape[1])) for said, _ in told])
    present = torch.cat([F.pad(there, (0, most - there.shape[1])) for _, there in told])
    return Tokens(tokens[back].unsqueeze(1), present[back].unsqueeze(1))
