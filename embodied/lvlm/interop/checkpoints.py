"""Load a Hugging Face folder of a family that we compose, and write one."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel

from embodied.building import nearest
from embodied.lvlm.interop.base import Family, renamed
from embodied.lvlm.interop.llava import Llava
from embodied.lvlm.model import LVLM

FAMILIES: dict[str, Family] = {family.model_type: family for family in (Llava(),)}

BIAS = "backbone.model.lm_head.bias"


def family_of(config: PretrainedConfig, place: object = "the config") -> Family:
    """The family of a transformers config.

    Raises:
        ValueError: there is none.
    """
    if config.model_type not in FAMILIES:
        known = nearest(config.model_type, FAMILIES)
        raise ValueError(f"{place}: models of type '{config.model_type}' are not composed here{known}")
    return FAMILIES[config.model_type]


def load_reference(folder: str | Path) -> tuple[LVLM, PretrainedConfig]:
    """A Hugging Face folder as an LVLM, and its config; the weights are held once.

    Raises:
        ValueError: no such folder, a family or an option that is not composed, pickled weights only.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no Hugging Face folder: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        family_of(config, folder)
        reference = AutoModelForImageTextToText.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, KeyError) as error:
        raise ValueError(f"{folder} could not be loaded: {error}") from None
    return from_reference(reference), config


def from_reference(reference: PreTrainedModel) -> LVLM:
    """A reference model's weights in an LVLM of the same composition; they share memory."""
    family = family_of(reference.config)
    with init_empty_weights(include_buffers=False):
        model = LVLM.from_config(family.config(reference.config))
    weights = family.to_ours(reference.state_dict())
    bias = model.state_dict().get(BIAS)
    if bias is not None and BIAS not in weights:  # Phi alone has one, and loses it inside a LLaVA
        weights[BIAS] = torch.zeros(bias.shape)
    return _filled(model, weights, family)


def to_reference(model: LVLM, config: PretrainedConfig) -> PreTrainedModel:
    """The transformers model with an LVLM's weights; they share memory."""
    family = family_of(config)
    with init_empty_weights(include_buffers=False):
        reference: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    weights = family.to_reference(model.state_dict())
    theirs = renamed(BIAS, family.names)
    if theirs in weights and theirs not in reference.state_dict() and weights.pop(theirs).any():
        raise ValueError(f"a {family.model_type} has no place for the bias of this language model's output")
    return _filled(reference, weights, family)


Model = TypeVar("Model", bound=nn.Module)


def _filled(model: Model, weights: dict[str, Tensor], family: Family) -> Model:
    """A model built without memory, with these weights in it: all of them and no others."""
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    wrong = [f"'{name}' is missing" for name in missing] + [f"'{name}' has no place" for name in unexpected]
    if wrong:
        raise ValueError(f"the weights of this {family.model_type} do not fit its config: {wrong[0]}")
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.tie_weights()
    return model.eval()
