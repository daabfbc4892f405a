"""GridMM's cells are what a loop over cells gives, they follow the instruction, and they turn with the agent."""

import math

import pytest
import torch

from maps.base import MapTokens, Text
from maps.geometry import camera_pose, to_egocentric
from maps.gridmm import GridMM

F, D = 6, 8


def a_map(**settings):
    torch.manual_seed(0)
    return GridMM(D, F, heads=2, feed_forward=16, **{"cells": 5, "capacity": 200} | settings).eval()


def step(seed=0, batch=2, views=3, x=0.0, y=0.0, heading=0.0):
    g = torch.Generator().manual_seed(seed)
    turns = heading + torch.arange(views).float().expand(batch, -1)
    return {
        "observation.depth.front": torch.rand(batch, views, 4, 4, generator=g) * 4 + 0.1,
        "observation.pose": camera_pose(*(torch.full_like(turns, v) for v in (x, y, 1.25)), turns),
        "observation.features.front": torch.randn(batch, views, F, 2, 2, generator=g),
    }


def a_text(seed=0, batch=2, length=4):
    g = torch.Generator().manual_seed(seed)
    present = torch.ones(batch, length, dtype=torch.bool)
    present[1:, -1] = False
    return Text(torch.randn(batch, length, D, generator=g), present)


@torch.no_grad()
def test_cells_are_what_a_loop_over_cells_gives():
    grid, text = a_map(), a_text()
    memory = grid.begin(2)
    for number in range(3):
        grid.update(memory, step(number, x=0.5 * number, heading=0.3 * number))
    tokens, present = grid.aggregate(memory, text, memory.rows())
    for row in range(2):
        count = int(memory["written"][row])
        assert count == 36
        g = memory["features"][row, :count]
        away = to_egocentric(memory["places"][row, :count], memory["agent"][row])
        half = 2 / 3 * max(abs(v) for point in away.tolist() for v in point)
        wanted = grid.ask(text.tokens[row][text.present[row]])
        relevance = torch.tensor([max(float(g[n] @ t) for t in wanted) for n in range(count)])
        cells = {}
        for n, (ahead, left) in enumerate(away.tolist()):
            i, j = (min(max(int((v + half) / (2 * half) * 4), 0), 4) for v in (ahead, left))
            cells.setdefault(i * 5 + j, []).append(n)
        assert set(cells) == set(present[row].nonzero().squeeze(1).tolist())
        for cell, members in cells.items():
            share = torch.softmax(relevance[members], 0)
            content = (share.unsqueeze(1) * grid.tell(g[members])).sum(0)
            i, j = (v / 4 * 2 - 1 for v in divmod(cell, 5))
            heading, distance = math.atan2(j, i), half * math.hypot(i, j)
            place = grid.place(torch.tensor([math.sin(heading), math.cos(heading), 0, 1, distance / 30]))
            torch.testing.assert_close(tokens[row, cell], content + place, atol=1e-4, rtol=1e-3)


def test_each_patch_lies_where_its_middle_is_seen():
    grid = a_map()
    memory = grid.begin(1)
    depth = torch.full((1, 1, 4, 4), 2.0)
    grid.update(
        memory,
        {
            "observation.depth.front": depth,
            "observation.pose": camera_pose(*torch.zeros(4, 1, 1)),
            "observation.features.front": torch.arange(24.0).view(1, 1, F, 2, 2),
        },
    )
    # pixels 1 and 3 of 4 are the middles of two patches; column c lies (1.5 - c) / 2 of the depth to the left
    assert memory["places"][0, :4].tolist() == [[2.0, 0.5], [2.0, -1.5], [2.0, 0.5], [2.0, -1.5]]
    assert memory["features"][0, 1].tolist() == [1.0, 5.0, 9.0, 13.0, 17.0, 21.0]


