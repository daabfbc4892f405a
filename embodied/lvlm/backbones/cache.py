"""A cache of keys and values with room for more.

transformers' own (`DynamicCache`) copies all that it holds when it is made of what was read before, and again for each
further token. Here what was read before is taken as it is, and copied once into a larger place when something comes
behind it; from then on a token is written where there is room. With gradients, nothing is written over: it is
transformers' way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""How many tokens there is room for at least, each time that it is made."""


class RoomyLayer(DynamicLayer):
    """Keys and values (B, heads, P, head width) of one layer, the visible part of places that are longer."""

    def __init__(self) -> None:
        super().__init__()
        self._places: tuple[Tensor, Tensor] | None = None

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Take what was read before; it is left as it is."""
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        held = self.get_seq_length()
        if torch.is_grad_enabled() or not held:
            self._places = None
            if held:
                return super().update(key_states, value_states, *args, **kwargs)
            self.hold(key_states, value_states)
            return key_states, value_states
        end = held + key_states.shape[-2]
        assert self.keys is not None and self.values is not None
        if self._places is None or not self._fits(end):
            self._places = (_place(self.keys, end + ROOM), _place(self.values, end + ROOM))
        for place, new in zip(self._places, (key_states, value_states), strict=True):
            place[:, :, held:end] = new
        self.keys, self.values = (place[:, :, :end] for place in self._places)
        return self.keys, self.values

    def _fits(self, end: int) -> bool:
        """Whether the places still are those of what is held - beams reorder it elsewhere - and are long enough."""
        assert self._places is not None and self.keys is not None
        place = self._places[0]
        same = self.keys.data_ptr() == place.data_ptr() and self.keys.shape[:2] == place.shape[:2]
        return same and end <= place.shape[2]


def _place(held: Tensor, length: int) -> Tensor:
    place = held.new_empty(*held.shape[:2], length, held.shape[3])
    place[:, :, : held.shape[2]] = held
    return place


def roomy(past: Sequence[tuple[Tensor, Tensor]] | None) -> DynamicCache:
    """A cache that holds `past`, or nothing yet."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = RoomyLayer
    for keys, values in past or ():
        layer = RoomyLayer()
        layer.hold(keys, values)
        cache.layers.append(layer)
    return cache
