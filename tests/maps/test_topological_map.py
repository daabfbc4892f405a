"""DUET's graph knows shortest ways, its nodes are the means they should be, and its decision is the fusion of two."""

import heapq
import itertools
import math
import random

import pytest
import torch

from maps.base import Text
from maps.geometry import camera_pose
from maps.graph import route
from maps.topological import TopologicalMap, fuse

F, D, V = 6, 8, 4


def a_map(**settings):
    torch.manual_seed(0)
    sizes = {"capacity": 24, "neighbours": 8, "views": V, "heads": 2, "feed_forward": 16}
    return TopologicalMap(D, F, **sizes | settings).eval()


class House:
    """A random connected graph of viewpoints, and a random walk on it."""

    def __init__(self, seed, nodes=12):
        self.draw = random.Random(seed)
        self.at = [
            (self.draw.uniform(0, 9), self.draw.uniform(0, 9), self.draw.choice([0.0, 1.5])) for _ in range(nodes)
        ]
        self.near = {n: set() for n in range(nodes)}
        for n in range(1, nodes):
            self.join(n, self.draw.randrange(n))
        for _ in range(nodes // 2):
            a, b = self.draw.sample(range(nodes), 2)
            if len(self.near[a]) < 7 and len(self.near[b]) < 7:
                self.join(a, b)

    def join(self, a, b):
        self.near[a].add(b), self.near[b].add(a)

    def walk(self, steps):
        here = self.draw.randrange(len(self.at))
        for _ in range(steps):
            yield here
            here = self.draw.choice(sorted(self.near[here]))

    def observation(self, node, heading=0.5):
        near = sorted(self.near[node])
        g = torch.Generator().manual_seed(node)
        x, y, z = (torch.tensor([v]) for v in self.at[node])
        return {
            "observation.node": torch.tensor([node]),
            "observation.neighbours": torch.tensor([near + [-1] * (8 - len(near))]),
            "observation.neighbours.places": torch.tensor([[self.at[n] for n in near + [0] * (8 - len(near))]]),
            "observation.neighbours.views": torch.tensor([[n % V for n in near] + [0] * (8 - len(near))]),
            "observation.features": torch.randn(1, V, F, generator=g),
            "observation.angles": torch.stack([torch.arange(V) * 2 * math.pi / V, torch.zeros(V)], -1)[None],
            "observation.pose": camera_pose(x, y, z, torch.tensor([heading])),
        }  # fmt: skip


def shortest(house, visited, start):
    """Dijkstra over known edges, going on through visited nodes only: distances and hops."""
    best, queue = {}, [(0.0, 0, start)]
    while queue:
        distance, hops, node = heapq.heappop(queue)
        if node in best:
            continue
        best[node] = (distance, hops)
        if node in visited or node == start:
            for other in house.near[node]:
                if node in visited or other in visited:
                    heapq.heappush(queue, (distance + math.dist(house.at[node], house.at[other]), hops + 1, other))
    return best


def walked(grid, seed=0, steps=9):
    house, memory, visited = House(seed), grid.begin(1), []
    for node in house.walk(steps):
        grid.update(memory, house.observation(node))
        visited.append(node)
    return house, memory, visited


@pytest.mark.parametrize("seed", range(4))
def test_ways_are_the_shortest_through_visited_places(seed):
    house, memory, visited = walked(a_map(), seed)
    names = memory["names"][0].tolist()
    count = int(memory["count"])
    known = set(visited) | {n for v in visited for n in house.near[v]}
    assert set(names[:count]) == known and set(names[count:]) == {-1}
    assert names[0] == visited[0]
    assert {names[n] for n in memory["visited"][0].nonzero().squeeze(1).tolist()} == set(visited)
    for a in range(count):
        if names[a] not in visited:
            continue
        expected = shortest(house, set(visited), names[a])
        for b in range(count):
            distance, hops = expected[names[b]]
            assert memory["distance"][0, a, b] == pytest.approx(distance, abs=1e-4)
            way = route(memory, 0, a, b)
            assert len(way) == hops == memory["hops"][0, a, b]
            steps = [names[a], *(names[n] for n in way)]
            assert all(y in house.near[x] for x, y in itertools.pairwise(steps))


def test_backtracking_walks_known_edges_to_a_frontier():
    house, memory, visited = walked(a_map(), 2)
    frontier = (~memory["visited"][0] & (memory["names"][0] >= 0)).nonzero()[0].item()
    way = TopologicalMap.way(memory, 0, frontier)
    assert way[-1] == memory["names"][0, frontier] and set(way[:-1]) <= set(visited)
    assert way[0] in house.near[visited[-1]]


def test_nodes_are_the_means_of_what_showed_them():
    grid = a_map()
    house = House(1)
    memory, sums, visited = grid.begin(1), {}, []
    for node in house.walk(6):
        observation = house.observation(node)
        grid.update(memory, observation)
        from maps.panorama import Visit

        tokens, present = grid.panorama(Visit.of(observation, torch.device("cpu")))
        sums[node] = [tokens[0][present[0]].mean(0)]
        visited.append(node)
        for place, other in enumerate(sorted(house.near[node])):
            if other not in visited:
                sums.setdefault(other, []).append(tokens[0, place])
    for n, name in enumerate(memory["names"][0].tolist()):
        if name >= 0:
            mean = memory["embedding"][0, n] / memory["seen"][0, n]
            torch.testing.assert_close(mean, torch.stack(sums[name]).mean(0), atol=1e-5, rtol=1e-4)
            assert (memory["step"][0, n] > 0) == (name in visited)


def test_views_that_show_a_neighbour_are_not_read_twice():
    grid, house = a_map(), House(3)
    memory = grid.begin(1)
    grid.update(memory, house.observation(0))
    near = sorted(house.near[0])
    shown = {n % V for n in near}
    present = memory["panorama_present"][0].tolist()
    assert present == [n < len(near) for n in range(8)] + [v not in shown for v in range(V)]


def test_a_neighbour_is_shown_by_the_view_that_looks_at_it():
    from maps.panorama import Visit

    house = House(3)
    observation = house.observation(0)
    observation.pop("observation.neighbours.views")
    shown = Visit.of(observation, torch.device("cpu")).shown[0]
    for place, node in enumerate(sorted(house.near[0])):
        (x, y, _), (a, b, _) = house.at[0], house.at[node]
        heading = math.atan2(b - y, a - x)
        off = [abs(math.remainder(heading - v * 2 * math.pi / V, 2 * math.pi)) for v in range(V)]
        assert shown[place] == off.index(min(off))


def test_the_fusion_is_the_one_written_down():
    coarse = torch.tensor([[0.1, -math.inf, 0.2, 0.3, -math.inf]])  # stop, visited, two frontiers, visited
    fine = torch.tensor([[1.0, 10.0, 100.0, -math.inf]])  # stop, neighbour 0, neighbour 1, none
    near, visited = torch.tensor([[3, 2, -1]]), torch.tensor([[True, False, False, True]])
    # neighbour 0 is node 3, visited: the urge to go back, 10; neighbour 1 is node 2, a frontier
    assert fuse(coarse, fine, near, visited).tolist()[0] == pytest.approx([1.1, -math.inf, 10.2, 100.3, -math.inf])


def test_only_stop_and_frontiers_can_be_chosen():
    grid = a_map()
    _, memory, _ = walked(grid)
    decision = grid.decide(memory, a_text(1))
    open_ = torch.cat([torch.ones(1, 1, dtype=torch.bool), ~memory["visited"] & (memory["names"] >= 0)], dim=1)
    open_ = open_[:, : decision.fused.shape[1]]
    assert torch.equal(decision.fused.isfinite(), open_)
    assert 0 < decision.balance < 1
    expected = grid.score_coarse(grid(memory, a_text(1)).tokens).squeeze(-1) * decision.balance
    torch.testing.assert_close(decision.coarse[open_], expected[open_])


def a_text(batch, length=4):
    g = torch.Generator().manual_seed(5)
    return Text(torch.randn(batch, length, D, generator=g), torch.ones(batch, length, dtype=torch.bool))


def test_who_shares_a_batch_changes_nothing():
    grid = a_map()
    houses, memory = [House(0), House(5, nodes=20)], grid.begin(2)
    alone = [grid.begin(1), grid.begin(1)]
    walks = [list(house.walk(7)) for house in houses]
    for step in range(7):
        observations = [house.observation(walk[step]) for house, walk in zip(houses, walks, strict=True)]
        if step < 4:  # then the first episode is over
            grid.update(memory, {key: torch.cat([o[key] for o in observations]) for key in observations[0]})
            grid.update(alone[0], observations[0])
        else:
            grid.update(memory, observations[1], [1])
        grid.update(alone[1], observations[1])
    text = a_text(2)
    together = grid.decide(memory, text)
    for row in range(2):
        single = grid.decide(alone[row], Text(text.tokens[row : row + 1], text.present[row : row + 1]))
        there = single.fused.shape[1]
        torch.testing.assert_close(together.fused[row : row + 1, :there], single.fused, atol=1e-5, rtol=1e-4)
        assert (together.fused[row, there:] == -math.inf).all()


def test_candidates_follow_the_graph_by_their_numbers():
    grid, plain = a_map(candidates=True), a_map()
    grid.load_state_dict(plain.state_dict(), strict=False)
    _, memory, _ = walked(grid)
    text, rows = a_text(1), memory.rows()
    nodes, said = plain(memory, text), grid(memory, text)
    around = plain.panorama_tokens(memory, text, rows)
    torch.testing.assert_close(said.tokens[:, : nodes.tokens.shape[1]], nodes.tokens)
    torch.testing.assert_close(
        said.tokens[:, nodes.tokens.shape[1] :], around.tokens[:, :9] + grid.number.weight, atol=1e-6, rtol=1e-5
    )
    there = torch.cat([torch.tensor([True]), memory["near"][0] >= 0])
    assert torch.equal(said.present[0, nodes.tokens.shape[1] :], there)
    torch.testing.assert_close(grid.decide(memory, text).fused, plain.decide(memory, text).fused)
    with pytest.raises(ValueError, match="candidates are told by the fine layers"):
        a_map(candidates=True, fine_layers=0)


def test_the_bias_moves_attention_with_the_distance():
    grid = a_map()
    _, memory, _ = walked(grid)
    before = grid(memory).tokens
    with torch.no_grad():
        grid.bias.weight.fill_(50.0)
    assert not torch.allclose(grid(memory).tokens, before)
    plain = a_map(distances=False)
    assert plain.bias is None and plain(walked(plain)[1]).tokens.isfinite().all()


def test_turning_the_world_with_the_agent_changes_nothing():
    grid = a_map()
    read = []
    for turn in (0.0, 2.0):
        house, memory = House(4), grid.begin(1)
        c, s = math.cos(turn), math.sin(turn)
        walk = list(house.walk(5))
        house.at = [(c * x - s * y, s * x + c * y, z) for x, y, z in house.at]
        for node in walk:
            observation = house.observation(node, 0.5 + turn)
            observation["observation.angles"][..., 0] += turn
            grid.update(memory, observation)
        read.append(grid.decide(memory, a_text(1)).fused)
    torch.testing.assert_close(*read, atol=1e-4, rtol=1e-3)


def test_gradients_reach_views_of_earlier_places():
    grid = a_map()
    house, memory, views = House(0), grid.begin(1), []
    for node in house.walk(4):
        observation = house.observation(node)
        views.append(observation["observation.features"].requires_grad_())
        grid.update(memory, observation)
    decision = grid.decide(memory, a_text(1))
    decision.fused[decision.fused.isfinite()].square().sum().backward()
    assert all(view.grad.abs().sum() > 0 for view in views)
    unused = {name for name, p in grid.named_parameters() if p.grad is None}
    assert not unused


def test_an_episode_ends_at_the_best_place_to_stop():
    grid = a_map()
    house, memory = House(0), grid.begin(1)
    walk, logits = list(house.walk(4)), [0.0, 3.0, 1.0, -1.0]
    for node, logit in zip(walk, logits, strict=True):
        grid.update(memory, house.observation(node))
        grid.remember(memory, torch.tensor([[logit, 0.0, -math.inf]]))
    best = TopologicalMap.best_stop(memory, 0)
    assert memory["names"][0, best] == walk[1]
    assert TopologicalMap.way(memory, 0, best)[-1:] == ([walk[1]] if walk[1] != walk[3] else [])


def test_the_teacher_goes_to_the_frontier_on_the_shortest_way():
    grid = a_map()
    house, memory, visited = walked(grid, 3, steps=4)
    goal = random.Random(0).randrange(12)
    names = memory["names"][0].tolist()
    whole = shortest(house, set(range(12)), goal)
    to_goal = torch.tensor([[whole[n][0] if n >= 0 else 0.0 for n in names]])
    taught = TopologicalMap.teacher(memory, to_goal, torch.tensor([False]))
    costs = {
        n: memory["distance"][0, memory["here"][0], n].item() + to_goal[0, n].item()
        for n, name in enumerate(names)
        if name >= 0 and name not in visited
    }
    assert taught.item() - 1 == min(costs, key=costs.get)
    assert TopologicalMap.teacher(memory, to_goal, torch.tensor([True])).item() == 0


@pytest.mark.parametrize(
    "change, says",
    [
        ({"observation.node": None}, "needs observation.node"),
        ({"observation.features": torch.zeros(1, V, 3)}, "3 features, but this map was made for 6"),
        ({"observation.features": torch.zeros(2, V, F)}, "the first of 1"),
        ({"observation.features": torch.zeros(1, 9, F), "observation.angles": torch.zeros(1, 9, 2)}, "9 views, but"),
        ({"observation.neighbours": torch.tensor([[3, 3, -1, -1, -1, -1, -1, -1]])}, "should differ"),
        ({"observation.neighbours.views": torch.full((1, 8), V)}, "one of the 4 views"),
    ],
)  # fmt: skip
def test_a_wrong_visit_is_one_clear_line(change, says):
    grid = a_map()
    observation = {k: v for k, v in (House(0).observation(0) | change).items() if v is not None}
    with pytest.raises(ValueError, match=says):
        grid.update(grid.begin(1), observation)


def test_a_full_graph_says_so():
    grid, house = a_map(capacity=3), House(0)
    memory = grid.begin(1)
    with pytest.raises(ValueError, match="capacity of 3 nodes is used up"):
        for node in house.walk(9):
            grid.update(memory, house.observation(node))
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        a_map(capacity=0)
    with pytest.raises(ValueError, match="decides nothing"):
        a_map(fine_layers=0).decide(grid.begin(1))
