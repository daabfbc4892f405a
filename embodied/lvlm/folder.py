"""A language model that sees, as a folder; nothing in it runs by being loaded.

config.json         the format, the nodes of every part, versions
model.safetensors   weights
tokenizer/          Hugging Face's files, where one was given
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

import embodied
from embodied.files import read_json, write_json
from embodied.lvlm.model import LVLM
from embodied.weights import load_weights, refuse_pickles, save_weights

FORMAT = "embodied-lvlm/1"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer"


class Saved(Protocol):
    """What writes itself into a folder, as tokenizers do."""

    def save_pretrained(self, save_directory: Any) -> Any: ...


def save(model: LVLM, folder: str | Path, tokenizer: Saved | None = None) -> None:
    """Write a model's files into `folder`, which is made."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / TOKENIZER)
    versions = {"embodied": embodied.__version__, "torch": torch.__version__}
    # Last, so that a folder with a config is whole
    write_json(folder / CONFIG, {"format": FORMAT, "model": model.resolved(), "versions": versions})


def load(folder: str | Path) -> LVLM:
    """A model from our own folder, or from a Hugging Face folder of a family that we compose.

    Raises:
        ValueError: the folder holds neither, pickles, or a file that is missing, damaged or does not fit;
            `embodied.building.ForbiddenTarget` where its config names a class that is not allowed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no model: there is no {CONFIG} in it")
    refuse_pickles(folder)
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} is not a model's config, but a {type(config).__name__}")
    if "model_type" in config:
        from embodied.lvlm.interop.checkpoints import load_reference

        return load_reference(folder)[0]
    if config.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG} is not a model's: format is {config.get('format')!r}, expected {FORMAT!r}")
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{folder / CONFIG} is incomplete: it has no 'model'")
    model = LVLM.from_config(config["model"])
    load_weights(model, folder / WEIGHTS, "model")
    return model.eval()
