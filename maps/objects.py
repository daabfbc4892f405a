"""LEO's object-centric 3-D memory: one token per object, from the points that were seen of it.

Huang et al. 2024, "An Embodied Generalist Agent in 3D World" (ICML), and its official code (`model/vision3d.py`,
`model/transformers.py`). An object is the coloured points of its segment, normalised to a unit ball around its middle
and read by PointNet++. Objects, and one *embodied token* for where the agent stands and looks, then attend to each
other in three layers whose logits know the pairwise places: with `cond` fusion, log(sigmoid(w . p + b)) is added, where
p is (distance, height over distance, plan over distance, y and x over plan distance) and w, b are read from the token
that asks. The box of each object (middle and size) is embedded and added before each layer.

Released: up to 60 objects of 1024 points, width 256, 8 heads. Objects are told apart by
`observation.instance.<camera>` (B, V, H, W), 0 for nothing, and coloured by `observation.images.<camera>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied.spec import IMAGES, INSTANCE
from maps.attention import check_heads
from maps.base import MapTokens, Memory, Text, allot, thin
from maps.geometry import scatter_sum
from maps.grid import Columns, PlacedMemory
from maps.pointnet import PointNet

FAR = 1e9


class ObjectMap(PlacedMemory):
    """Objects as tokens; the first token is the agent.

    Args:
        width: size D of a token.
        objects: how many are remembered per episode, the first ones seen.
        points: of each object, the newest ones.
        new_points: of each object, at most so many of one view, evenly spread over its pixels.
        hidden: width of the spatial layers.
        layers, heads, feed_forward, dropout: of the spatial layers.
        pointnet: arguments of `maps.pointnet.PointNet`, where they should differ.
        surroundings: see `maps.grid.Surroundings`; of the grid, only its extent matters.

    Raises:
        ValueError: a size that no map has.
    """

    def __init__(
        self,
        width: int,
        objects: int = 60,
        points: int = 256,
        new_points: int = 64,
        hidden: int = 64,
        layers: int = 3,
        heads: int = 4,
        feed_forward: int = 256,
        dropout: float = 0.1,
        pointnet: Mapping[str, Any] | None = None,
        surroundings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(width, surroundings)
        check_heads(hidden, heads)
        for name, size in {"objects": objects, "points": points, "new_points": new_points}.items():
            if size < 1:
                raise ValueError(f"ObjectMap: {name} must be at least 1, got {size}")
        if new_points > points:
            raise ValueError(f"new_points={new_points} of one view don't fit into points={points} of an object")
        self.objects, self.points, self.new_points = objects, points, new_points
        self.look = PointNet(3, hidden, **(pointnet or {}))
        self.anchor = nn.Parameter(torch.randn(hidden) * 0.02)
        self.anchor_size = nn.Parameter(torch.ones(3))
        self.facing = nn.Linear(2, hidden)
        self.kind = nn.Embedding(2, hidden)
        self.box = nn.Sequential(nn.Linear(6, hidden), nn.LayerNorm(hidden))
        self.layers = nn.ModuleList(SpatialLayer(hidden, heads, feed_forward, dropout) for _ in range(layers))
        self.out = nn.Linear(hidden, width)

    def columns(self) -> Columns:
        return {
            "name": ((self.objects,), torch.int64, -1),
            "count": ((), torch.int64, 0),
            "cloud": ((self.objects, self.points, 6), torch.float32, 0.0),  # metres from the middle, colours in -1..1
            "written": ((self.objects,), torch.int64, 0),
            "low": ((self.objects, 3), torch.float32, FAR),
            "high": ((self.objects, 3), torch.float32, -FAR),
        }

    @torch.no_grad()
    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        seen = self.place(memory, observation, slots)
        shape = (*seen.view.depth.shape[:2], *seen.view.whole)
        instance = self._pixels(observation, INSTANCE, shape).long().flatten(1)
        colour = self._pixels(observation, IMAGES, (*shape, 3)).flatten(1, 3).float() / 127.5 - 1
        valid = seen.seen & (instance > 0)
        row, pixel = valid.nonzero(as_tuple=True)
        named = torch.stack([seen.rows[row], instance[row, pixel]], dim=1)
        if not len(named):
            return
        found, member, many = torch.unique(named, dim=0, return_inverse=True, return_counts=True)
        spot = self._slots(memory, found)
        place = torch.cat([seen.places[row, pixel], seen.heights[row, pixel].unsqueeze(-1)], dim=-1)
        kept = spot[member] >= 0
        episode, which = found[member, 0][kept], spot[member][kept]
        for name, reduce in (("low", "amin"), ("high", "amax")):
            flat = memory[name].view(-1, 3)
            at = (episode * self.objects + which).unsqueeze(-1).expand(-1, 3)
            flat.scatter_reduce_(0, at, place[kept], reduce)
        order = torch.argsort(member, stable=True)
        rank = torch.empty_like(order)
        first = many.cumsum(0) - many
        rank[order] = torch.arange(len(order), device=order.device) - first[member[order]]
        share = many.clamp(max=self.new_points)
        number = rank * share[member] // many[member]  # of `many` pixels `share` are taken, evenly spread
        chosen = kept & ((rank + 1) * share[member] // many[member] > number)
        at = found[member, 0][chosen], spot[member][chosen]
        position = (memory["written"][at] + number[chosen]) % self.points
        memory["cloud"][at[0], at[1], position] = torch.cat([place, colour[row, pixel]], dim=-1)[chosen]
        known = spot >= 0
        memory["written"][found[known, 0], spot[known]] += share[known]

    @property
    def reads(self) -> tuple[str, ...]:
        return *super().reads, INSTANCE + self.camera, IMAGES + self.camera

    def _pixels(self, observation: Mapping[str, Any], prefix: str, shape: Sequence[int]) -> Tensor:
        """An image beside the depth's, of `shape`; a single view may lack the axis of views."""
        key = prefix + self.camera
        if key not in observation:
            raise ValueError(f"an object map needs {key}; the observation has {', '.join(sorted(observation))}")
        found = torch.as_tensor(observation[key]).to(self.device)
        found = found.unsqueeze(1) if found.ndim == len(shape) - 1 else found
        if found.shape != torch.Size(shape):
            raise ValueError(f"{key} is {tuple(found.shape)}, but should be {tuple(shape)}, as the depth is")
        return thin(found, self.around.stride)

    def _slots(self, memory: Memory, found: Tensor) -> Tensor:
        """Where objects (G, 2: episode, instance; sorted) are kept, new ones being added; -1: nowhere."""
        episode, instance = found.unbind(1)
        same = memory["name"][episode] == instance.unsqueeze(1)
        known = same.any(1)
        place = allot(memory["count"], episode, ~known, self.objects)
        new = place >= 0
        memory["name"][episode[new], place[new]] = instance[new]
        memory["count"] += scatter_sum(new.long(), episode, memory.slots)
        return torch.where(known, same.long().argmax(1), place)

    def boxes(self, memory: Memory, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B, objects, 6) middle (metres from the grid's middle and above the floor) and size, and which there are."""
        present = memory["name"][rows] >= 0
        low, high = memory["low"][rows], memory["high"][rows]
        box = torch.cat([(low + high) / 2, high - low], dim=-1)
        return torch.where(present.unsqueeze(-1), box, torch.zeros_like(box)), present

    def forward(
        self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None
    ) -> MapTokens:
        """The agent and the objects: 1 + N tokens, N the most objects that one of the slots has."""
        rows = memory.rows(slots)
        box, present = self.boxes(memory, rows)
        most = int(memory["count"][rows].max()) if len(rows) else 0
        box, present = box[:, :most], present[:, :most]
        agent = memory["agent"][rows]
        stand = torch.cat([agent[:, :2], torch.full_like(agent[:, :1], self.eye)], dim=-1)
        anchor_box = torch.cat([stand, self.anchor_size.expand(len(rows), -1)], dim=-1).unsqueeze(1)
        facing = self.facing(torch.stack([agent[:, 2].sin(), agent[:, 2].cos()], dim=-1))
        anchor = (self.anchor + facing + self.kind.weight[1]).unsqueeze(1)
        objects = self._read_objects(memory, rows, most, box) + self.kind.weight[0]
        tokens, boxes = torch.cat([anchor, objects], dim=1), torch.cat([anchor_box, box], dim=1)
        there = nn.functional.pad(present, (1, 0), value=True)
        pairs = pairwise_places(boxes[..., :3], there)
        for layer in self.layers:
            tokens = layer(tokens + self.box(boxes), pairs, there)
        return MapTokens(self.out(tokens), there)

    def _read_objects(self, memory: Memory, rows: Tensor, most: int, box: Tensor) -> Tensor:
        """(B, most, hidden)."""
        cloud = memory["cloud"][rows, :most]
        there = torch.arange(self.points, device=rows.device) < memory["written"][rows, :most].unsqueeze(-1)
        away = cloud[..., :3] - box[..., :3].unsqueeze(2)
        away = torch.where(there.unsqueeze(-1), away, torch.zeros_like(away))
        radius = away.norm(dim=-1).amax(-1).clamp(min=1e-3)
        points = (away / radius[..., None, None]).flatten(0, 1)
        read = self.look(points, cloud[..., 3:].flatten(0, 1), there.flatten(0, 1))
        return read.unflatten(0, (len(rows), most))


def pairwise_places(middles: Tensor, present: Tensor) -> Tensor:
    """(B, N, N, 5) how middles (B, N, 3) lie to each other; distances over the largest in each row of the batch."""
    away = middles.unsqueeze(2) - middles.unsqueeze(1)
    distance = (away.square().sum(-1) + 1e-10).sqrt()
    plan = (away[..., :2].square().sum(-1) + 1e-10).sqrt()
    both = present.unsqueeze(1) & present.unsqueeze(2)
    largest = torch.where(both, distance, torch.zeros_like(distance)).amax((1, 2), keepdim=True).clamp(min=1e-5)
    x, y, z = away.unbind(-1)
    return torch.stack([distance / largest, z / distance, plan / distance, y / plan, x / plan], dim=-1)


class SpatialLayer(nn.Module):
    """Self-attention that knows the pairwise places (`cond` fusion), then a feed-forward, LayerNorms behind.

    Args:
        width, heads, feed_forward, dropout: as everywhere.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.condition = nn.Linear(width, heads * 6)
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        self.think = nn.Sequential(
            nn.Linear(width, feed_forward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, pairs: Tensor, present: Tensor) -> Tensor:
        """Tokens (B, N, D), pairwise places (B, N, N, 5) and which tokens there are (B, N), to tokens."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.project(tokens).chunk(3, -1))
        weights = self.condition(tokens).unflatten(-1, (self.heads, 6)).transpose(1, 2)  # (B, heads, N, 6)
        near = torch.einsum("bhnd,bnmd->bhnm", weights[..., 1:], pairs) + weights[..., :1]
        bias = near.sigmoid().clamp(min=1e-6).log().masked_fill(~present[:, None, None], float("-inf"))
        answer = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        attended = self.norms[0](tokens + self.out(answer))
        tokens = self.norms[1](tokens + self.dropout(attended))  # LEO's layer adds what its attention already added
        return self.norms[2](tokens + self.dropout(self.think(tokens)))
