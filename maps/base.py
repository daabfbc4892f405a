"""The contract of a map: a memory of one episode that grows step by step, and its encoder to tokens.

A map is a module (what it learned) and a `Memory` (what it has seen), kept apart, so that one module serves training,
evaluation and several episodes at once. `update` writes one more observation into the memory in place, at a cost that
depends on the observation and not on the episode's length; calling the module reads the memory as tokens (B, N, D).
Where the original trains through its memory, gradients flow from the tokens to what was written.

A map is a modality of the observer (`embodied.lvlm.observer`), chosen by one word (`map=occupancy`): training begins a
memory of B slots and writes whole episodes into it, step by step, reading it at each; a rollout keeps the memory, one
slot per episode, resets the slot when an episode starts and updates it at every step. What is read joins the other
tokens. Features are those of the observer's image encoder; the text that some maps look at is the instruction as the
backbone embeds it. `embodied.contracts.MapEncoder` is this contract as the core sees it.

Observations are flat dicts with the keys of `embodied.spec`, stacked over B episodes, and two more that a map may ask
for. A single view may leave out the axis V of views (a panorama has several).

| key | shape | what |
|---|---|---|
| `observation.depth.<camera>` | (B, V, H, W) | metres along the optical axis; 0, infinite or NaN: nothing there |
| `observation.pose` | (B, V, 4, 4) | camera (x right, y down, z ahead) to world (z up), see `maps.geometry` |
| `observation.semantic.<camera>` | (B, V, H, W) | integers: the category of each pixel |
| `observation.features.<camera>` | (B, V, F, h, w) | an image encoder's features, as a picture |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from embodied.contracts import Text
from embodied.interaction import Cloud, Drawings
from embodied.spec import DEPTH, FEATURES, POSE, SEMANTIC


class MapTokens(NamedTuple):
    """What a map says.

    Attributes:
        tokens: (B, N, D).
        present: (B, N), bool; False where there is nothing to say (cells never seen, nodes that do not exist).
    """

    tokens: Tensor
    present: Tensor


class Memory:
    """What the episodes of some slots have left behind: tensors by name, each with one row per slot.

    Args:
        slots: how many episodes at once.
        device: where the tensors live.
        columns: by name, a row's shape, its type, and the value that means "nothing yet".
    """

    def __init__(
        self, slots: int, device: torch.device, columns: Mapping[str, tuple[Sequence[int], torch.dtype, float]]
    ) -> None:
        self.slots = slots
        self._nothing = {name: fill for name, (_, _, fill) in columns.items()}
        self._columns = {
            name: torch.full((slots, *shape), fill, dtype=dtype, device=device)
            for name, (shape, dtype, fill) in columns.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._columns[name]

    def __setitem__(self, name: str, values: Tensor) -> None:
        """Replace a column by another of the same shape."""
        assert values.shape == self._columns[name].shape, (name, values.shape, self._columns[name].shape)
        self._columns[name] = values

    @property
    def device(self) -> torch.device:
        return next(iter(self._columns.values())).device

    @property
    def bytes(self) -> int:
        """Size of all slots together."""
        return sum(column.element_size() * column.nelement() for column in self._columns.values())

    def rows(self, slots: Sequence[int] | Tensor | None = None) -> Tensor:
        """Slots as row numbers, (B,); None: all."""
        return torch.arange(self.slots, device=self.device) if slots is None else torch.as_tensor(slots).to(self.device)

    def reset(self, slots: Sequence[int] | Tensor | None = None) -> None:
        """Forget the episodes of these slots; None: of all. Gradients end here."""
        self.detach()
        rows = self.rows(slots)
        for name, column in self._columns.items():
            column[rows] = torch.tensor(self._nothing[name], dtype=column.dtype, device=column.device)

    def detach(self) -> None:
        """Cut the memory off from the graph that made it (truncated backpropagation)."""
        self._columns = {name: column.detach() for name, column in self._columns.items()}


def allot(used: Tensor, episode: Tensor, fresh: Tensor, capacity: int) -> Tensor:
    """Places for new entries of memories that are filled from the front.

    Args:
        used: (slots,) how many places of each slot are taken.
        episode: (G,) which slot each entry belongs to, rising.
        fresh: (G,), bool: which entries are new.
        capacity: places per slot.

    Returns:
        (G,) the place of each new entry; -1 for the others, and where no place is left.
    """
    before = fresh.long().cumsum(0) - fresh.long()
    order = torch.arange(len(episode), device=used.device)
    first = torch.full((len(used),), len(episode), device=used.device).scatter_reduce(0, episode, order, "amin")
    place = used[episode] + before - before[first[episode]]
    return torch.where(fresh & (place < capacity), place, -1)


@dataclass(frozen=True)
class View:
    """What B agents see of one camera, from V places each; see the table above.

    Attributes:
        depth: (B, V, H, W), float; 0 where there is nothing.
        pose: (B, V, 4, 4), float.
        labels: (B, V, H, W), int64, or None.
        features: (B, V, F, h, w), or None.
        whole: rows and columns of the picture that the pixels are taken from, every `stride`-th of both.
    """

    depth: Tensor
    pose: Tensor
    labels: Tensor | None = None
    features: Tensor | None = None
    whole: tuple[int, int] = (0, 0)
    stride: int = 1

    def every(self, stride: int) -> View:
        """Of each block of `stride` x `stride` pixels, the one in the middle.

        Raises:
            ValueError: blocks that don't fill the picture.
        """
        height, width = self.depth.shape[2:]
        if height % stride or width % stride:
            raise ValueError(f"a picture of {height} x {width} is no whole number of blocks of stride {stride}")
        labels = None if self.labels is None else thin(self.labels, stride)
        return View(thin(self.depth, stride), self.pose, labels, self.features, (height, width), stride)

    def pixels(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of the pixels in the whole picture, (H x W,) each, row by row."""
        rows, columns = (
            torch.arange(count, device=self.depth.device) * self.stride + self.stride // 2
            for count in self.depth.shape[2:]
        )
        return rows.repeat_interleave(len(columns)), columns.repeat(len(rows))

    @classmethod
    def of(cls, observation: Mapping[str, Any], camera: str, needs: Sequence[str], device: torch.device) -> View:
        """Find a camera's arrays in an observation.

        Args:
            observation: as the module's table says.
            camera: its name in the keys.
            needs: which of `semantic` and `features` must be there.
            device: where to.

        Raises:
            ValueError: something is missing, or shapes do not belong together.
        """
        more = {"semantic": SEMANTIC + camera, "features": FEATURES + camera}
        keys = {"depth": DEPTH + camera, "pose": POSE} | {name: more[name] for name in needs}
        found = {name: _tensor(observation, key, device) for name, key in keys.items()}
        ranks = {"depth": 4, "pose": 4, "semantic": 4, "features": 5}
        for name, tensor in found.items():
            if tensor.ndim == ranks[name] - 1:
                found[name] = tensor = tensor.unsqueeze(1)
            if tensor.ndim != ranks[name]:
                raise ValueError(f"{keys[name]} of shape {tuple(tensor.shape)} should have {ranks[name]} axes")
        depth, pose, labels = found["depth"], found["pose"], found.get("semantic")
        for name, tensor in found.items():
            if tensor.shape[:2] != depth.shape[:2]:
                raise ValueError(
                    f"{keys[name]} is of {tuple(tensor.shape[:2])} episodes and views, "
                    f"but {keys['depth']} of {tuple(depth.shape[:2])}"
                )
        if pose.shape[2:] != (4, 4):
            raise ValueError(f"{POSE} of shape {tuple(pose.shape)} should hold matrices of 4 x 4")
        if labels is not None and labels.shape != depth.shape:
            raise ValueError(f"{keys['semantic']} is {tuple(labels.shape)}, but {keys['depth']} {tuple(depth.shape)}")
        depth = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0)
        features = found.get("features")
        return cls(
            depth,
            pose.float(),
            None if labels is None else labels.long(),
            None if features is None else features.float(),  # a memory is kept in single precision
            (depth.shape[2], depth.shape[3]),
        )


