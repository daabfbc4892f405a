"""The eyes of a released CogVLM, CogVLM2 or GLM-4V: an EVA-02-CLIP-E read from their folder.

Their folders hold the weights under names of their own, next to code that this project does not run. Names follow
THUDM's `visual.py`; the gated projection behind the encoder is the SwiGLU connector.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from embodied.lvlm.encoders.base import Fit
from embodied.lvlm.encoders.eva import EVA
from embodied.lvlm.encoders.pretrained import tensors

SIZES = {
    "image_size": "image_size",
    "patch": "patch_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_heads",
    "hidden": "intermediate_size",
    "epsilon": "layer_norm_eps",
}
EMBEDDINGS = {
    "patches.weight": "patch_embedding.proj.weight",
    "patches.bias": "patch_embedding.proj.bias",
    "class_token": "patch_embedding.cls_embedding",
    "position": "patch_embedding.position_embedding.weight",
}
LAYER = {
    "norm_attention": "input_layernorm",
    "norm_feed": "post_attention_layernorm",
    "out": "attention.dense",
    "feed.0": "mlp.fc1",
    "feed.2": "mlp.fc2",
}


class CogVLMVision(EVA):
    """CogVLM's encoder, sizes and weights from a folder.

    Args:
        checkpoint: the folder, with config.json and safetensors in one file or several.
        keep_class_token, fit: see `EVA`.

    Raises:
        ValueError: a folder that describes or holds no such encoder.
    """

    def __init__(self, checkpoint: str, keep_class_token: bool = False, fit: Fit = "squash") -> None:
        folder = Path(checkpoint)
        try:
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vision_config"]
            self.sizes: dict[str, Any] = {ours: settings[theirs] for ours, theirs in SIZES.items()}
        except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise ValueError(f"CogVLMVision: {folder / 'config.json'} has no vision_config of a CogVLM") from None
        super().__init__(**self.sizes, norm="post", keep_class_token=keep_class_token, fit=fit)
        try:
            self.load_state_dict(renamed(tensors("CogVLMVision", folder, "vision"), self.sizes["depth"]))
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"CogVLMVision: {folder} lacks weights of the encoder: {reason}") from None

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, **self.sizes, "norm": "post", "_target_": f"{EVA.__module__}.EVA"}


def renamed(theirs: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """CogVLM's tensors by EVA's names.

    The bias of the keys is left out: it adds the same to all of a query's scores, and softmax ignores that.
    """
    state = {ours: theirs[name] for ours, name in EMBEDDINGS.items()}
    state["class_token"] = state["class_token"].reshape(1, 1, -1)
    state["position"] = state["position"].unsqueeze(0)
    for i in range(depth):
        layer = f"transformer.layers.{i}."
        for kind in ("weight", "bias"):
            joint = theirs[f"{layer}attention.query_key_value.{kind}"].chunk(3)
            state |= {f"layers.{i}.{name}.{kind}": part for name, part in zip("qkv", joint, strict=True)}
            state |= {f"layers.{i}.{ours}.{kind}": theirs[f"{layer}{name}.{kind}"] for ours, name in LAYER.items()}
        del state[f"layers.{i}.k.bias"]
    return state
