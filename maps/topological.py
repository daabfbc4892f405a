"""DUET: a topological map of visited and frontier nodes, read coarsely as a graph and finely as the present panorama.

Chen et al. 2022, "Think Global, Act Local" (CVPR), and its official code (`map_nav_src/models/graph_utils.py` and
`vilmodel.py`, `r2r/agent.py`). A visited node is the mean of its panorama's tokens, a frontier node the running mean of
the tokens that showed it. What is added to them, and the coarse layers, are in `maps.nodes`; node 0 is *stop*.

The fine layers read the panorama with *stop* before it. Both sides score: s = sigmoid(FFN(both stops)) weighs global
logits s and local ones 1 - s; a frontier that is next to the agent also gets its local logit, any other the sum of the
local logits of visited neighbours (the urge to go back). Visited nodes are never chosen. At the end the agent goes back
to the visited node with the highest probability of stopping.

Released: 9 text, 2 panorama, 4 coarse and 4 fine layers, width 768, 12 heads. Headings here grow counter-clockwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embodied.spec import POSE
from maps.attention import CrossModalLayer
from maps.base import FEATURES, MapTokens, Memory, Text
from maps.graph import nodes_of, route, visit
from maps.nodes import GraphMemory
from maps.panorama import ANGLES, NEIGHBOURS, NODE, PLACES, VIEWS, PanoramaEncoder, Visit

NEVER = float("-inf")


@dataclass(frozen=True)
class Decision:
    """Where to go next.

    Attributes:
        fused: (B, 1 + N) logits of *stop* and of each node; -inf where it can't be chosen.
        coarse: (B, 1 + N), weighed by s; fine: (B, 1 + C), of *stop* and each neighbour, weighed by 1 - s.
        balance: (B,) s.
    """

    fused: Tensor
    coarse: Tensor
    fine: Tensor
    balance: Tensor


def score(width: int, inputs: int) -> nn.Sequential:
    """DUET's `ClsPrediction`: (..., inputs) to (..., 1)."""
    norm = nn.LayerNorm(width, eps=1e-12)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), norm, nn.Linear(width, 1))


