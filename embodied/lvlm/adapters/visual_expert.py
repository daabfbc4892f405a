"""Visual experts: visual tokens have attention maps and a feed-forward of their own in every layer.

CogVLM (Wang et al. 2023, arXiv 2311.03079). Queries, keys and values of both kinds of tokens meet in one attention;
only the maps differ. The experts start as the language model's own.
"""

from __future__ import annotations

from torch import nn

from embodied.lvlm.adapters.anatomy import ATTENTION, FEED_FORWARD, chosen, layers_of, part_of
from embodied.lvlm.adapters.modality_copies import ModalityCopies, copied

MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "dense", "qkv_proj", "query_key_value", "Wqkv")
"""Names of an attention's maps; fused ones have one expert for all three."""


class VisualExpert(ModalityCopies):
    """A visual expert.

    Args: every: layers that have one. attention, feed_forward: what of a layer it covers.

    Raises:
        ValueError: a family without such parts.
    """

    def __init__(self, every: int = 1, attention: bool = True, feed_forward: bool = True) -> None:
        super().__init__()
        if not (attention or feed_forward):
            raise ValueError("VisualExpert: neither attention nor feed_forward leaves nothing to be expert in")
        self.every, self.attention, self.feed_forward = every, attention, feed_forward

    def install(self, model: nn.Module) -> None:
        layers = layers_of(model, "VisualExpert")
        for index in chosen(layers, self.every, 0, "VisualExpert"):
            layer = layers[index]
            if self.attention:
                part = part_of(layer, ATTENTION, "VisualExpert", "self-attention")
                maps = copied([part], [0], MAPS)
                if not maps:
                    raise ValueError(f"VisualExpert: a {type(part).__name__} has none of {', '.join(MAPS)}")
                for name, module in maps:
                    self.own(f"{index}.attention.{name.partition('.')[2]}", module)
            if self.feed_forward:
                if hasattr(layer, "fc1") and hasattr(layer, "fc2"):  # OPT has its feed-forward in the layer itself
                    self.own(f"{index}.fc1", layer.fc1)
                    self.own(f"{index}.fc2", layer.fc2)
                else:
                    part = part_of(layer, FEED_FORWARD, "VisualExpert", "feed-forward of hidden states alone")
                    self.own(f"{index}.feed_forward", part)
