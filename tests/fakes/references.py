"""Tiny reference models of transformers, one for each composed family, with their official image processors.

Hidden width 32, 2 layers, 4 heads, 128 words, patches of 14 pixels. Each case says which rows of the survey it stands
for and how the reference is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf
from torch import Tensor

IMAGE = 100
"""The word that stands for a token of a picture."""
VIDEO = 101
"""The word that stands for a token of a film."""

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
CLIP, SIGLIP = VISION | {"model_type": "clip_vision_model"}, VISION | {"model_type": "siglip_vision_model"}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = {"vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXT = SIZES | IDS | {"num_key_value_heads": 2}
LLAMA, QWEN2, MISTRAL = (TEXT | {"model_type": kind} for kind in ("llama", "qwen2", "mistral"))
PHI, PERSIMMON = (SIZES | IDS | {"model_type": kind} for kind in ("phi", "persimmon"))
STABLELM = TEXT | {"model_type": "stablelm"}
MIXTRAL = TEXT | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
OPT = IDS | {
    "model_type": "opt",
    "hidden_size": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "word_embed_proj_dim": 32,
    "max_position_embeddings": 128,
}
T5 = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": 128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
QFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "cross_attention_frequency": 1,
    "encoder_hidden_size": 32,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28]]
SQUARE = {"height": 28, "width": 28}

Views = list[Tensor]
"""Pixels of each view, (3, H, W)."""


Counts = list[int]
"""How many views each picture has."""


def stacked(processed: Any, counts: Counts) -> Views:
    """Views of processors that stack them, one picture after the other; IDEFICS' gives nothing but pixels."""
    pixels = processed if isinstance(processed, Tensor) else processed["pixel_values"]
    return list(pixels.flatten(0, -4))


def filled_up(processed: Any, counts: Counts) -> Views:
    """Views of processors that give all pictures of a sample as many."""
    found = zip(processed["pixel_values"], counts, strict=True)
    return [view for views, count in found for view in views[:count]]


def masked(processed: Any, counts: Counts) -> Views:
    """Views of processors that pad to the largest."""
    result = []
    for view, mask in zip(processed["pixel_values"][0], processed["pixel_attention_mask"][0].bool(), strict=True):
        result.append(view[:, mask.any(1)][:, :, mask.any(0)])
    return result


def pixels_alone(processed: Any, ids: Tensor) -> dict[str, Any]:
    return {"pixel_values": processed["pixel_values"]}


def with_sizes(processed: Any, ids: Tensor) -> dict[str, Any]:
    return {"pixel_values": processed["pixel_values"], "image_sizes": processed["image_sizes"]}


def with_mask(processed: Any, ids: Tensor) -> dict[str, Any]:
    return {name: processed[name] for name in ("pixel_values", "pixel_attention_mask")}


def instructed(processed: Any, ids: Tensor) -> dict[str, Any]:
    return {
        "pixel_values": processed["pixel_values"],
        "qformer_input_ids": INSTRUCTION.expand(len(processed["pixel_values"]), -1),
    }


INSTRUCTION = torch.tensor([[11, 12, 13]])
"""What an instruction-aware connector is told."""
SAID = torch.tensor([[21, 22, 23, 1]])
"""What a decoder says."""


@dataclass(frozen=True)
class Case:
    """A reference.

    Attributes:
        name: of the test.
        rows: of the survey, which this architecture is.
        config: makes the reference's configuration.
        processor: makes its image processor.
        frames: makes what does for frames as its video processor, which needs torchvision; None: `processor`.
        call: the processor's output and the ids, to the reference's further arguments; None: it reads no pictures.
        film: pixels of a film's frames (T, 3, H, W) and the ids, to the same; None: it reads no films.
        views: the processor's output to pixels of each view.
        told: whether the connector reads an instruction.
        says: whether a decoder speaks.
        flat: whether the processor takes the pictures of a sample as a list, and not as one sample of a batch.
        several: whether a sample may hold more than one picture.
        mend: a last change of the reference's weights, for what only holds with some.
    """

    name: str
    rows: Sequence[str]
    config: Callable[[], hf.PretrainedConfig]
    processor: Callable[[], Any]
    call: Callable[[Any, Tensor], dict[str, Any]] | None = pixels_alone
    views: Callable[[Any, Counts], Views] = stacked
    told: bool = False
    says: bool = False
    flat: bool = True
    several: bool = True
    film: Callable[[Tensor, Tensor], dict[str, Any]] | None = None
    frames: Callable[[], Any] | None = None
    mend: Callable[[hf.PreTrainedModel], None] = field(default=lambda model: None)

    def reference(self, seed: int = 0) -> hf.PreTrainedModel:
        """The reference with random weights: larger than fresh ones, so that a part that is left out shows."""
        torch.manual_seed(seed)
        model: hf.PreTrainedModel = hf.AutoModelForImageTextToText.from_config(self.config())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
                    parameter.add_(torch.randn_like(parameter) * 0.1)
                else:
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        self.mend(model)
        return model.eval()
