"""Load a Hugging Face folder of a family that we compose, and write one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from embodied.building import nearest
from embodied.files import read_json
from embodied.lvlm.backbones.headed import HeadedTextModel
from embodied.lvlm.interop.base import Family, Images, renamed
from embodied.lvlm.interop.blip import Blip2, InstructBlip
from embodied.lvlm.interop.deepseek import DeepseekVL, DeepseekVLHybrid
from embodied.lvlm.interop.fuyu import Fuyu
from embodied.lvlm.interop.idefics import Idefics
from embodied.lvlm.interop.idefics2 import Idefics2, Idefics3
from embodied.lvlm.interop.internvl import InternVL
from embodied.lvlm.interop.llava import Llava, LlavaNext, LlavaNextVideo, LlavaOnevision, VideoLlava, VipLlava
from embodied.lvlm.interop.ovis import Ovis2
from embodied.lvlm.interop.qwen import Qwen2VL
from embodied.lvlm.model import LVLM
from embodied.weights import refuse_pickles

COMPOSED = (
    Llava(),
    LlavaNext(),
    LlavaNextVideo(),
    VideoLlava(),
    LlavaOnevision(),
    VipLlava(),
    Idefics(),
    Idefics2(),
    Idefics3(),
    InternVL(),
    DeepseekVL(),
    DeepseekVLHybrid(),
    Fuyu(),
    Qwen2VL(),
    Ovis2(),
    Blip2(),
    InstructBlip(),
)
FAMILIES: dict[str, Family] = {name: family for family in COMPOSED for name in family.model_types}

BIAS = "backbone.model.lm_head.bias"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
"""Where older and newer folders keep the image processor's settings."""


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

    How pictures are prepared follows the folder's `preprocessor_config.json`, where it has one.

    Raises:
        ValueError: no such folder, a family or an option that is not composed, pickled weights, a file that is missing
            or damaged, weights that do not fit the config.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no Hugging Face folder: it has no config.json")
    refuse_pickles(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, KeyError, ValueError) as error:
        kind = read_json(folder / "config.json")
        kind = kind.get("model_type") if isinstance(kind, dict) else None
        if kind is not None and kind not in FAMILIES:
            raise ValueError(
                f"{folder}: models of type '{kind}' are not composed here{nearest(kind, FAMILIES)}"
            ) from None
        raise ValueError(f"{folder / 'config.json'} could not be read: {_line(error)}") from None
    family_of(config, folder)
    images = image_settings(folder)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is said below, in one line
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} could not be loaded: {_line(error)}") from None
    finally:
        logging.set_verbosity(verbosity)
    reference, report = loaded
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise ValueError(f"{folder}: '{name}' is {tuple(found)}, the config wants {tuple(wanted)}")
    for what, names in (("lacks", report["missing_keys"]), ("has no place for", report["unexpected_keys"])):
        if names:
            raise ValueError(f"{folder}: this {config.model_type} {what} '{sorted(names)[0]}' ({len(names)} in all)")
    try:
        return from_reference(reference, images), config
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def image_settings(folder: Path) -> dict[str, Any]:
    """Settings of a folder's image processor, from either of the files that hold them; empty where neither does.

    Raises:
        ValueError: the file is no JSON object.
    """
    for name, part in ((PREPROCESSOR, None), (PROCESSOR, "image_processor")):
        if (folder / name).is_file():
            found = read_json(folder / name)
            found = found.get(part) if part and isinstance(found, dict) else found
            if found is not None and not isinstance(found, dict):
                raise ValueError(f"{folder / name} holds no settings, but a {type(found).__name__}")
            if found:
                return found
    return {}


def from_reference(reference: PreTrainedModel, images: Images | None = None) -> LVLM:
    """A reference model's weights in an LVLM of the same composition; they share memory.

    Args:
        reference: a transformers model.
        images: settings of its image processor (`to_dict()`); None: the family's usual ones.

    Raises:
        ValueError: a family or an option that is not composed.
    """
    family = family_of(reference.config)
    node = family.config(reference.config, images or {})
    # A config of several parts says it in one of several places; the weights themselves are sure
    node["backbone"]["config"]["tie_word_embeddings"] = _tied(reference)
    with init_empty_weights(include_buffers=False):
        model = LVLM.from_config(node)
    weights = family.to_ours(reference.state_dict(), reference.config)
    bias = model.state_dict().get(BIAS)
    if bias is not None and BIAS not in weights:  # Phi alone has one, and loses it inside a LLaVA
        weights[BIAS] = torch.zeros(bias.shape)
    return _filled(model, weights, reference.config)


def to_reference(model: LVLM, config: PretrainedConfig) -> PreTrainedModel:
    """The transformers model with an LVLM's weights; they share memory, but for what the family writes anew.

    Raises:
        ValueError: the weights do not fit the config, or it has no place for one of them.
    """
    family = family_of(config)
    with init_empty_weights(include_buffers=False):
        reference: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    weights = family.to_reference(model.state_dict(), config)
    theirs = renamed(BIAS, family.names(config))
    if theirs in weights and theirs not in reference.state_dict() and weights.pop(theirs).any():
        raise ValueError(f"a {config.model_type} has no place for the bias of this language model's output")
    return _filled(reference, weights, config)


Model = TypeVar("Model", bound=nn.Module)


def _filled(model: Model, weights: Mapping[str, Tensor], config: PretrainedConfig) -> Model:
    """A model built without memory, with these weights in it: all of them and no others."""
    place = f"the weights of this {config.model_type} do not fit its config"
    own: Any = model.state_dict()
    for name, tensor in weights.items():
        if name in own and own[name].shape != tensor.shape:
            raise ValueError(f"{place}: '{name}' is {tuple(tensor.shape)}, it wants {tuple(own[name].shape)}")
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    wrong = [f"'{name}' is missing" for name in missing] + [f"'{name}' has no place" for name in unexpected]
    if wrong:
        raise ValueError(f"{place}: {wrong[0]}")
    for part in model.modules():
        if isinstance(part, PreTrainedModel | HeadedTextModel):
            tie: Any = part.tie_weights
            tie()
    return model.eval()


def _tied(reference: PreTrainedModel) -> bool:
    """Whether the words' embedding is the map to the vocabulary as well."""
    words: Any = reference.get_input_embeddings()
    output: Any = reference.get_output_embeddings()
    return output is not None and words.weight.data_ptr() == output.weight.data_ptr()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
