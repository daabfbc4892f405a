"""What a body's actions are called: numbers to words and back.

A step of a chunk is a row of phrases, one per slot, each from the slot's own list; a chunk is its steps one behind the
other. What was said is read by looking its words up in these lists, and nothing else is understood.

| form | a step of a chunk | for |
|---|---|---|
| `integers` | `1 128 91 241 5 101 127` | RT-2's strings (arXiv 2307.15818): numbers in RT-1's bins, 0 to 255 |
| `named` | `x +35 y -10 z 0 gripper close` | numbers in percent of their range, with the names of the embodiment |
| `names` | `turn left;` | categorical actions, whose names they are |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from embodied.spec import ActionSpec
from policies.heads.binning import RT1Binning

Form = Literal["integers", "named"]


class Wording(nn.Module):
    """Actions (..., A) to choices (..., S), the index of a phrase in each slot's list, and back.

    Attributes:
        phrases: per slot, what can be said there.
    """

    def __init__(self, phrases: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.phrases = [list(options) for options in phrases]
        self._index = [{tuple(text.split()): i for i, text in enumerate(options)} for options in self.phrases]
        self._sizes = [sorted({len(words) for words in index}, reverse=True) for index in self._index]
        if any(len(index) < len(options) for index, options in zip(self._index, self.phrases, strict=True)):
            raise ValueError("two actions have the same name, and could not be told apart in words")

    def encode(self, actions: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, choices: Tensor) -> Tensor:
        raise NotImplementedError

    def say(self, choices: Sequence[Sequence[int]]) -> str:
        """The text of a chunk's choices (H, S)."""
        return " ".join(self.phrases[slot][choice] for step in choices for slot, choice in enumerate(step))

    def read(self, text: str, steps: int) -> list[list[int]] | None:
        """The choices (H, S) that a text of `steps` steps makes; None where it is no such text."""
        words, at, chunk = text.split(), 0, []
        for _ in range(steps):
            step = []
            for index, sizes in zip(self._index, self._sizes, strict=True):
                said = next((said for size in sizes if (said := tuple(words[at : at + size])) in index), ())
                if not said:
                    return None
                step.append(index[said])
                at += len(said)
            chunk.append(step)
        return chunk if at == len(words) else None


class Integers(Wording):
    """RT-1's bins as integers; a group of `one_hot` dimensions (RT-2's `terminate`) is one integer."""

    def __init__(self, action_dim: int, bins: int, one_hot: Sequence[Sequence[int]]) -> None:
        binning = RT1Binning(action_dim, bins, one_hot)
        sizes = [bins if len(group) == 1 else len(group) for group in binning.groups]
        super().__init__([[str(number) for number in range(size)] for size in sizes])
        self.binning = binning

    def encode(self, actions: Tensor) -> Tensor:
        return self.binning.encode(actions)

    def decode(self, choices: Tensor) -> Tensor:
        return self.binning.decode(choices)


class Named(Wording):
    """Each number behind its name, rounded to `bins` steps on [-1, 1]; a gripper opens and closes in words.

    A gripper's normalised values must have the two states on either side of 0.
    """

    def __init__(self, action: ActionSpec, bins: int) -> None:
        if bins < 3 or bins % 2 == 0:
            raise ValueError(f"named numbers go from -n to +n: bins must be odd and at least 3, got {bins}")
        reach, names = bins // 2, ["_".join(name.split()) for name in action.names]
        phrases = [
            [f"{name} {number:+d}" if number else f"{name} 0" for number in range(-reach, reach + 1)] for name in names
        ]
        self.gripper, self.closed = action.gripper, action.gripper_closed
        if action.gripper is not None:
            phrases[action.gripper] = [f"{names[action.gripper]} open", f"{names[action.gripper]} close"]
        super().__init__(phrases)
        self.reach = reach

    def encode(self, actions: Tensor) -> Tensor:
        choices = (actions.float().clamp(-1, 1) * self.reach).round().long() + self.reach
        if self.gripper is not None:
            choices[..., self.gripper] = (actions[..., self.gripper] * self.closed > 0).long()
        return choices

    def decode(self, choices: Tensor) -> Tensor:
        actions = (choices - self.reach).float() / self.reach
        if self.gripper is not None:
            actions[..., self.gripper] = (choices[..., self.gripper].float() * 2 - 1) * self.closed
        return actions


class Names(Wording):
    """The names of categorical actions; each ends in a semicolon, so that one may begin with another."""

    def __init__(self, action: ActionSpec) -> None:
        for name in action.names:
            if ";" in name or not name.strip():
                raise ValueError(f"an action called {name!r} cannot be said: names hold a word and no semicolon")
        super().__init__([[" ".join(name.split()) + ";" for name in action.names]])

    def encode(self, actions: Tensor) -> Tensor:
        return actions.long()

    def decode(self, choices: Tensor) -> Tensor:
        return choices.to(torch.float32)


def make_wording(form: Form, action: ActionSpec, bins: int, one_hot: Sequence[Sequence[int]] = ()) -> Wording:
    """How a body's actions are worded: `form` for numbers, their names for categorical actions.

    Raises:
        ValueError: an unknown form, or one that an option does not fit.
    """
    if action.kind == "categorical":
        return Names(action)
    if form == "integers":
        return Integers(action.dim, bins, one_hot)
    if form != "named":
        raise ValueError(f"TextHead: form is one of integers, named, got {form!r}")
    if one_hot:
        raise ValueError("TextHead: form=named knows no one_hot dimensions: choose form=integers")
    return Named(action, bins)
