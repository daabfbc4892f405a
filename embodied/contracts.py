"""The joints between rooms: what a readout, an action head, a policy, an expert and an environment are.

One letter per axis, the same everywhere: B batch, T time steps of history, N feature tokens, M connected tokens,
R readout tokens, L sequence length, D model width, H action horizon, A action dimensions, S state dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from embodied.interaction import Cloud, Drawings, Environment, Execution, Expert, Observation, Policy, stack
from embodied.spec import ActionSpec, Kind

__all__ = [
    "ActionHead", "Environment", "Execution", "Expert", "Generators", "MapEncoder", "Memory", "Observation", "Policy",
    "Prefix", "Readout", "SequentialHead", "Speller", "Text", "draw_integers", "draw_normal", "draw_uniform",
    "masked_mean", "stack",
]  # fmt: skip

Generators = Sequence[torch.Generator]
"""One generator per row of a batch, so that a row's noise does not depend on who shares its batch."""


class Prefix(Protocol):
    """The observation as the language model holds it: encoded once, continued as often as a head needs.

    Attributes:
        keys, values: per layer (B, heads, L, head width): what a flow expert attends layer by layer.
        present: (B, L), bool; False on padding.
        hidden: (B, L, D): the last layer's hidden states, for who attends the observation once.
        vocabulary: how many token ids the language model has; its last 256 are free for action tokens.
    """

    present: Tensor
    hidden: Tensor

    @property
    def keys(self) -> Sequence[Tensor]: ...

    @property
    def values(self) -> Sequence[Tensor]: ...

    @property
    def vocabulary(self) -> int: ...

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, N) to embeddings (B, N, D)."""

    def extend(self, embeddings: Tensor, causal: bool = True) -> tuple[Tensor, Prefix]:
        """Read on from here: embeddings (B, N, D) to hidden states (B, N, D) and the longer prefix.

        The new tokens see everything present, and of each other those before them; all of them with `causal=False`.
        `self` is left as it was, and gradients flow into it.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (B, N, D) to next-token logits (B, N, vocabulary)."""


class Speller(Protocol):
    """What a head that speaks in words needs of the text tokenizer.

    Attributes:
        end: the id that ends a text.
    """

    @property
    def end(self) -> int: ...

    def spell(self, text: str) -> list[int]:
        """Ids of `text` behind other text, from which a space separates it; raises ValueError where it has none."""

    def read(self, ids: Sequence[int]) -> str:
        """The text of ids, without the spaces around it; ids that are no text leave a mark in it."""


@dataclass(frozen=True)
class Readout:
    """What the LVLM hands to an action head; a head takes the part it needs.

    Attributes:
        tokens: hidden states at the readout positions, (B, T, R, D), float.
        steps: which history steps exist, (B, T), bool; the rest is padding.
        prefix: the sequence before the readout, to decode on from (token heads) or attend to (experts).
        state: the robot's state at the latest step as processing made it, (B, S), for heads that read it themselves.
    """

    tokens: Tensor
    steps: Tensor
    prefix: Prefix | None = None
    state: Tensor | None = None

    @property
    def last(self) -> Tensor:
        """Readout tokens of the latest real step of each sample, (B, R, D)."""
        return self.latest(self.tokens)

    def latest(self, values: Tensor) -> Tensor:
        """Of `values` (B, T, ...), those of the latest real step of each sample, (B, ...)."""
        order = torch.arange(self.steps.shape[1], device=self.steps.device)
        latest = torch.where(self.steps, order, -1).amax(dim=1)
        return values[torch.arange(len(latest), device=latest.device), latest]

    def each_step(self) -> Readout:
        """Every step as a row of its own, sample by sample: tokens (B x T, 1, R, D), without a prefix."""
        return Readout(self.tokens.flatten(0, 1).unsqueeze(1), self.steps.flatten().unsqueeze(1))


class Text(NamedTuple):
    """An instruction as embeddings (B, L, D) and which of them are no padding, (B, L), bool."""

    tokens: Tensor
    present: Tensor


class MapEncoder(Protocol):
    """A memory of the surroundings as one more thing to read; `maps.base` has its base class and says how it joins.

    What it learned is the module's; what it has seen is in a memory that `begin` makes, so that one module serves many
    episodes. `read` and `update` write the same: a training sample's history at once, or one step of a rollout.

    Attributes:
        width: size D of a token.
        reads: keys of what an observation must have.
    """

    width: int

    @property
    def reads(self) -> tuple[str, ...]: ...

    def begin(self, slots: int) -> Any:
        """The memory of so many episodes; its `reset(slots)` forgets those of some slots."""

    def update(self, memory: Any, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None) -> None:
        """Write one step, arrays (B, ...), into slots of the memory (None: all); no dearer in a long episode."""

    def read(self, batch: Mapping[str, Any], memory: Any = None) -> Any:
        """Write a history, arrays (B, T, ...), without the steps that `observation_is_pad` marks; gives the memory."""

    def __call__(self, memory: Any, text: Text | None = None, slots: Sequence[int] | Tensor | None = None) -> Any:
        """Tokens (B, N, D) and which are present (B, N), of some slots (None: all); `text` is the instruction."""

    def drawings(self, memory: Any, slot: int) -> Drawings:
        """The memory of a slot, to look at."""

    def in_space(self, memory: Any, slot: int) -> Cloud | None:
        """What the memory of a slot holds in space, in the frame of the poses; None where that is nothing."""


class ActionHead(nn.Module, ABC):
    """Turns a readout into a chunk of actions, and a demonstrated chunk into a loss.

    Actions are what `processing` made of the embodiment's units: normalised, (B, H, A), float32. A categorical action
    is one number, A = 1, the index of its name, which processing leaves alone.

    A head whose constructor takes `action` (an `ActionSpec`), `tokenizer` (the language model's, a `Speller`), `layers`
    (the language model's transformers configuration, with `model_type` and `head_dim`) or `state_dim` (S, 0 without a
    state) is given it by the agent.

    Args:
        width: size D of a readout token.
        horizon: H, how many future steps one chunk covers.
        action_dim: A, how many numbers one step has.
        readout_tokens: R, how many readout tokens one step has.

    Attributes:
        kinds: the kinds of action (`ActionSpec.kind`) that it can make; an agent for another one is refused.
        reads_prefix: whether it needs `Readout.prefix`, which not every way of reading a history offers.

    Raises:
        ValueError: a size is not positive.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("continuous",)
    reads_prefix: bool = False

    def __init__(self, width: int, horizon: int, action_dim: int, readout_tokens: int = 1) -> None:
        super().__init__()
        sizes = {"width": width, "horizon": horizon, "action_dim": action_dim, "readout_tokens": readout_tokens}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1, got {size}")
        self.width, self.horizon, self.action_dim, self.readout_tokens = width, horizon, action_dim, readout_tokens

    @classmethod
    def phrases(cls, action: ActionSpec, node: Mapping[str, Any]) -> Sequence[str]:
        """Texts that a head with the config `node` will speak: a tokenizer trained for the agent learns to spell them.

        Asked before any part is built.
        """
        return ()

    def fit(self, chunks: Tensor, mask: Tensor) -> None:
        """Learn what is not learned by gradient, once, before training; most heads have no such thing.

        What is learned belongs into buffers, so that it is saved with the weights.

        Args:
            chunks: every chunk of the training data as processing made it, (N, H, A).
            mask: (N, H), bool; False where the episode had already ended.

        Raises:
            ValueError: the data is nothing this head can learn from.
        """

    @abstractmethod
    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        """Loss of the chunk that was demonstrated.

        The mean is over all entries that `mask` keeps, each weighing the same, so that a trainer can combine parts of a
        batch (processes, accumulation) by the number of entries each kept and get the loss of the whole.

        Args:
            readout: from the observation at the chunk's first step.
            actions: (B, H, A).
            mask: (B, H), bool; False where the episode had already ended.
            generators: one per row, for heads that draw noise; None draws from torch's default generator.

        Returns:
            `loss`, a scalar to minimise, and detached scalars worth showing.
        """

    @abstractmethod
    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        """A chunk to execute, (B, H, A). Heads without randomness ignore the generators."""


Memory = tuple[Tensor, ...]
"""What a sequential head remembers of the steps it has read: tensors (B, ...), a row each."""


class SequentialHead(ActionHead):
    """A head that reads the history step by step (an RNN, a causal transformer) and has a chunk to say at each.

    `loss` also takes the chunk of every step, actions (B, T, H, A) and mask (B, T, H). `sample` reads all steps of a
    readout from an empty memory and gives the latest step's chunk; `sample_next` gives the same from one more step and
    the memory of those before, so that a rollout reads each frame once.
    """

    @abstractmethod
    def begin(self, rows: int) -> Memory:
        """The memory of `rows` episodes that have not begun, on the device of the head."""

    @abstractmethod
    def sample_next(
        self, readout: Readout, memory: Memory, generators: Generators | None = None
    ) -> tuple[Tensor, Memory]:
        """One more step, a readout with T = 1: its chunk (B, H, A), and the memory that now includes it."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` (..., H, A) over the steps that `mask` (..., H) keeps; 0 where it keeps none."""
    weight = mask.unsqueeze(-1).to(values.dtype)
    kept = torch.where(mask.unsqueeze(-1), values, torch.zeros_like(values))
    return kept.sum() / (weight.sum() * values.shape[-1]).clamp(min=1)


def draw_normal(shape: Sequence[int], like: Tensor, generators: Generators | None) -> Tensor:
    """Standard normal noise of `shape` (B, ...) on the device of `like`, row b from `generators[b]`, in float32.

    Drawn on the CPU, so that a seed gives the same noise on every device.
    """
    if generators is None:
        return torch.randn(*shape, device=like.device)
    rows = [torch.randn(*shape[1:], generator=generator) for generator in generators]
    return torch.stack(rows).to(like.device)


def draw_uniform(shape: Sequence[int], like: Tensor, generators: Generators | None) -> Tensor:
    """Uniform noise in [0, 1) of `shape` (B, ...); otherwise as `draw_normal`."""
    if generators is None:
        return torch.rand(*shape, device=like.device)
    return torch.stack([torch.rand(*shape[1:], generator=generator) for generator in generators]).to(like.device)


def draw_integers(high: int, like: Tensor, generators: Generators | None) -> Tensor:
    """Uniform integers in [0, high), (B,) for B rows of `like`, row b from `generators[b]`."""
    if generators is None:
        return torch.randint(high, (len(like),), device=like.device)
    return torch.cat([torch.randint(high, (1,), generator=generator) for generator in generators]).to(like.device)
