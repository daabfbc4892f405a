"""Vision towers of transformers: built from a config, or loaded from a folder that holds one, alone or as a part.

A folder may be that of the tower itself or of a larger model (CLIP, LLaVA, BLIP-2, Qwen2-VL, ...); then only the
tower's tensors are read, so a 7 B model's folder costs no more memory than its eyes do.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from embodied.building import nearest

OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Per-channel mean and standard deviation that image processors use: OpenAI's CLIP, ImageNet, and plain [-1, 1]."""

Towers = Mapping[str, type[PreTrainedModel]]
"""transformers' `model_type` of a tower and its class."""

UNREAD = ("pooler.", "head.", "mask_token", "embeddings.mask_token")
"""Parts of towers that no feature comes from, so that a checkpoint may lack them."""

FILE_KEYS = {
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "auto_map",
    "id2label",
    "label2id",
}


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """A transformers configuration without what describes a file rather than a model."""
    return {key: value for key, value in config.items() if key not in FILE_KEYS}


def described(model: PreTrainedModel) -> dict[str, Any]:
    """The config node that rebuilds a tower's shape: what `tower` takes as `config`."""
    known = {field.name for field in dataclasses.fields(type(model.config))}
    settings = {key: value for key, value in plain(model.config.to_diff_dict()).items() if key in known}
    return settings | {"model_type": model.config.model_type}


def tower(
    owner: str, towers: Towers, config: Mapping[str, Any] | None, checkpoint: str | None, model_type: str | None = None
) -> PreTrainedModel:
    """A tower, new from `config` or loaded from the folder `checkpoint`, in float32.

    Args:
        owner: who asks, for error messages.
        towers: the classes that may be built.
        config: settings as in the class's configuration, with `model_type` where there are several classes.
        checkpoint: a Hugging Face folder with safetensors, in one file or several.
        model_type: used where the config does not name one.

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown family or setting, a folder without such a
            tower or without some of its weights.
    """
    if (config is None) == (checkpoint is None):
        raise ValueError(f"{owner}: give either a config or a checkpoint folder")
    if checkpoint is not None:
        return _load(owner, towers, Path(checkpoint))
    settings = dict(config or {})
    family = settings.pop("model_type", model_type)
    if family not in towers:
        raise ValueError(f"{owner}: config.model_type '{family}' is none of {', '.join(towers)}")
    kind: Any = towers[family].config_class
    known = {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map)
    for key in settings:
        if key not in known:
            raise ValueError(f"{owner}: a {family} has no setting '{key}'{nearest(key, known - FILE_KEYS)}")
    try:
        return _new(towers[family], kind(**settings))
    except Exception as error:  # transformers' configurations have an error type of their own
        reason = " ".join(str(error).split())
        raise ValueError(f"{owner}: transformers cannot build this {family}: {reason}") from None


def _new(cls: type[PreTrainedModel], settings: PreTrainedConfig) -> PreTrainedModel:
    make: Any = cls
    return make(settings)


def _load(owner: str, towers: Towers, folder: Path) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{owner}: {folder} is no Hugging Face folder: it has no config.json")
    try:
        family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        raise ValueError(f"{owner}: {folder / 'config.json'} is not a JSON object") from None
    return _whole(owner, towers[family], folder) if family in towers else _part(owner, towers, folder, family)


def _whole(owner: str, cls: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    loader: Any = cls
    try:
        model, report = loader.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{owner}: cannot load {folder}: {' '.join(str(error).split())[:300]}") from None
    _complete(owner, folder, report["missing_keys"])
    return model.eval()


def _part(owner: str, towers: Towers, folder: Path, family: str | None) -> PreTrainedModel:
    """A larger model's tower: the part of its files whose names end as the tower's parameters are called."""
    try:
        settings = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"{owner}: transformers knows no model type '{family}', which {folder} says it is") from None
    parts = [part for part in vars(settings).values() if isinstance(part, PreTrainedConfig)]
    part = next((part for part in parts if part.model_type in towers), None)
    if part is None:
        raise ValueError(f"{owner}: {folder} holds a {family}, which has no {' or '.join(towers)}")
    model = _new(towers[part.model_type], part).float()
    wanted, found = set(model.state_dict()), _files(owner, folder)
    anchor = next(name for name in sorted(wanted) if "patch_embed" in name or "embedding" in name)
    prefixes = [name[: -len(anchor)] for name in found if name.endswith(anchor)]
    counts = {prefix: sum(prefix + name in found for name in wanted) for prefix in prefixes}
    if not counts:
        raise ValueError(f"{owner}: {folder} has no weights of a {part.model_type}: no tensor is called ...{anchor}")
    prefix = max(counts, key=lambda name: counts[name])
    _complete(owner, folder, sorted(name for name in wanted if prefix + name not in found))
    try:
        model.load_state_dict(
            _read({n: found[prefix + n] for n in wanted if prefix + n in found}, prefix), strict=False
        )
    except RuntimeError as error:
        raise ValueError(f"{owner}: {folder}: {' '.join(str(error).split())[:300]}") from None
    return model.eval()


def _files(owner: str, folder: Path) -> dict[str, Path]:
    """Every tensor's name and the file that holds it."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise ValueError(f"{owner}: {index} has no weight_map") from None
        for file in sorted(set(names.values())):
            if Path(file).name != file or not (folder / file).is_file():
                raise ValueError(f"{owner}: {index} names {file}, which is not in the folder")
        return {name: folder / file for name, file in names.items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ValueError(f"{owner}: {folder} has no model.safetensors, in one file or several")
    try:
        with safe_open(single, "pt") as file:
            return dict.fromkeys(file.keys(), single)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{owner}: {single} is no safetensors file: {error}") from None


def _read(files: Mapping[str, Path], prefix: str) -> dict[str, Tensor]:
    state = {}
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as file:
            for name in (name for name, where in files.items() if where == path):
                state[name] = file.get_tensor(prefix + name).float()
    return state


def _complete(owner: str, folder: Path, missing: Any) -> None:
    lacking = sorted(name for name in missing if not name.startswith(UNREAD))
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ValueError(f"{owner}: {folder} lacks weights of the encoder: {lacking[0]}{more}")


def tensors(owner: str, folder: Path, part: str) -> dict[str, Tensor]:
    """The tensors of a model's outermost part called `part`; a lone tensor is called "".

    Raises:
        ValueError: the folder has no such part.
    """
    found = _files(owner, folder)
    before = [f".{name}.".split(f".{part}.")[0] for name in found if f".{part}." in f".{name}."]
    if not before:
        raise ValueError(f"{owner}: {folder} has no weights of a {part}")
    prefix = f"{min(before, key=lambda name: name.count('.'))}.{part}".lstrip(".")
    names = {n[len(prefix) :].lstrip("."): path for n, path in found.items() if f"{n}.".startswith(f"{prefix}.")}
    state = {}
    for path in sorted(set(names.values())):
        with safe_open(path, "pt") as file:
            for name in (name for name, where in names.items() if where == path):
                state[name] = file.get_tensor(f"{prefix}.{name}" if name else prefix).float()
    return state
