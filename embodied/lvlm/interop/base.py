"""The contract of a family: its transformers configuration as ours, and its weights' names as ours, both ways."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import PretrainedConfig

from embodied.lvlm.encoders.base import RESAMPLE
from embodied.lvlm.encoders.pretrained import OPENAI
from embodied.lvlm.encoders.vision import plain

Images = Mapping[str, Any]
"""Settings of an official image processor, as `preprocessor_config.json` holds them; empty: the family's defaults."""


class Family(ABC):
    """Checkpoints of one or more transformers `model_type`s that are composed alike.

    Weights are transformers' in memory (`state_dict()` of the reference class): its own loader has by then dealt with
    shards and with the names that older files use.

    Attributes:
        model_types: of the reference's config.
    """

    model_types: ClassVar[Sequence[str]]

    @abstractmethod
    def config(self, reference: PretrainedConfig, images: Images) -> dict[str, Any]:
        """The node for `LVLM.from_config`.

        Raises:
            ValueError: the checkpoint uses an option that the composition has no part for.
        """

    @abstractmethod
    def names(self, reference: PretrainedConfig) -> dict[str, str]:
        """Prefixes of our weights to the reference's; what no prefix matches keeps its name."""

    def image_token(self, reference: PretrainedConfig) -> int:
        """The id that stands for one token of a picture."""
        for name in ("image_token_id", "image_token_index"):
            if getattr(reference, name, None) is not None:
                return int(getattr(reference, name))
        raise ValueError(f"the config of this {reference.model_type} names no image token")

    def to_ours(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        """The reference's weights under our names."""
        swapped = {theirs: ours for ours, theirs in self.names(reference).items()}
        return {renamed(name, swapped): tensor for name, tensor in weights.items()}

    def to_reference(self, weights: Mapping[str, Tensor], reference: PretrainedConfig) -> dict[str, Tensor]:
        """Our weights under the reference's names."""
        return {renamed(name, self.names(reference)): tensor for name, tensor in weights.items()}


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """`name` with the longest matching prefix replaced."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if name.startswith(prefix):
            return prefixes[prefix] + name[len(prefix) :]
    return name


def described(part: PretrainedConfig) -> dict[str, Any]:
    """An encoder's config as a node's `config`: its settings, without what follows from them."""
    known = {field.name for field in dataclasses.fields(part)}
    settings = {key: value for key, value in plain(part.to_diff_dict()).items() if key in known}
    return settings | {"model_type": part.model_type}


def causal(text: PretrainedConfig) -> dict[str, Any]:
    """The backbone node of a text config."""
    return {
        "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
        "config": plain(text.to_diff_dict()) | {"model_type": text.model_type, "vocab_size": text.vocab_size},
    }


def refuse(reference: PretrainedConfig, option: str, value: object, why: str) -> ValueError:
    """The error for an option without a part."""
    return ValueError(f"this {reference.model_type} has {option}={value!r}, which is not composed here: {why}")


def usual(reference: PretrainedConfig, part: PretrainedConfig, **options: Any) -> None:
    """Stop where a part of the reference has other values than the one kind that is composed.

    Raises:
        ValueError: naming the first option that has.
    """
    for name, expected in options.items():
        found = getattr(part, name, expected)
        if found != expected:
            raise refuse(reference, name, found, f"its part has {name}={expected!r}")


def statistics(
    images: Images, prefix: str = "", default: Sequence[Sequence[float]] = OPENAI, resample: str = "bicubic"
) -> dict[str, Any]:
    """Arguments `mean`, `std` and `resample` of an encoder, from the image processor's settings.

    Raises:
        ValueError: the processor leaves out a step that is always done here.
    """
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if images.get(step) is False:
            raise ValueError(f"preprocessor_config.json has {step}=false, which is not composed here")
    if not math.isclose(images.get("rescale_factor") or 1 / 255, 1 / 255):
        raise ValueError(f"preprocessor_config.json has rescale_factor={images['rescale_factor']}; here it is 1/255")
    mean, std = (
        images.get(f"{prefix}image_{name}") or value for name, value in zip(("mean", "std"), default, strict=True)
    )
    mean, std = ([value] * 3 if isinstance(value, float) else [float(v) for v in value] for value in (mean, std))
    return {"mean": mean, "std": std, "resample": filter_name(images.get(f"{prefix}resample"), resample)}


def filter_name(number: Any, default: str) -> str:
    """PIL's filter by name, from its number in a processor's settings."""
    names = {int(value): name for name, value in RESAMPLE.items()}
    return default if number is None else names[int(number)]


def same_statistics(images: Images, mean: Sequence[float], std: Sequence[float], prefix: str = "") -> None:
    """Stop where a processor's statistics are not those that an encoder is fixed to.

    Raises:
        ValueError: naming them.
    """
    asked = statistics(images, prefix, (mean, std))
    for name, own in (("mean", mean), ("std", std)):
        if any(abs(a - b) > 1e-6 for a, b in zip(asked[name], own, strict=True)):
            raise ValueError(
                f"preprocessor_config.json has {prefix}image_{name}={asked[name]}; this encoder reads {list(own)}"
            )


def edge(images: Images, key: str, *names: str, default: int) -> int:
    """A length from a processor's settings, such as `size: {height: 336}`."""
    size = images.get(key)
    if isinstance(size, int):
        return size
    for name in names:
        if size and size.get(name) is not None:
            return int(size[name])
    return default
