"""A topological map that needs no graph of the simulator's: places visited, and waypoints seen that lead further.

In the spirit of ETPNav (An et al. 2023, arXiv 2304.03047), for bodies that move by small steps: the graph evolves from
depth, pose and picture alone. The agent is at the nearest *visited* node; where it is more than `spacing` from all of
them, a new one is made. A picture is cut into `sectors` side by side. Where a sector's ground is free beyond `reach`
metres (and `clearance`), a waypoint lies in its middle, at that distance: a *ghost* node, unless a visited node or
another ghost is within `spacing`. A ghost that a new visited node comes this near to is dropped. Edges join nodes that
were visited one after the other, visited nodes in free sight no farther than `reach`, and ghosts with where they were
seen from. ETPNav predicts waypoints by a network that was trained on the simulator's graphs; here they are read off the
depth.

A visited node shows the mean of all pictures taken there, a ghost that of the sectors that showed it, each the mean of
an image encoder's features. Their tokens are those of DUET (`maps.nodes`), `step` counting arrivals at nodes, plus an
embedding of ghost, visited or current. A full memory gives up its farthest ghost for a new visited node and takes no
more ghosts; where it has none to give, the agent counts to the nearest node.

An update costs the picture and K * K for K nodes of capacity, however long the episode already is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maps.base import MapTokens, Memory, Text, View
from maps.geometry import focal_length, heading_of, to_allocentric, to_egocentric, unproject
from maps.graph import drop, join, route
from maps.nodes import GraphMemory

GHOST, VISITED, CURRENT = range(3)
FAR = float("inf")


class WaypointMap(GraphMemory):
    """A graph of visited places and of waypoints, as tokens.

    Args:
        width: size D of a token, and of the text's.
        features: F of `observation.features.<camera>`.
        camera: whose observations are read.
        field_of_view: of that camera, in degrees across the width.
        near: depths nearer than this, in metres, are not believed.
        eye: height of the camera above the floor in metres.
        low, ceiling: what is between these heights above the floor, in metres, is in the way.
        spacing: metres; nodes are farther apart.
        reach: metres to a waypoint.
        clearance: metres of free ground that there are behind a waypoint; a body wants room.
        sectors: of a picture, side by side; a sector is free where all its columns are.
        capacity: K, nodes per episode.
        steps: arrivals from here on share an embedding.
        layers, heads, feed_forward, dropout: of the layers over the nodes.
        distances: whether attention among nodes knows the ways between them (GASA).

    Raises:
        ValueError: a size that no map has.
    """

    needs = ("features",)

    def __init__(
        self,
        width: int,
        features: int,
        camera: str = "front",
        field_of_view: float = 90.0,
        near: float = 0.05,
        eye: float = 1.25,
        low: float = 0.15,
        ceiling: float = 1.75,
        spacing: float = 1.0,
        reach: float = 2.0,
        clearance: float = 0.3,
        sectors: int = 5,
        capacity: int = 64,
        steps: int = 100,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int = 256,
        dropout: float = 0.1,
        distances: bool = True,
    ) -> None:
        super().__init__(width, capacity, steps, layers, heads, feed_forward, dropout, distances)
        if features < 1 or sectors < 1:
            raise ValueError(f"WaypointMap: features={features} and sectors={sectors} should be at least 1")
        if not 0 < spacing < reach:
            raise ValueError(f"WaypointMap: reach={reach} should be metres beyond spacing={spacing}, above 0")
        if not 1 <= field_of_view < 180 or not low < ceiling:
            raise ValueError(
                f"WaypointMap: field_of_view={field_of_view} should be from 1 to 179 degrees, low={low} below {ceiling}"
            )
        self.features, self.camera, self.field_of_view, self.sectors = features, camera, field_of_view, sectors
        self.near, self.eye, self.low, self.ceiling = near, eye, low, ceiling
        self.spacing, self.reach, self.clearance = spacing, reach, clearance
        self.see = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width, eps=1e-12))
        self.kind = nn.Embedding(3, width)

    # writing

    def begin(self, slots: int) -> Memory:
        return Memory(
            slots,
            self.device,
            self.node_columns()
            | {
                "shown": ((self.capacity, self.features), torch.float32, 0.0),  # a sum
                "views": ((self.capacity,), torch.float32, 0.0),  # of so many
                "agent": ((4,), torch.float32, 0.0),  # place and heading
            },
        )

    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        view, rows = self.sees(memory, observation, slots)
        assert view.features is not None
        batch, views = view.features.shape[:2]
        agents = torch.cat([view.pose[..., :3, 3], heading_of(view.pose).unsqueeze(-1)], dim=-1)  # (B, V, 4)
        memory["agent"][rows] = agents[:, -1]
        free = self._free(view)
        here, near, arrived = self._arrive(memory, rows, agents[:, -1, :3])
        ghosts, shown_first = self._waypoints(memory, rows, agents, free)
        row, which = (ghosts >= 0).nonzero(as_tuple=True)
        near |= self._in_sight(memory, rows, agents, free)
        near[row, ghosts[row, which]] = True
        near[torch.arange(batch, device=rows.device), here] = False
        join(memory, rows, here, near)
        first, node = (arrived | shown_first).nonzero(as_tuple=True)
        memory["shown"][rows[first], node], memory["views"][rows[first], node] = 0.0, 0.0
        self._show(memory, rows, here, view.features.mean((1, 3, 4)))
        columns = view.features.mean(3).flatten(0, 1)  # (B V, F, w)
        sectors = nn.functional.adaptive_avg_pool1d(columns, self.sectors).unflatten(0, (batch, views))
        self._show(memory, rows[row], ghosts[row, which], sectors.transpose(2, 3).flatten(1, 2)[row, which])

    @staticmethod
    def _show(memory: Memory, rows: Tensor, nodes: Tensor, seen: Tensor) -> None:
        """Nodes (G,) of slots (G,) are shown by features (G, F); a node may come several times."""
        memory["shown"].index_put_((rows, nodes), seen, accumulate=True)
        memory["views"].index_put_((rows, nodes), torch.ones_like(seen[:, 0]), accumulate=True)

    def _free(self, view: View) -> Tensor:
        """(B, V, W) metres in the plan to what is in the way in each column, else to the farthest that it shows."""
        away = unproject(view.depth, view.pose, self.field_of_view) - view.pose[:, :, None, None, :3, 3]
        distance, height = away[..., :2].norm(dim=-1), away[..., 2] + self.eye
        sure = view.depth > self.near
        nearest = torch.where(sure & (height > self.low) & (height < self.ceiling), distance, FAR).amin(2)
        return torch.where(nearest.isinf(), torch.where(sure, distance, 0.0).amax(2), nearest)

    def _arrive(self, memory: Memory, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the visited node that agents at a place (B, 3) are at, or make one.

        Returns:
            The node (B,), and as (B, K), bool, which one was the last before it and which one is new.
        """
        batch = torch.arange(len(rows), device=rows.device)
        visited, taken = memory["visited"][rows], memory["names"][rows] >= 0
        away = (memory["places"][rows] - place.unsqueeze(1)).norm(dim=-1)
        closest, nearest = torch.where(visited, away, FAR).min(1)
        lost = closest > self.spacing
        gone = taken & ~visited & (away <= self.spacing) & lost.unsqueeze(1)
        taken &= ~gone
        full, ghosts = taken.all(1), taken & ~visited
        spot = torch.where(full, torch.where(ghosts, away, -1.0).argmax(1), taken.long().argmin(1))
        new = lost & (~full | ghosts.any(1))
        gone[batch, spot] |= new & full
        if gone.any():
            drop(memory, rows, gone)
        here, before = torch.where(new, spot, nearest), memory["here"][rows]
        arrived, last = torch.zeros_like(gone), torch.zeros_like(gone)
        arrived[batch, here] = new
        last[batch, before] = visited.any(1) & (here != before)
        places = torch.where(arrived.unsqueeze(-1), place.unsqueeze(1), memory["places"][rows])
        self._add(memory, rows, arrived, places)
        memory["visited"][rows] |= arrived
        moved = arrived.any(1) | last.any(1)
        memory["time"][rows] += moved
        memory["step"][rows, here] = torch.where(moved, memory["time"][rows], memory["step"][rows, here])
        memory["here"][rows] = here
        return here, last, arrived

    @staticmethod
    def _add(memory: Memory, rows: Tensor, new: Tensor, places: Tensor) -> None:
        """New nodes (B, K), bool, at places (B, K, 3); nothing is known of them yet."""
        number = memory["count"][rows].unsqueeze(1) + new.long().cumsum(1) - 1
        memory["names"][rows] = torch.where(new, number, memory["names"][rows])
        memory["count"][rows] += new.sum(1)
        memory["places"][rows] = places
        memory["step"][rows] = memory["step"][rows].masked_fill(new, 0)
        row, node = new.nonzero(as_tuple=True)
        memory["distance"][rows[row], node, node] = 0.0

    def _waypoints(self, memory: Memory, rows: Tensor, agents: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """The ghosts that free sectors show, from the middle outwards.

        Returns:
            Nodes (B, V x S), -1 for none, and which nodes (B, K) are new.
        """
        batch = torch.arange(len(rows), device=rows.device)
        views, width, count = free.shape[1], free.shape[2], self.sectors
        least = -nn.functional.adaptive_max_pool1d(-free, count)
        open_ = (least > self.reach + self.clearance).flatten(1)
        column = (torch.arange(count, device=rows.device) + 0.5) * width / count - 0.5
        bearing = torch.atan(((width - 1) / 2 - column) / focal_length(width, self.field_of_view))
        ways = self.reach * torch.stack([bearing.cos(), bearing.sin()], dim=-1)
        flat = to_allocentric(ways.expand(len(rows), views, -1, -1), agents[..., [0, 1, 3]])
        points = torch.cat([flat, agents[..., None, 2:3].expand(-1, -1, count, -1)], dim=-1).flatten(1, 2)
        places, visited, taken = memory["places"][rows], memory["visited"][rows], memory["names"][rows] >= 0
        found, new = torch.full_like(open_, -1, dtype=torch.long), torch.zeros_like(taken)
        outwards = sorted(range(count), key=lambda sector: abs(sector - (count - 1) / 2))
        for sector in [view * count + sector for view in range(views) for sector in outwards]:
            point = points[:, sector]
            away = (places - point.unsqueeze(1)).norm(dim=-1)
            fits = open_[:, sector] & ~(visited & (away <= self.spacing)).any(1)
            closest, ghost = torch.where(taken & ~visited, away, FAR).min(1)
            known, spot = closest <= self.spacing, taken.long().argmin(1)
            fresh = fits & ~known & ~taken[batch, spot]
            found[:, sector] = torch.where(fits & (known | fresh), torch.where(known, ghost, spot), -1)
            places[batch, spot] = torch.where(fresh.unsqueeze(1), point, places[batch, spot])
            taken[batch, spot] |= fresh
            new[batch, spot] |= fresh
        self._add(memory, rows, new, places)
        return found, new

    def _in_sight(self, memory: Memory, rows: Tensor, agents: Tensor, free: Tensor) -> Tensor:
        """(B, K), bool: the visited nodes that are in free sight and no farther than `reach`."""
        places, width = memory["places"][rows].unsqueeze(1), free.shape[2]
        places = places.expand(-1, agents.shape[1], -1, -1)
        ahead, left = to_egocentric(places[..., :2], agents[..., [0, 1, 3]]).unbind(-1)
        tangent = left / ahead.clamp(min=1e-6)
        column = ((width - 1) / 2 - tangent * focal_length(width, self.field_of_view)).clamp(-1, width).round().long()
        inside = (ahead > 0) & (column >= 0) & (column < width)
        level = (places[..., 2] - agents[..., None, 2]).abs() <= self.spacing
        limit = free.gather(2, column.clamp(0, width - 1)).clamp(max=self.reach)
        seen = inside & level & (torch.hypot(ahead, left) <= limit)
        return seen.any(1) & memory["visited"][rows]

    # reading

    def forward(
        self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None
    ) -> MapTokens:
        """The nodes after the layers: N tokens, N the places of memory that one of the slots uses."""
        rows = memory.rows(slots)
        taken = memory["names"][rows] >= 0
        used = taken.any(0).nonzero()
        count = int(used[-1]) + 1 if len(used) else 0
        present, agent = taken[:, :count], memory["agent"][rows]
        shown = memory["shown"][rows, :count] / memory["views"][rows, :count].clamp(min=1).unsqueeze(-1)
        placed, bias = self.placed(memory, rows, present, agent[:, :3], agent[:, 3])
        kind = memory["visited"][rows, :count].long() * VISITED
        here = torch.arange(count, device=rows.device) == memory["here"][rows].unsqueeze(1)
        tokens = self.see(shown) + placed + self.kind(torch.where(here & present, CURRENT, kind))
        heard = present | ~present.any(1, keepdim=True)  # attention over nothing is not defined
        for layer in self.coarse:
            tokens = layer(tokens, heard, text, bias)
        return MapTokens(tokens, present)

    @staticmethod
    def way(memory: Memory, slot: int, node: int) -> Tensor:
        """(L, 3) places of the nodes to go over, from where the agent is to a node, along known edges.

        Raises:
            ValueError: no way is known.
        """
        return memory["places"][slot, route(memory, slot, int(memory["here"][slot]), node)]
