"""A graph grown from depth alone: in a corridor its nodes, ghosts and ways are those that can be worked out by hand."""

import importlib
import importlib.util
import itertools
import math
import os
import random

import numpy as np
import pytest
import torch

from embodied.interaction import stack
from maps.base import Text
from maps.geometry import camera_pose, focal_length, rays
from maps.graph import route
from maps.waypoints import WaypointMap

F, D, SIDE = 6, 8, 20
DEPTH, POSE, FEATURES = "observation.depth.front", "observation.pose", "observation.features.front"
CORRIDOR = (-0.5, -0.6, 12.0, 0.6)
"""Twelve metres along x from the agent's start, 1.2 m wide: x0, y0, x1, y1."""


def a_map(**settings):
    torch.manual_seed(0)
    return WaypointMap(D, F, **{"heads": 2, "feed_forward": 16, "capacity": 24} | settings).eval()


def look(x, y, heading, room=CORRIDOR, features=None, rooms=2.5):
    """What is seen from a place in an empty room, `rooms` metres high."""
    pose = camera_pose(*(torch.tensor(float(v)) for v in (x, y, 1.25, heading)))
    ray = torch.einsum("hwj,ij->hwi", rays(SIDE, SIDE, 90), pose[:3, :3])
    low, high = torch.tensor([room[0], room[1], 0.0]), torch.tensor([room[2], room[3], rooms])
    place = pose[:3, 3]
    depth = torch.where(ray > 0, (high - place) / ray.clamp(min=1e-6), (low - place) / ray.clamp(max=-1e-6)).amin(-1)
    features = torch.ones(F, 5, 5) if features is None else features
    return {DEPTH: depth[None], POSE: pose[None], FEATURES: features[None]}


def places(memory, slot=0):
    """Visited places and ghosts, each a list of (x, y), rounded, by when they were made."""
    names, visited = memory["names"][slot].tolist(), memory["visited"][slot].tolist()
    order = sorted((name, k) for k, name in enumerate(names) if name >= 0)
    at = [(tuple(round(v, 2) + 0.0 for v in memory["places"][slot, k, :2].tolist()), visited[k]) for _, k in order]
    return [place for place, there in at if there], [place for place, there in at if not there]


def walk(map_, memory, xs, heading=0.0, **how):
    for x in xs:
        map_.update(memory, look(x, 0, heading, **how))


def test_walking_down_a_corridor_leaves_a_node_every_metre_and_a_ghost_ahead():
    map_ = a_map()
    memory = map_.begin(1)
    walk(map_, memory, [0.0])
    assert places(memory) == ([(0, 0)], [(2, 0)])  # the sectors aside see walls 0.6 m away
    walk(map_, memory, [0.5, 1.0])  # no farther than 1 m from the first, and 2.5 and 3 m ahead is near the ghost
    assert places(memory) == ([(0, 0)], [(2, 0)])
    walk(map_, memory, [1.25])  # a new node, to which the ghost at 2 m is too near
    assert places(memory) == ([(0, 0), (1.25, 0)], [(3.25, 0)])
    walk(map_, memory, [1.75, 2.5, 3.75])
    assert places(memory) == ([(0, 0), (1.25, 0), (2.5, 0), (3.75, 0)], [(5.75, 0)])


def test_no_ghost_lies_beyond_a_wall():
    map_ = a_map()
    for wall, ghosts in ((2.5, [(2, 0)]), (2.2, []), (1.9, [])):  # 0.3 m are left behind it
        memory = map_.begin(1)
        walk(map_, memory, [0.0], room=(-0.5, -0.6, wall, 0.6))
        assert places(memory) == ([(0, 0)], ghosts)


def test_a_wide_view_has_several_ways_on_and_neighbouring_ones_are_one():
    """Five sectors of 18 columns' width lie less than a metre apart at 2 m; every second one stays."""
    map_, memory = a_map(), None
    memory = map_.begin(1)
    map_.update(memory, look(0, 0, 0, room=(-9, -9, 9, 9)))
    visited, ghosts = places(memory)
    focal = focal_length(SIDE, 90)
    aside = [math.atan((8 - 4 * k) / focal) for k in range(5)]  # sectors' middles are 4 columns apart, the third ahead
    expected = [(2, 0), *((round(2 * math.cos(a), 2), round(2 * math.sin(a), 2)) for a in (aside[0], aside[4]))]
    assert visited == [(0, 0)] and ghosts == expected
    views = [memory["views"][0, k].item() for k in range(4)]
    assert views == [1, 3, 1, 1]  # the sectors beside the middle are seen as the middle


