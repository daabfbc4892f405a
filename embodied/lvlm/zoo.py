"""The zoo: one row per published model, a file each (`conf/model/zoo/<row>.yaml`), at its released size or a tiny one.

A row is data: which parts, how large, and what is known of the whole. The same composition at a tiny size is made by
rules (`shrink`), so that a test can build, train and save all rows, and by the row's own `tiny` node where the rules do
not know better.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch

from embodied.building import nearest
from embodied.lvlm.model import LVLM

SMALL: dict[str, int] = {
    # transformers' configurations
    "hidden_size": 32,
    "d_model": 32,
    "embed_dim": 32,
    "n_embd": 32,
    "word_embed_proj_dim": 32,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "d_ff": 64,
    "d_kv": 8,
    "head_dim": 8,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "n_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_heads": 4,
    "num_local_experts": 4,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "output_channels": 32,
    "encoder_hidden_size": 32,
    "state_size": 4,
    # our own parts
    "queries": 4,
    "layers": 2,
    "heads": 4,
    "head_width": 8,
    "hidden": 64,
    "intermediate": 64,
    "depth": 1,
    "vocabulary": 64,
    "rank": 2,
}
"""What a key is at most in a tiny model, wherever it stands in the node."""


@dataclass(frozen=True)
class Row:
    """A model of the zoo.

    Attributes:
        name: as the survey's table prints it.
        model: the node for `LVLM.from_config`, at the released size.
        chat: the chat template's name (`conf/chat`).
        recipe: how it was trained (`conf/recipe`); None: the survey's Table 9 does not say.
        parameters: of the released model; None: not published, or not by these parts.
        source: where that number is from.
        reference: transformers' class that the row is compared with; None: there is none.
        parity: what is compared: `model`, `parts` or `limits`.
        tiny: what the tiny model has otherwise than `shrink` makes it.
    """

    name: str
    model: dict[str, Any]
    chat: str
    recipe: str | None = None
    parameters: float | None = None
    source: str = ""
    reference: str | None = None
    parity: str = "parts"
    tiny: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Row:
        """A row from its file.

        Raises:
            ValueError: an unknown key, or one that is missing.
        """
        known = cls.__dataclass_fields__
        for key in row:
            if key not in known:
                raise ValueError(f"a row of the zoo has no '{key}'{nearest(str(key), known)}")
        for key in ("name", "model", "chat"):
            if key not in row:
                raise ValueError(f"a row of the zoo needs '{key}'")
        return cls(**deepcopy(dict(row)))

    def node(self, tiny: bool = False) -> dict[str, Any]:
        """The model's node, at the released or the tiny size."""
        return merged(shrink(self.model), self.tiny) if tiny else deepcopy(self.model)

    def build(self, tiny: bool = False) -> LVLM:
        """The model with new weights; at the released size, that is as much memory as it says."""
        return LVLM.from_config(self.node(tiny))

    def count(self) -> int:
        """Parameters at the released size, tied ones once, without allocating any."""
        with torch.device("meta"):
            model = self.build()
        return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def shrink(node: Any) -> Any:
    """The same composition, tiny: sizes as in `SMALL` where they were larger; pictures of four by four patches.

    Grouped-query attention stays grouped, and what was as large as something else stays so.
    """
    if isinstance(node, Mapping):
        small = {key: shrink(value) for key, value in node.items()}
        for key, most in SMALL.items():
            if _whole(small.get(key)) and small[key] > most:
                small[key] = most
        if _whole(small.get("num_key_value_heads")):
            grouped = node["num_key_value_heads"] < node.get("num_attention_heads", 0)
            small["num_key_value_heads"] = 2 if grouped else 4
        if _whole(small.get("image_size")) and _whole(node.get("patch_size")):
            small["image_size"] = 4 * node["patch_size"]
        return small
    if isinstance(node, list | tuple):
        return [shrink(value) for value in node]
    return node


def merged(node: Any, changes: Any) -> Any:
    """`node` with `changes`: mappings key by key, lists of as many mappings one by one, anything else replaced."""
    if isinstance(node, Mapping) and isinstance(changes, Mapping):
        return dict(node) | {key: merged(node.get(key), value) for key, value in changes.items()}
    if _nodes(node) and _nodes(changes) and len(node) == len(changes):
        return [merged(one, change) for one, change in zip(node, changes, strict=True)]
    return deepcopy(changes)


def _nodes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