def test_turning_the_world_with_the_agent_changes_nothing():
    grid, text = a_map(), a_text()
    read = []
    for turn in (0.0, 1.1):
        memory = grid.begin(2)
        for number in range(2):
            x, y = 0.5 * number * math.cos(turn), 0.5 * number * math.sin(turn)
            grid.update(memory, step(number, x=x, y=y, heading=turn))
        read.append(grid(memory, text))
    torch.testing.assert_close(read[0].tokens, read[1].tokens, atol=1e-3, rtol=1e-3)


def test_a_cell_says_what_the_instruction_asks_for():
    grid = a_map()
    memory = grid.begin(1)
    seen = step(batch=1, views=1)
    kinds = torch.eye(F)[:4].T.reshape(1, 1, F, 2, 2) * 30
    flat = {"observation.depth.front": torch.full((1, 1, 4, 4), 1e-1), "observation.features.front": kinds}
    grid.update(memory, seen | flat)
    with torch.no_grad():
        grid.ask.weight.zero_(), grid.ask.bias.zero_(), grid.place[1].weight.zero_()
        grid.ask.weight[:, :F] = torch.eye(F)
        for kind in range(4):
            text = Text(torch.eye(D)[kind].view(1, 1, D), torch.ones(1, 1, dtype=torch.bool))
            cell = grid.cells_of(memory, memory.rows())[0][0, kind]
            members = (grid.cells_of(memory, memory.rows())[0][0, :4] == cell).nonzero().squeeze(1)
            tokens, _ = grid.aggregate(memory, text, memory.rows())
            expected = grid.tell(memory["features"][0, kind])
            torch.testing.assert_close(tokens[0, cell], expected, atol=1e-4, rtol=1e-4)
            assert kind in members


def test_the_oldest_patches_are_forgotten_first_and_nothing_else():
    small, large = a_map(capacity=12), a_map(capacity=500)
    memory, whole = small.begin(1), large.begin(1)
    for number in range(3):
        small.update(memory, step(number, 1))
    large.update(whole, step(2, 1))
    kept = sorted(map(tuple, memory["features"][0].tolist()))
    assert kept == sorted(map(tuple, whole["features"][0, :12].tolist()))
    with pytest.raises(ValueError, match="12 patches, but capacity is 11"):
        a_map(capacity=11).update(small.begin(1), step(0, 1))


def test_gradients_reach_features_written_long_ago():
    grid = a_map().train()
    first = step(0)
    first["observation.features.front"].requires_grad_()
    memory = grid.begin(2)
    grid.update(memory, first)
    grid.update(memory, step(1))
    tokens, present = grid(memory, a_text())
    tokens[present].square().sum().backward()
    assert first["observation.features.front"].grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in grid.parameters())


def test_a_graphs_nodes_join_the_cells():
    grid, text = a_map(), a_text()
    memory = grid.begin(2)
    grid.update(memory, step())
    cells = grid.aggregate(memory, text, memory.rows())
    nodes = MapTokens(torch.randn(2, 3, D), torch.tensor([[True, True, False], [True, False, False]]))
    both = grid.mix(cells, text, nodes)
    assert both.tokens.shape == (2, 28, D) and torch.equal(both.present[:, 25:], nodes.present)
    alone = grid.mix(cells, text)
    assert not torch.allclose(both.tokens[:, :25][cells.present], alone.tokens[cells.present])
    hidden = MapTokens(nodes.tokens, torch.zeros_like(nodes.present))
    torch.testing.assert_close(grid.mix(cells, text, hidden).tokens[:, :25][cells.present], alone.tokens[cells.present])


def test_an_empty_memory_and_a_missing_text():
    grid = a_map()
    tokens, present = grid(grid.begin(2), a_text())
    assert tokens.isfinite().all() and not present.any()
    with pytest.raises(ValueError, match="needs a text"):
        grid(grid.begin(2))
    with pytest.raises(ValueError, match="cells=1"):
        a_map(cells=1)
    with pytest.raises(ValueError, match="don't share a width of 8"):
        GridMM(D, F, heads=3)