def test_ghosts_are_shown_by_their_sectors_and_nodes_by_all_their_pictures():
    map_ = a_map()
    memory = map_.begin(1)
    column = torch.arange(5.0).expand(F, 5, 5).clone()  # one feature column per sector
    map_.update(memory, look(0, 0, 0, features=column))
    mean = memory["shown"][0] / memory["views"][0].unsqueeze(1)
    assert mean[0, 0] == 2 and mean[1, 0] == 2  # all columns; the middle one
    map_.update(memory, look(0.5, 0, 0, features=column + 10))
    mean = memory["shown"][0] / memory["views"][0].unsqueeze(1)
    assert mean[0, 0] == 7 and mean[1, 0] == 7 and memory["views"][0, 1] == 2
    map_.update(memory, look(0.5, 0, 0, room=(-9, -9, 9, 9), features=column))
    mean = memory["shown"][0] / memory["views"][0].unsqueeze(1)
    assert mean[1, 0] == pytest.approx((2 + 12 + 2 + 1 + 3) / 5) and mean[2, 0] == 0 and mean[3, 0] == 4


def test_ways_lead_along_the_graph_and_there_and_back_makes_no_new_nodes():
    map_ = a_map()
    memory = map_.begin(1)
    there = [0.0, 1.25, 2.5, 3.75, 5.0]
    walk(map_, memory, there)
    here, ghost = int(memory["here"]), int((memory["names"][0] >= 0).logical_and(~memory["visited"][0]).nonzero()[0])
    assert memory["distance"][0, here, ghost] == pytest.approx(2.0) and memory["distance"][0, 0, ghost] == 7.0
    assert memory["distance"][0, here, 0] == pytest.approx(5.0)
    assert map_.way(memory, 0, 0)[:, 0].tolist() == [3.75, 2.5, 1.25, 0.0]
    walk(map_, memory, [4.5, *there[-2::-1]], heading=math.pi)
    assert places(memory) == (list(zip(there, [0] * 5, strict=True)), [(7, 0)])
    assert int(memory["here"]) == 0
    assert map_.way(memory, 0, ghost)[:, 0].tolist() == [1.25, 2.5, 3.75, 5.0, 7.0]
    assert memory["step"][0].tolist()[:2] == [9, 8]  # arrivals: five there, four back


def test_a_loop_closes_where_a_node_comes_into_sight():
    """Around a square of four metres: the last corner sees the first, and the way back is the side, not the round."""
    map_ = a_map(capacity=40)
    memory = map_.begin(1)
    corners = [(0, 0), (4, 0), (4, 4), (0, 4)]
    for k, ((x, y), (u, v)) in enumerate(itertools.pairwise([*corners, (0, 1.5)])):
        for t in (0, 0.25, 0.5, 0.75):
            map_.update(memory, look(x + t * (u - x), y + t * (v - y), k * math.pi / 2, room=(-1, -1, 5, 5)))
    map_.update(memory, look(0, 1.5, -math.pi / 2, room=(-1, -1, 5, 5)))
    here, first = int(memory["here"]), int((memory["names"][0] == 0).nonzero())
    assert memory["places"][0, here, :2].tolist() == [0.0, 1.5]
    assert memory["distance"][0, here, first] == 1.5 and map_.way(memory, 0, first).tolist() == [[0.0, 0.0, 1.25]]


def wander(seed, steps=40):
    """Observations of a random walk in a room, some looking at walls near by."""
    draw, g = random.Random(seed), torch.Generator().manual_seed(seed)
    x, y, heading, found = 0.0, 0.0, draw.uniform(-3, 3), []
    for _ in range(steps):
        found.append(look(x, y, heading, room=(-4, -3, 5, 4), features=torch.randn(F, 3, 4, generator=g)))
        heading += draw.uniform(-1, 1)
        u, v = x + 0.6 * math.cos(heading), y + 0.6 * math.sin(heading)
        if -3.7 < u < 4.7 and -2.7 < v < 3.7:
            x, y = u, v
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_holds_for_every_walk(seed):
    map_ = a_map(capacity=60)
    memory, trail = map_.begin(1), []
    for observation in wander(seed):
        map_.update(memory, observation)
        taken, visited = memory["names"][0] >= 0, memory["visited"][0]
        at = memory["places"][0]
        apart = torch.cdist(at, at) + torch.eye(60) * 9
        apart = torch.where(taken.unsqueeze(0) & taken.unsqueeze(1), apart, 9.0)
        assert apart.min() > 1.0  # nodes are farther apart than the spacing
        agent, here = observation[POSE][0, :3, 3], int(memory["here"])
        assert visited[here] and (at[here] - agent).norm() <= 1.0 and not (visited & ~taken).any()
        trail.append(here)
        names = memory["names"][0][taken].tolist()
        assert len(set(names)) == len(names)
        inside = at[taken][:, :2]
        assert (inside > torch.tensor([-4.0, -3.0])).all() and (inside < torch.tensor([5.0, 4.0])).all()
        for node in taken.nonzero().squeeze(1).tolist():
            way = [here, *route(memory, 0, here, node)]
            assert all(visited[k] for k in way[:-1]) and len(way) - 1 == memory["hops"][0, here, node]
            length = sum((at[a] - at[b]).norm().item() for a, b in itertools.pairwise(way))
            assert length == pytest.approx(memory["distance"][0, here, node].item(), abs=1e-3)
    for a, b in itertools.pairwise(trail):
        if a != b:
            assert memory["through"][0, a, b] == -1 and memory["hops"][0, a, b] == 1  # one was walked after the other
    assert torch.equal(memory["distance"], memory["distance"].transpose(1, 2))