def thin(pictures: Tensor, stride: int) -> Tensor:
    """Of pictures (B, V, H, W, ...), the pixel in the middle of each block of `stride` x `stride`."""
    return pictures[:, :, stride // 2 :: stride, stride // 2 :: stride]


def _tensor(observation: Mapping[str, Any], key: str, device: torch.device) -> Tensor:
    if key not in observation:
        raise ValueError(f"this map needs {key}; the observation has {', '.join(sorted(map(str, observation)))}")
    return torch.as_tensor(observation[key]).to(device)


class MapMemory(nn.Module, ABC):
    """A map: how observations are written into a memory, and how a memory is read as tokens.

    Args:
        width: size D of a token.

    Attributes:
        needs: which of `semantic` and `features` its observations must have.
        camera: whose observations are written.
        features: F, where `needs` has them.
    """

    needs: tuple[str, ...] = ()
    camera: str = "front"
    features: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """Keys of what an observation must have."""
        more = {"semantic": SEMANTIC, "features": FEATURES}
        return DEPTH + self.camera, POSE, *(more[name] + self.camera for name in self.needs)

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"{type(self).__name__}: width must be at least 1, got {width}")
        self.width = width

    @abstractmethod
    def begin(self, slots: int) -> Memory:
        """The memory of so many episodes that have not begun, on the map's device."""

    @abstractmethod
    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        """Write one step into the memory, in place.

        Args:
            memory: made by `begin`.
            observation: one step of B episodes.
            slots: which slot each row of the observation belongs to, without repeats; None: row i is slot i.

        Raises:
            ValueError: the observation lacks something, or shapes do not fit.
        """

    @abstractmethod
    def forward(
        self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None
    ) -> MapTokens:
        """Read the memory of some slots (None: all) as tokens; maps that follow the instruction need the text."""

    def sees(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None
    ) -> tuple[View, Tensor]:
        """What the map's camera sees, and the slots (B,) that see it.

        Raises:
            ValueError: the observation lacks something, shapes do not fit, or its features are of another encoder.
        """
        view, rows = View.of(observation, self.camera, self.needs, memory.device), memory.rows(slots)
        if len(view.depth) != len(rows):
            raise ValueError(f"an observation of {len(view.depth)} episodes was given for {len(rows)} slots")
        if view.features is not None and view.features.shape[2] != self.features:
            raise ValueError(
                f"{FEATURES}{self.camera} has {view.features.shape[2]} features, "
                f"but this map was made for {self.features}"
            )
        return view, rows

    def drawings(self, memory: Memory, slot: int) -> Drawings:
        """The memory of a slot, to look at: pictures by name; here none."""
        return {}

    def in_space(self, memory: Memory, slot: int) -> Cloud | None:
        """What the memory of a slot holds in space, in the frame of the poses; here nothing."""
        return None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def read(self, batch: Mapping[str, Any], memory: Memory | None = None) -> Memory:
        """Write a whole history: arrays (B, T, ...), step by step, leaving out what `observation_is_pad` (B, T) marks.

        Args:
            batch: an observation whose arrays have an axis of time after that of episodes.
            memory: to write on in; None: a new one.
        """
        padding = batch.get("observation_is_pad")
        steps = {key: torch.as_tensor(value) for key, value in batch.items() if key.startswith("observation.")}
        if not steps:
            raise ValueError("there is nothing to read: the batch has no observations")
        rows, length = next(iter(steps.values())).shape[:2]
        memory = self.begin(rows) if memory is None else memory
        for step in range(length):
            here = torch.arange(rows)
            if padding is not None:
                here = here[~torch.as_tensor(padding)[:, step].cpu()]
            if len(here):
                self.update(memory, {key: value[here.to(value.device), step] for key, value in steps.items()}, here)
        return memory