class TopologicalMap(GraphMemory):
    """A graph of nodes as tokens, and DUET's decision among them. Observations are those of `maps.panorama`.

    Args:
        width: size D of a token, and of the text's.
        features: F of a view.
        capacity: K, nodes per episode.
        neighbours, views: at most so many at one viewpoint.
        steps: step numbers from here on share an embedding.
        panorama_layers, coarse_layers, fine_layers: how many; 0 fine layers: no decision, tokens alone.
        heads, feed_forward, dropout: of all layers.
        distances: whether attention among nodes knows the ways between them (GASA).
        cameras: of the views, where each is a picture of its own (`observation.features.<camera>`), in the order of
            `observation.angles`; none: `observation.features` holds them all.
        candidates: whether *stop* and the neighbours follow the nodes as tokens once more, from the fine layers and
            numbered as the actions are (NaviLLM's schema: history, then candidates; Zheng et al. 2024, arXiv
            2312.02010, whose classifier is a categorical head on the readout).

    Raises:
        ValueError: a size that no map has; candidates without fine layers.
    """

    def __init__(
        self,
        width: int,
        features: int,
        capacity: int = 64,
        neighbours: int = 16,
        views: int = 36,
        steps: int = 100,
        panorama_layers: int = 1,
        coarse_layers: int = 2,
        fine_layers: int = 2,
        heads: int = 4,
        feed_forward: int = 256,
        dropout: float = 0.1,
        distances: bool = True,
        cameras: Sequence[str] = (),
        candidates: bool = False,
    ) -> None:
        super().__init__(width, capacity, steps, coarse_layers, heads, feed_forward, dropout, distances)
        if len(cameras) > views:
            raise ValueError(f"TopologicalMap: there are {len(cameras)} cameras, but views={views}")
        for name, size in {"features": features, "neighbours": neighbours, "views": views}.items():
            if size < 1:
                raise ValueError(f"TopologicalMap: {name} must be at least 1, got {size}")
        self.neighbours, self.views = neighbours, views
        self.cameras = tuple(cameras)
        self.panorama = PanoramaEncoder(width, features, panorama_layers, heads, feed_forward, dropout)
        self.fine = nn.ModuleList(CrossModalLayer(width, heads, feed_forward, dropout) for _ in range(fine_layers))
        if fine_layers:
            self.view_place = nn.Sequential(nn.Linear(14, width), nn.LayerNorm(width, eps=1e-12))
            self.score_coarse, self.score_fine = score(width, width), score(width, width)
            self.weigh = score(width, 2 * width)
        if candidates and not fine_layers:
            raise ValueError("TopologicalMap: candidates are told by the fine layers: fine_layers is at least 1")
        self.number = nn.Embedding(1 + neighbours, width) if candidates else None

    @property
    def reads(self) -> tuple[str, ...]:
        views = tuple(FEATURES + camera for camera in self.cameras) or (VIEWS,)
        return NODE, NEIGHBOURS, PLACES, ANGLES, POSE, *views

    # writing

    def begin(self, slots: int) -> Memory:
        around = self.neighbours + self.views
        return Memory(
            slots,
            self.device,
            self.node_columns()
            | {
                "embedding": ((self.capacity, self.width), torch.float32, 0.0),  # a sum
                "seen": ((self.capacity,), torch.float32, 0.0),  # of so many tokens
                "heading": ((), torch.float32, 0.0),
                "stop": ((self.capacity,), torch.float32, 0.0),
                "near": ((self.neighbours,), torch.int64, -1),
                "panorama": ((around, self.width), torch.float32, 0.0),
                "panorama_present": ((around,), torch.bool, 0),
            },
        )

    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        seen, rows = Visit.of(observation, memory.device, self.cameras), memory.rows(slots)
        if len(seen.node) != len(rows):
            raise ValueError(f"an observation of {len(seen.node)} episodes was given for {len(rows)} slots")
        for name, most, count in (
            ("neighbours", self.neighbours, seen.near.shape[1]),
            ("views", self.views, seen.views.shape[1]),
        ):
            if count > most:
                raise ValueError(f"a viewpoint has {count} {name}, but this map was made for at most {most}")
        names = torch.cat([seen.node.unsqueeze(1), seen.near], dim=1)
        nodes = nodes_of(memory, rows, names, torch.cat([seen.place.unsqueeze(1), seen.places], dim=1))
        here, near = nodes[:, 0], nodes[:, 1:]
        visit(memory, rows, here, near)
        tokens, present = self.panorama(seen)
        tokens = tokens.float()  # as the memory is
        self._embed(memory, rows, here, near, tokens, present)
        memory["time"][rows] += 1
        memory["step"][rows, here] = memory["time"][rows]
        memory["heading"][rows] = seen.heading
        count = near.shape[1]
        memory["near"][rows] = nn.functional.pad(near, (0, self.neighbours - count), value=-1)
        ends = self.neighbours - count, self.views - seen.views.shape[1]  # neighbours' tokens, then the views'
        parts = (tokens[:, :count], ends[0]), (tokens[:, count:], ends[1])
        memory["panorama"][rows] = torch.cat([nn.functional.pad(part, (0, 0, 0, end)) for part, end in parts], dim=1)
        there = (present[:, :count], ends[0]), (present[:, count:], ends[1])
        memory["panorama_present"][rows] = torch.cat([nn.functional.pad(part, (0, end)) for part, end in there], dim=1)

    @staticmethod
    def _embed(memory: Memory, rows: Tensor, here: Tensor, near: Tensor, tokens: Tensor, present: Tensor) -> None:
        """The visited node becomes its panorama's mean; of frontier nodes, the tokens that show them add up."""
        weight = present.unsqueeze(-1).to(tokens.dtype)
        memory["embedding"][rows, here] = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
        memory["seen"][rows, here] = 1.0
        fresh = (near >= 0) & ~memory["visited"][rows.unsqueeze(1), near.clamp(min=0)]
        row, node = rows.unsqueeze(1).expand_as(near)[fresh], near[fresh]
        memory["embedding"][row, node] = memory["embedding"][row, node] + tokens[:, : near.shape[1]][fresh]
        memory["seen"][row, node] = memory["seen"][row, node] + 1.0

    # reading

    def _where(self, memory: Memory, rows: Tensor, nodes: Tensor) -> Tensor:
        """(B, N, 7): where nodes (B, N) are, seen by the agent."""
        return self.where(memory, rows, nodes, memory["places"][rows, memory["here"][rows]], memory["heading"][rows])

    def _nodes(self, memory: Memory, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens (B, 1 + N, D), which there are, and the attention's bias (B, 1 + N, 1 + N); node 0 is *stop*."""
        count = memory["count"][rows]
        most = int(count.max()) if len(rows) else 0
        present = torch.arange(most, device=rows.device) < count.unsqueeze(1)
        embedding = memory["embedding"][rows, :most] / memory["seen"][rows, :most].clamp(min=1).unsqueeze(-1)
        place = memory["places"][rows, memory["here"][rows]]
        placed, bias = self.placed(memory, rows, present, place, memory["heading"][rows], stop=True)
        tokens = nn.functional.pad(embedding, (0, 0, 1, 0)) + placed
        return tokens, nn.functional.pad(present, (1, 0), value=True), bias

    def forward(
        self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None
    ) -> MapTokens:
        """*Stop* and the nodes, after the coarse layers: N + 1 tokens, N the most nodes that one of the slots has.

        With `candidates`, 1 + neighbours more.
        """
        rows = memory.rows(slots)
        nodes = self._coarse(memory, text, rows)
        if self.number is None:
            return nodes
        around, count = self.panorama_tokens(memory, text, rows), self.number.num_embeddings
        tokens = torch.cat([nodes.tokens, around.tokens[:, :count] + self.number.weight], dim=1)
        return MapTokens(tokens, torch.cat([nodes.present, around.present[:, :count]], dim=1))

    def _coarse(self, memory: Memory, text: Text | None, rows: Tensor) -> MapTokens:
        tokens, present, bias = self._nodes(memory, rows)
        for layer in self.coarse:
            tokens = layer(tokens, present, text, bias)
        return MapTokens(tokens, present)

    def panorama_tokens(self, memory: Memory, text: Text | None, rows: Tensor) -> MapTokens:
        """*Stop*, neighbours and views of where the agent is, after the fine layers: 1 + neighbours + views tokens."""
        near = memory["near"][rows]
        start = self._where(memory, rows, torch.zeros_like(near[:, :1]))
        there = torch.where((near >= 0).unsqueeze(-1), self._where(memory, rows, near.clamp(min=0)), 0.0)
        place = nn.functional.pad(there, (0, 0, 1, self.views))
        place = torch.cat([start.expand(-1, place.shape[1], -1), place], dim=-1)
        tokens = nn.functional.pad(memory["panorama"][rows], (0, 0, 1, 0)) + self.view_place(place)
        present = nn.functional.pad(memory["panorama_present"][rows], (1, 0), value=True)
        for layer in self.fine:
            tokens = layer(tokens, present, text)
        return MapTokens(tokens, present)

    def decide(self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None) -> Decision:
        """Score *stop* and every frontier node.

        Raises:
            ValueError: the map was made without fine layers.
        """
        if not len(self.fine):
            raise ValueError("a TopologicalMap with fine_layers=0 has tokens to read, but decides nothing")
        rows = memory.rows(slots)
        nodes, around = self._coarse(memory, text, rows), self.panorama_tokens(memory, text, rows)
        balance = torch.sigmoid(self.weigh(torch.cat([nodes.tokens[:, 0], around.tokens[:, 0]], dim=-1)))
        visited = memory["visited"][rows, : nodes.tokens.shape[1] - 1]
        near = memory["near"][rows]
        coarse = self.score_coarse(nodes.tokens).squeeze(-1) * balance
        coarse = coarse.masked_fill(~nodes.present | nn.functional.pad(visited, (1, 0)), NEVER)
        fine = self.score_fine(around.tokens[:, : 1 + self.neighbours]).squeeze(-1) * (1 - balance)
        fine = fine.masked_fill(nn.functional.pad(near < 0, (1, 0)), NEVER)
        return Decision(fuse(coarse, fine, near, visited), coarse, fine, balance.squeeze(-1))

    # acting

    def remember(self, memory: Memory, fused: Tensor, slots: Sequence[int] | Tensor | None = None) -> None:
        """Note how likely the agent was to stop where it is, from `Decision.fused`."""
        rows = memory.rows(slots)
        memory["stop"][rows, memory["here"][rows]] = fused.detach().softmax(-1)[:, 0]

    @staticmethod
    def best_stop(memory: Memory, slot: int) -> int:
        """The visited node with the highest noted probability of stopping: where an episode ends."""
        stop = torch.where(memory["visited"][slot], memory["stop"][slot], torch.full_like(memory["stop"][slot], -1.0))
        return int(stop.argmax())

    @staticmethod
    def way(memory: Memory, slot: int, node: int) -> list[int]:
        """Viewpoint numbers from where the agent is to a node, along known edges: backtracking is walking it."""
        here = int(memory["here"][slot])
        return [int(memory["names"][slot, step]) for step in route(memory, slot, here, node)]

    @staticmethod
    def teacher(memory: Memory, to_goal: Tensor, arrived: Tensor) -> Tensor:
        """What DUET is taught, (B,) among *stop* (0) and nodes: the frontier on the shortest way to the goal.

        Args:
            memory: of B slots.
            to_goal: (B, K) metres from each node to the goal; whatever where there is no node.
            arrived: (B,), bool: the agent is at the goal, and stops. So it does where no frontier is left.
        """
        rows = memory.rows()
        frontier = ~memory["visited"] & (memory["names"] >= 0)
        way = memory["distance"][rows, memory["here"]] + to_goal
        best = way.masked_fill(~frontier, float("inf")).argmin(1) + 1
        return torch.where(arrived | ~frontier.any(1), torch.zeros_like(best), best)


def fuse(coarse: Tensor, fine: Tensor, near: Tensor, visited: Tensor) -> Tensor:
    """Weighed global and local logits as one.

    Args:
        coarse: (B, 1 + N), -inf where a node can't be chosen.
        fine: (B, 1 + C), -inf where there is no neighbour.
        near: (B, C) node of each neighbour, -1 for none.
        visited: (B, N), bool.
    """
    there = near >= 0
    known = there & visited.gather(1, near.clamp(min=0))
    local = torch.where(there, fine[:, 1:], torch.zeros_like(fine[:, 1:]))
    back = torch.where(known, local, torch.zeros_like(local)).sum(1, keepdim=True)
    ahead = torch.where(there & ~known, local, torch.zeros_like(local))
    added = torch.zeros_like(coarse[:, 1:]).scatter_add(1, near.clamp(min=0), ahead)
    adjacent = torch.zeros_like(added).scatter_add(1, near.clamp(min=0), (there & ~known).to(added.dtype)) > 0
    return coarse + torch.cat([fine[:, :1], torch.where(adjacent, added, back)], dim=1)
