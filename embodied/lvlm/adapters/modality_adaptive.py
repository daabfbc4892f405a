"""Modality-adaptive modules: visual tokens have norms, keys and values of their own, and share all else.

mPLUG-Owl2 (Ye et al. 2023, arXiv 2311.04257). What is specific to a modality is kept apart, while shared queries,
output and feed-forward let the modalities help each other. The copies start as the language model's own.
"""

from __future__ import annotations

from torch import nn

from embodied.lvlm.adapters.anatomy import attention_of, layers_of
from embodied.lvlm.adapters.modality_copies import ModalityCopies, copied

NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "self_attn_layer_norm",
    "final_layer_norm",
)


class ModalityAdaptive(ModalityCopies):
    """The modality-adaptive module.

    Args: norms: whether norms are kept apart, besides keys and values.

    Raises:
        ValueError: a family whose keys and values have no maps of their own.
    """

    def __init__(self, norms: bool = True) -> None:
        super().__init__()
        self.norms = norms

    def install(self, model: nn.Module) -> None:
        layers = layers_of(model, "ModalityAdaptive")
        for index, layer in enumerate(layers):
            attention = attention_of(model, layer, "ModalityAdaptive")
            self.own(f"{index}.key", attention.key)
            self.own(f"{index}.value", attention.value)
        if self.norms:
            for name, module in copied(layers, range(len(layers)), NORMS):
                self.own(name, module)