def test_ways_are_as_short_as_their_edges_allow():
    map_ = a_map(capacity=60)
    memory = map_.begin(1)
    for observation in wander(5):
        map_.update(memory, observation)
    edges = (memory["hops"][0] == 1) & (memory["through"][0] == -1)
    best = torch.where(edges, torch.cdist(memory["places"][0], memory["places"][0]), torch.inf)
    best.fill_diagonal_(0)
    for k in memory["visited"][0].nonzero().squeeze(1).tolist():  # Floyd and Warshall
        best = torch.minimum(best, best[:, k : k + 1] + best[k : k + 1])
    taken = memory["names"][0] >= 0
    there = memory["visited"][0].unsqueeze(1) & taken.unsqueeze(0)
    torch.testing.assert_close(memory["distance"][0][there], best[there], atol=1e-3, rtol=0)


def test_turning_and_moving_the_world_changes_nothing():
    map_, read = a_map(), []
    for turn, away in ((0.0, (0.0, 0.0, 0.0)), (2.0, (5.0, -3.0, 1.0))):
        memory = map_.begin(1)
        moved = torch.eye(4)
        moved[:2, :2] = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        moved[:3, 3] = torch.tensor(away)
        for observation in wander(1, 12):
            map_.update(memory, observation | {POSE: moved @ observation[POSE]})
        read.append(map_(memory))
    assert torch.equal(read[0].present, read[1].present)
    torch.testing.assert_close(read[0].tokens, read[1].tokens, atol=1e-4, rtol=1e-3)


def test_gradients_reach_all_pictures_though_every_step_is_read():
    """As in training on whole episodes: the memory is read after each step, and all of it is learned from at once."""
    map_ = a_map(capacity=60).train()
    text = Text(torch.randn(1, 3, D), torch.ones(1, 3, dtype=torch.bool))
    memory, pictures, loss = map_.begin(1), [], 0.0
    for observation in wander(2, 10):
        pictures.append(observation[FEATURES].requires_grad_())
        map_.update(memory, observation)
        loss = loss + map_(memory, text).tokens.square().sum()
    loss.backward()
    assert all(picture.grad.isfinite().all() and picture.grad.abs().sum() > 0 for picture in pictures)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in map_.parameters())


def test_what_was_forgotten_gets_no_gradient():
    """A ghost that gave way to another node in its place of memory teaches nobody any more."""
    map_ = a_map(capacity=2)
    memory, first = map_.begin(1), look(0, 0, 0)
    first[FEATURES].requires_grad_()
    map_.update(memory, first)  # a node, and a ghost at 2 m
    map_.update(memory, look(0, 0, 0, features=torch.zeros(F, 5, 5)))
    map_.update(memory, look(1.25, 0, 0, features=torch.zeros(F, 5, 5)))  # where the ghost was remembered
    assert places(memory) == ([(0, 0), (1.25, 0)], [])
    memory["shown"][0, 1].sum().backward()
    assert first[FEATURES].grad is None or not first[FEATURES].grad.any()
    assert memory["shown"][0, 0, 0] == 1 and memory["shown"][0, 1, 0] == 0


def test_a_full_memory_gives_up_the_farthest_ghost_then_counts_to_the_nearest_node():
    map_ = a_map(capacity=4)
    memory = map_.begin(1)
    map_.update(memory, look(0, 0, 0, room=(-9, -9, 9, 9)))
    assert [len(part) for part in places(memory)] == [1, 3]
    map_.update(memory, look(0, 1.5, math.pi / 2, room=(-9, -9, 9, 9)))  # its waypoints find no place
    visited, ghosts = places(memory)
    assert visited == [(0, 0), (0, 1.5)] and len(ghosts) == 2 and all(y >= 0 for _, y in ghosts)
    for y in (3.0, 4.5, 6.0, 7.5):
        map_.update(memory, look(0, y, math.pi / 2, room=(-9, -9, 9, 9)))
    assert places(memory) == ([(0, 0), (0, 1.5), (0, 3.0), (0, 4.5)], [])
    here = int(memory["here"])
    assert memory["places"][0, here, 1] == 4.5
    tokens, present = map_(memory)
    assert tokens.isfinite().all() and present.sum() == 4
    walk(map_, memory, [0.0])
    assert memory["places"][0, int(memory["here"]), 1] == 0.0


