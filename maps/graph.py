"""A navigation graph that is learned by walking it: places visited, places seen from them, and shortest ways between.

Nodes are numbered in the order in which they were first seen, 0 where the episode began. Edges are as long as the
straight line. Shortest distances follow DUET's incremental Floyd-Warshall (`map_nav_src/models/graph_utils.py`): when a
place is visited, all pairs are relaxed through it, so ways lead through visited places only. That costs K * K for K
nodes of capacity, whatever the number of steps. A place that had no ways yet first takes its neighbours'.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maps.base import Memory

SAME = 1e-5
"""Metres: ways that differ by less are as long as each other."""

Columns = dict[str, tuple[tuple[int, ...], torch.dtype, float]]


def graph_columns(capacity: int) -> Columns:
    """What a memory holds of a graph of up to `capacity` nodes."""
    pairs = (capacity, capacity)
    return {
        "names": ((capacity,), torch.int64, -1),  # each node's viewpoint number
        "places": ((capacity, 3), torch.float32, 0.0),
        "visited": ((capacity,), torch.bool, 0),
        "count": ((), torch.int64, 0),
        "here": ((), torch.int64, 0),  # the node where the agent is
        "distance": (pairs, torch.float32, float("inf")),
        "hops": (pairs, torch.int64, 0),
        "through": (pairs, torch.int64, -1),  # a node on the way; -1: it is an edge
    }


def nodes_of(memory: Memory, rows: Tensor, names: Tensor, places: Tensor) -> Tensor:
    """The nodes of viewpoints, those not known yet being added.

    Args:
        memory: with `graph_columns`.
        rows: (B,) slots.
        names: (B, C) numbers of viewpoints, without repeats; -1 for none.
        places: (B, C, 3) metres.

    Returns:
        (B, C) node indices; -1 for none.

    Raises:
        ValueError: a viewpoint twice, or more nodes than the capacity.
    """
    asked = names >= 0
    same = (names.unsqueeze(2) == names.unsqueeze(1)) & asked.unsqueeze(2) & asked.unsqueeze(1)
    if (same.sum(2) > 1).any():
        raise ValueError("a viewpoint's neighbours should differ from it and from each other")
    known = memory["names"][rows].unsqueeze(1) == names.unsqueeze(2)  # (B, C, K)
    fresh = asked & ~known.any(2)
    capacity = memory["names"].shape[1]
    node = torch.where(fresh, memory["count"][rows].unsqueeze(1) + fresh.long().cumsum(1) - 1, known.long().argmax(2))
    if (fresh & (node >= capacity)).any():
        raise ValueError(f"the graph's capacity of {capacity} nodes is used up: make it larger")
    row = rows.unsqueeze(1).expand_as(names)
    memory["names"][row[fresh], node[fresh]] = names[fresh]
    memory["places"][row[asked], node[asked]] = places[asked]
    memory["distance"][row[fresh], node[fresh], node[fresh]] = 0.0
    memory["count"][rows] += fresh.sum(1)
    return torch.where(asked, node, -1)


def visit(memory: Memory, rows: Tensor, here: Tensor, near: Tensor) -> None:
    """The agent is at node `here` (B,) and sees that `near` (B, C) can be reached from it; -1 for none."""
    row, which = (near >= 0).nonzero(as_tuple=True)
    reached = torch.zeros_like(memory["visited"][rows])
    reached[row, near[row, which]] = True
    memory["visited"][rows, here] = True
    memory["here"][rows] = here
    join(memory, rows, here, reached)


def join(memory: Memory, rows: Tensor, here: Tensor, near: Tensor) -> None:
    """Edges between node `here` (B,) and those of `near` (B, K), bool; then all ways that they shorten."""
    batch = torch.arange(len(rows), device=rows.device)
    places, distance = memory["places"][rows], memory["distance"][rows]
    hops, through = memory["hops"][rows], memory["through"][rows]
    length = (places - places[batch, here].unsqueeze(1)).norm(dim=-1)
    own = distance[batch, here]
    edge = near & (length < own)
    own = torch.where(edge, length, own)
    steps = torch.where(edge, 1, hops[batch, here])
    middle = torch.where(edge, -1, through[batch, here])
    over = torch.where(near & memory["visited"][rows], own, torch.inf)  # a new node's ways lead over its neighbours
    best, via = (over.unsqueeze(2) + distance).min(1)
    better = best < own - SAME
    own, middle = torch.where(better, best, own), torch.where(better, via, middle)
    steps = torch.where(better, steps.gather(1, via) + hops.gather(1, via.unsqueeze(1)).squeeze(1), steps)
    for table, values in ((distance, own), (hops, steps), (through, middle)):
        table[batch, here] = table[batch, :, here] = values
    around = own.unsqueeze(2) + own.unsqueeze(1)
    better = around < distance - SAME
    memory["distance"][rows] = torch.where(better, around, distance)
    memory["hops"][rows] = torch.where(better, steps.unsqueeze(2) + steps.unsqueeze(1), hops)
    memory["through"][rows] = torch.where(better, here.view(-1, 1, 1), through)


def drop(memory: Memory, rows: Tensor, nodes: Tensor) -> None:
    """Forget nodes (B, K), bool, through which no way leads."""
    gone = nodes.unsqueeze(2) | nodes.unsqueeze(1)
    memory["names"][rows] = memory["names"][rows].masked_fill(nodes, -1)
    memory["distance"][rows] = memory["distance"][rows].masked_fill(gone, torch.inf)
    memory["hops"][rows] = memory["hops"][rows].masked_fill(gone, 0)
    memory["through"][rows] = memory["through"][rows].masked_fill(gone, -1)


def route(memory: Memory, slot: int, start: int, goal: int) -> list[int]:
    """The nodes from after `start` to `goal` along the shortest known way; empty where they are the same.

    Raises:
        ValueError: no way is known.
    """
    if start == goal:
        return []
    if not torch.isfinite(memory["distance"][slot, start, goal]):
        raise ValueError(f"no way from node {start} to node {goal} is known")
    middle = int(memory["through"][slot, start, goal])
    if middle < 0:
        return [goal]
    return route(memory, slot, start, middle) + route(memory, slot, middle, goal)
