"""What maps that are graphs share: their nodes as tokens, and layers whose attention knows the ways between them.

As DUET has it (Chen et al. 2022, `map_nav_src/models/vilmodel.py`): to what a node shows is added an embedding of the
step it was visited at (0: never) and of where it is, seen by the agent: LayerNorm(Linear(sine and cosine of relative
heading and elevation, distance / 30, way / 30, hops / 10)). The layers' self-attention adds Linear(1, 1) of the
pairwise ways / 30 to its logits (graph-aware self-attention, GASA).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maps.attention import CrossModalLayer, check_heads
from maps.base import MapMemory, Memory
from maps.graph import Columns, graph_columns
from maps.panorama import angles, directions

DISTANCE, HOPS = 30.0, 10.0


class GraphMemory(MapMemory):
    """A map whose memory is a graph (`maps.graph`).

    Args:
        width: size D of a token, and of the text's.
        capacity: K, nodes per episode.
        steps: step numbers from here on share an embedding.
        layers: how many, over the nodes.
        heads, feed_forward, dropout: of the layers.
        distances: whether attention knows the ways between nodes.

    Raises:
        ValueError: a size that no map has.
    """

    def __init__(
        self,
        width: int,
        capacity: int,
        steps: int,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        distances: bool,
    ) -> None:
        super().__init__(width)
        check_heads(width, heads)
        for name, size in {"capacity": capacity, "steps": steps}.items():
            if size < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1, got {size}")
        self.capacity, self.steps = capacity, steps
        self.node_place = nn.Sequential(nn.Linear(7, width), nn.LayerNorm(width, eps=1e-12))
        self.node_step = nn.Embedding(steps, width)
        self.bias = nn.Linear(1, 1) if distances else None
        self.coarse = nn.ModuleList(CrossModalLayer(width, heads, feed_forward, dropout) for _ in range(layers))

    def node_columns(self) -> Columns:
        """What the memory holds of the nodes beside what they show."""
        return graph_columns(self.capacity) | {
            "step": ((self.capacity,), torch.int64, 0),  # when a node was visited
            "time": ((), torch.int64, 0),
        }

    @staticmethod
    def where(memory: Memory, rows: Tensor, nodes: Tensor, place: Tensor, heading: Tensor) -> Tensor:
        """(B, N, 7): where nodes (B, N) are for who stands at a place (B, 3) and looks along a heading (B,)."""
        here, batch = memory["here"][rows], torch.arange(len(rows), device=rows.device)
        chosen = memory["places"][rows].gather(1, nodes.unsqueeze(-1).expand(-1, -1, 3))
        heading, elevation, line = directions(place, heading, chosen)
        way = memory["distance"][rows][batch, here].gather(1, nodes)
        hops = memory["hops"][rows][batch, here].gather(1, nodes)
        far = torch.stack([line / DISTANCE, way / DISTANCE, hops / HOPS], dim=-1)
        return torch.cat([angles(heading, elevation), far], dim=-1)

    def placed(
        self, memory: Memory, rows: Tensor, present: Tensor, place: Tensor, heading: Tensor, stop: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """What the first N nodes' tokens hold beside what they show, and the bias of the attention among them.

        Args:
            memory, rows: whose.
            present: (B, N), bool: which nodes there are.
            place, heading: (B, 3), (B,), the agent's.
            stop: whether a node without a place stands before all others: *stop*.

        Returns:
            (B, N, D) and (B, N, N); with `stop` one more; None where the layers don't know ways.
        """
        count, before = present.shape[1], int(stop)
        nodes = torch.arange(count, device=rows.device).expand_as(present)
        where = self.where(memory, rows, nodes, place, heading)
        where = torch.where(present.unsqueeze(-1), where, 0.0)
        nowhere = torch.tensor([0.0, 1, 0, 1, 0, 0, 0], device=rows.device).expand(len(rows), before, -1)
        step = nn.functional.pad(memory["step"][rows, :count], (before, 0)).clamp(max=self.steps - 1)
        tokens = self.node_place(torch.cat([nowhere, where], dim=1)) + self.node_step(step)
        if self.bias is None:
            return tokens, None
        ways = memory["distance"][rows, :count, :count] / DISTANCE
        ways = torch.where(ways.isfinite(), ways, 0.0)
        return tokens, self.bias(nn.functional.pad(ways, (before, 0, before, 0)).unsqueeze(-1)).squeeze(-1)