def test_several_views_at_once_are_all_looked_at():
    map_ = a_map()
    ahead, back = (look(0, 0, heading, room=(-9, -0.6, 9, 0.6)) for heading in (0, math.pi))
    both, memory = {key: torch.stack([back[key], ahead[key]], 1) for key in ahead}, map_.begin(1)
    map_.update(memory, both)
    visited, ghosts = places(memory)
    assert visited == [(0, 0)] and sorted(ghosts) == [(-2, 0), (2, 0)]
    assert memory["views"][0, 0] == 1 and memory["agent"][0, 3].item() == pytest.approx(0)


def test_the_tokens_know_where_one_is_what_is_new_and_how_far_it_is():
    map_ = a_map(layers=0)
    memory = map_.begin(1)
    walk(map_, memory, [0.0, 1.25])
    tokens = map_(memory).tokens[0]
    nodes = torch.arange(3).unsqueeze(0)
    where = map_.where(memory, torch.tensor([0]), nodes, memory["agent"][:, :3], memory["agent"][:, 3])
    behind, here, ahead = where[0]
    assert behind.tolist() == pytest.approx([0, -1, 0, 1, 1.25 / 30, 1.25 / 30, 0.1], abs=1e-6)
    assert here.tolist() == pytest.approx([0, 1, 0, 1, 0, 0, 0]) and ahead[4:].tolist() == pytest.approx(
        [2 / 30, 2 / 30, 0.1]
    )
    shown, kinds = map_.see(torch.ones(F)), (1, 2, 0)  # visited, current, ghost
    for k, kind in enumerate(kinds):
        step = map_.node_step.weight[[1, 2, 0][k]]
        expected = shown + map_.node_place(where[0, k]) + step + map_.kind.weight[kind]
        torch.testing.assert_close(tokens[k], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "change, says",
    [
        ({POSE: None}, r"needs observation\.pose"),
        ({FEATURES: torch.zeros(1, 3, 4, 4)}, "3 features, but this map was made for 6"),
    ],
)
def test_a_wrong_observation_is_one_clear_line(change, says):
    map_ = a_map()
    observation = {key: value for key, value in (look(0, 0, 0) | change).items() if value is not None}
    with pytest.raises(ValueError, match=says):
        map_.update(map_.begin(1), observation)
    with pytest.raises(ValueError, match="1 episodes was given for 2 slots"):
        map_.update(map_.begin(2), look(0, 0, 0))


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"capacity": 0}, "capacity must be at least 1"),
        ({"sectors": 0}, "sectors=0 should be at least 1"),
        ({"reach": 0.5}, "reach=0.5 should be metres beyond spacing=1.0"),
        ({"low": 2.0}, "low=2.0 below 1.75"),
        ({"heads": 3}, "3 heads"),
    ],
)
def test_a_map_that_cannot_be_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        a_map(**settings)


@pytest.mark.skipif(
    importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true", reason="numba is not installed"
)
def test_in_a_house_its_waypoints_can_be_stood_at_and_its_edges_walked():
    pointnav, simulator = (importlib.import_module(f"envs.house.{name}") for name in ("tasks.pointnav", "simulator"))
    env, map_ = pointnav.PointNav(simulator.Body(height=48, width=48, outputs=("rgb", "depth"))), a_map()
    free, ghosts = 0, 0
    for seed in (0, 4):
        observation, _ = env.reset(seed=seed)
        start, memory, over = env.sim.state, map_.begin(1), False
        turn = np.array(
            [[math.cos(start.heading), math.sin(start.heading)], [-math.sin(start.heading), math.cos(start.heading)]]
        )
        while not over:
            seen = stack([observation]) | {FEATURES: torch.zeros(1, F, 3, 3)}
            with torch.no_grad():
                map_.update(memory, {key: seen[key] for key in map_.reads})
            observation, _, terminated, truncated, _ = env.step(env.oracle())
            over = terminated or truncated
        visited, taken = memory["visited"][0].numpy(), (memory["names"][0] >= 0).numpy()
        points = memory["places"][0, :, :2].numpy().astype(float) @ turn + start.position
        free += int(env.sim.finder.is_navigable(points[taken & ~visited]).sum())
        ghosts += int((taken & ~visited).sum())
        edges = ((memory["hops"][0] == 1) & (memory["through"][0] == -1)).numpy()
        for a, b in np.argwhere(edges & visited & visited[:, None]):
            way = env.sim.finder.geodesics(points[[a]], points[[b]])[0, 0]
            assert way < 1.25 * math.dist(points[a], points[b]) + 0.1
    assert ghosts >= 5 and free >= ghosts - 1
