"""A navigation graph that is learned by walking it: places visited, places seen from them, and shortest ways between.

Nodes are numbered in the order in which they were first seen, 0 where the episode began. Edges are as long as the
straight line. Shortest distances follow DUET's incremental Floyd-Warshall (`map_nav_src/models/graph_utils.py`): when a
place is visited, all pairs are relaxed through it, so ways lead through visited places only. That costs K * K for K
nodes of capacity, whatever the number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maps.base import Memory

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
    batch = torch.arange(len(rows), device=rows.device)
    places, distance = memory["places"][rows], memory["distance"][rows]
    hops, through = memory["hops"][rows], memory["through"][rows]
    row, which = (near >= 0).nonzero(as_tuple=True)
    there, start = near[row, which], here[row]
    length = (places[row, there] - places[row, start]).norm(dim=-1)
    shorter = length < distance[row, start, there]
    row, there, start, length = row[shorter], there[shorter], start[shorter], length[shorter]
    for a, b in ((start, there), (there, start)):
        distance[row, a, b], hops[row, a, b], through[row, a, b] = length, 1, -1
    around = distance[batch, :, here].unsqueeze(2) + distance[batch, here].unsqueeze(1)
    better = around < distance
    steps = hops[batch, :, here].unsqueeze(2) + hops[batch, here].unsqueeze(1)
    memory["distance"][rows] = torch.where(better, around, distance)
    memory["hops"][rows] = torch.where(better, steps, hops)
    memory["through"][rows] = torch.where(better, here.view(-1, 1, 1), through)
    memory["visited"][rows, here] = True
    memory["here"][rows] = here


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
