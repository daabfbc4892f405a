"""Numbers to bins and back: how an action becomes a few of many tokens.

Two published ways, which differ by half a bin and in what +1 becomes:

- `openvla`: OpenVLA's `ActionTokenizer` (Kim et al. 2024, arXiv 2406.09246): intervals between evenly spaced edges, a
  bin stands for the middle of its interval.
- `rt1`: RT-1's `RT1ActionTokenizer` (Brohan et al. 2022, arXiv 2212.06817): truncation, and a bin stands for its lower
  edge. Dimensions that are a one-hot choice, as RT-1's `terminate_episode`, are one token together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Binnings = Literal["openvla", "rt1"]


class Binning(nn.Module, ABC):
    """Actions (..., A) in [-1, 1] to bins (..., S), int64 in [0, `bins`), and back.

    Args:
        action_dim: A.
        bins: how many there are.

    Attributes:
        slots: S, how many bins one action takes.
    """

    def __init__(self, action_dim: int, bins: int) -> None:
        super().__init__()
        if not 2 <= bins <= 256:
            raise ValueError(f"{type(self).__name__}: bins must be 2 to 256, got {bins}")
        self.action_dim, self.bins, self.slots = action_dim, bins, action_dim

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """Actions (..., A) to bins (..., S); magnitudes above 1 are clipped."""

    @abstractmethod
    def decode(self, bins: Tensor) -> Tensor:
        """Bins (..., S) to the actions they stand for, (..., A), float32."""


class OpenVLABinning(Binning):
    """`numpy.digitize` over `bins` edges.

    It gives k = 1 for the lowest interval up to k = `bins` for +1 itself, and OpenVLA's token id is `vocabulary - k`:
    bin `bins - k` of the vocabulary's last `bins` ids. +1 shares the middle of the topmost interval.
    """

    edges: Tensor
    centres: Tensor

    def __init__(self, action_dim: int, bins: int = 256) -> None:
        super().__init__(action_dim, bins)
        exact = torch.linspace(-1, 1, bins, dtype=torch.float64)
        edges = exact.float()
        # A float32 number is no less than an edge just when it is no less than the first float32 number that is not.
        edges = torch.where(edges < exact, edges.nextafter(torch.tensor(torch.inf)), edges)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("centres", ((exact[:-1] + exact[1:]) / 2).float(), persistent=False)

    def encode(self, actions: Tensor) -> Tensor:
        return self.bins - torch.bucketize(actions.float().clamp(-1, 1), self.edges, right=True)

    def decode(self, bins: Tensor) -> Tensor:
        return self.centres[(self.bins - 1 - bins).clamp(0, self.bins - 2)]


class RT1Binning(Binning):
    """`int((a - low) / (high - low) * (bins - 1))`, and `bin / (bins - 1) * (high - low) + low` back.

    Args:
        action_dim: A.
        bins: RT-1's `vocab_size`.
        one_hot: groups of dimensions of which one is 1 and the others 0: each group is one token, the index of the
            largest, at the place of the group's first dimension. A bin that is no such index reads as the first.

    Raises:
        ValueError: a group names a dimension that is none, or one twice, or has more members than there are bins.
    """

    def __init__(self, action_dim: int, bins: int = 256, one_hot: Sequence[Sequence[int]] = ()) -> None:
        super().__init__(action_dim, bins)
        groups = [list(group) for group in one_hot]
        named = [dim for group in groups for dim in group]
        for dim in named:
            if not 0 <= dim < action_dim:
                raise ValueError(f"RT1Binning: one_hot has {dim}, but an action has dimensions 0 to {action_dim - 1}")
        if len(set(named)) < len(named):
            raise ValueError(f"RT1Binning: a dimension is in one_hot twice: {groups}")
        if any(not 2 <= len(group) <= bins for group in groups):
            raise ValueError(f"RT1Binning: a group of one_hot has 2 to {bins} dimensions, got {groups}")
        first = {group[0]: group for group in groups}
        self.groups = [first.get(dim, [dim]) for dim in range(action_dim) if dim in first or dim not in named]
        self.slots = len(self.groups)

    def encode(self, actions: Tensor) -> Tensor:
        actions = actions.float()
        scaled = ((actions.clamp(-1, 1) + 1) / 2 * (self.bins - 1)).long()
        slots = [scaled[..., group[0]] if len(group) == 1 else actions[..., group].argmax(-1) for group in self.groups]
        return torch.stack(slots, dim=-1)

    def decode(self, bins: Tensor) -> Tensor:
        actions = torch.empty(*bins.shape[:-1], self.action_dim, device=bins.device)
        for slot, group in zip(bins.unbind(-1), self.groups, strict=True):
            if len(group) == 1:
                actions[..., group[0]] = slot.float() / (self.bins - 1) * 2 - 1
            else:
                chosen = torch.where(slot < len(group), slot, 0)
                actions[..., group] = F.one_hot(chosen, len(group)).float()
        return actions


def make_binning(name: Binnings, action_dim: int, bins: int, one_hot: Sequence[Sequence[int]] = ()) -> Binning:
    """The binning called `name`.

    Raises:
        ValueError: there is none of that name; `one_hot` groups for one that has none; a size is not possible.
    """
    if name not in get_args(Binnings):
        raise ValueError(f"binning is one of {', '.join(get_args(Binnings))}, got {name!r}")
    if name == "rt1":
        return RT1Binning(action_dim, bins, one_hot)
    if one_hot:
        raise ValueError(f"binning={name} knows no one_hot dimensions: choose binning=rt1")
    return OpenVLABinning(action_dim, bins)
