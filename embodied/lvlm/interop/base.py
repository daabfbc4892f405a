"""The contract of a family: its transformers configuration as ours, and its weights' names as ours, both ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import PretrainedConfig

from embodied.lvlm.encoders.vision import plain


class Family(ABC):
    """Checkpoints of one transformers `model_type`.

    Weights are transformers' in memory (`state_dict()` of the reference class): its own loader has by then dealt with
    shards and with the names that older files use.

    Attributes:
        model_type: of the reference's config.
        names: prefixes of our weights to the reference's; what no prefix matches keeps its name.
        buffers: names of ours that the reference has not and a fresh model has right.
    """

    model_type: ClassVar[str]
    names: ClassVar[Mapping[str, str]]

    @abstractmethod
    def config(self, reference: PretrainedConfig) -> dict[str, Any]:
        """The node for `LVLM.from_config`.

        Raises:
            ValueError: the checkpoint uses an option that the composition has no part for.
        """

    def image_token(self, reference: PretrainedConfig) -> int:
        """The id that stands for one token of a picture."""
        for name in ("image_token_id", "image_token_index"):
            if getattr(reference, name, None) is not None:
                return int(getattr(reference, name))
        raise ValueError(f"the config of this {self.model_type} names no image token")

    def to_ours(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The reference's weights under our names."""
        swapped = {theirs: ours for ours, theirs in self.names.items()}
        return {renamed(name, swapped): tensor for name, tensor in weights.items()}

    def to_reference(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our weights under the reference's names."""
        return {renamed(name, self.names): tensor for name, tensor in weights.items()}


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """`name` with the longest matching prefix replaced."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if name.startswith(prefix):
            return prefixes[prefix] + name[len(prefix) :]
    return name


def causal(text: PretrainedConfig) -> dict[str, Any]:
    """The backbone node of a text config."""
    return {
        "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
        "config": plain(text.to_diff_dict()) | {"model_type": text.model_type, "vocab_size": text.vocab_size},
    }
