"""Maps of navigation graphs read what tasks on graphs observe: over an expert's episode they know the graph walked."""

import importlib
import importlib.util
import itertools
import json
import math
import os

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import dijkstra

from embodied.interaction import stack
from embodied.spec import POSE, STATE
from maps.graph import route
from maps.mapgpt import GraphText
from maps.panorama import Visit
from maps.topological import TopologicalMap

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)
graph_vln = importlib.import_module("envs.house.tasks.graph_vln")
viewpoints = importlib.import_module("envs.house.viewpoints")

F = 5
NEAR = "observation.neighbours"


def house(**options):
    return graph_vln.HouseGraph(height=8, width=8, houses=2, neighbours=True, **options)


@pytest.fixture
def r2r(tmp_path):
    """Room-to-Room on a generated house's graph, written as its files are, with features of the user's."""
    h5py = pytest.importorskip("h5py")
    made = graph_vln.HouseGraph(height=8, width=8, houses=2)
    made.reset(seed=1)
    graph, reference = made.graph, made.episode.reference
    graph.save(tmp_path)
    (tmp_path / "R2R_toy.json").write_text(json.dumps([reference]))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for k, name in enumerate(graph.names):
            file[f"{graph.scan}_{name}"] = np.random.default_rng(k).normal(size=(36, F))

    def make(**options):
        options = {"neighbours": True, "features": str(tmp_path / "f.h5")} | options
        return graph_vln.RoomToRoom(str(tmp_path / "R2R_toy.json"), str(tmp_path), **options)

    return make


def episode(env, seed):
    """Observations of an expert's episode, and the viewpoints' rows it went through."""
    observation, _ = env.reset(seed=seed)
    found, rows, over = [observation], [env.at], False
    while not over:
        observation, _, terminated, over, _ = env.step(env.oracle())
        over = over or terminated
        if not terminated:
            found.append(observation)
            rows.append(env.at)
    return found, rows


def featured(observation):
    """What an image encoder would add to a house's observation, beside each camera's picture."""
    batch = stack([observation])
    for key in list(batch):
        if key.startswith("observation.images."):
            picture = torch.from_numpy(batch[key]).float().movedim(-1, 1)
            batch[key.replace("images", "features")] = torch.cat([picture, picture[:, :2]], 1)
    return batch


def known_ways(graph, rows):
    """Metres between all viewpoints along the edges that someone who stood at `rows` knows."""
    joined = np.zeros_like(graph.joined)
    joined[rows], joined[:, rows] = graph.joined[rows], graph.joined[:, rows]
    lengths = np.linalg.norm(graph.positions[:, None] - graph.positions[None], axis=-1)
    return dijkstra(np.where(joined, lengths, 0), directed=False)


def check(map_, env, seed):
    observations, rows = episode(env, seed)
    memory = map_.begin(1)
    for observation in observations:
        assert env.observation_space.contains(observation)
        batch = featured(observation)
        map_.update(memory, {key: batch[key] for key in map_.reads})
    graph, names = env.graph, memory["names"][0].tolist()
    count = int(memory["count"])
    seen = set(rows) | set(np.flatnonzero(graph.joined[rows].any(0)).tolist())
    assert set(names[:count]) == seen and count == len(seen)
    assert {names[k] for k in memory["visited"][0].nonzero().squeeze(1).tolist()} == set(rows)
    known, here = known_ways(graph, rows), int(memory["here"])
    assert names[here] == rows[-1]
    for k in range(count):
        assert memory["distance"][0, here, k] == pytest.approx(known[rows[-1], names[k]], abs=1e-3)
        way = [rows[-1], *(names[step] for step in route(memory, 0, here, k))]
        assert way[-1] == names[k] and all(graph.joined[a, b] for a, b in itertools.pairwise(way))
    first = names.index(rows[0])
    assert memory["distance"][0, here, first] >= graph.distances[rows[-1], rows[0]] - 1e-3
    tokens, present = map_(memory)
    assert tokens.shape[:2] == (1, count + 1) and present.all() and tokens.isfinite().all()
    return memory


SMALL = {"capacity": 40, "heads": 2, "feed_forward": 16}


@pytest.mark.parametrize("actions", ["panoramic", "low"])
def test_duets_map_knows_the_graph_of_a_house_that_an_expert_walked_through(actions):
    env = house(actions=actions, views="around", max_steps=80)
    map_ = TopologicalMap(8, F, views=12, cameras=env.embodiment.camera_names, **SMALL).eval()
    for seed in (0, 1):
        check(map_, env, seed)


@pytest.mark.parametrize("actions", ["panoramic", "low"])
def test_duets_map_knows_room_to_rooms_graph_with_the_users_features(r2r, actions):
    env = r2r(actions=actions, max_steps=80)
    assert env.observation_space["observation.features"].shape == (36, F)
    check(TopologicalMap(8, F, **SMALL).eval(), env, 0)


def test_the_graph_as_text_is_the_walk(r2r):
    for env in (house(), r2r(features=None)):
        observations, rows = episode(env, 0)
        text = GraphText(images=False)
        text.reset(1)
        for observation in observations:
            assert env.observation_space.contains(observation) and "observation.angles" not in observation
            text.update(stack([observation]))
        said = text.text(0)
        numbers = [text.number(0, row) for row in rows]
        assert said.startswith("Trajectory: Place " + " ".join(map(str, numbers)) + "\n")
        near = env.graph.candidates(rows[-1], env.heading)
        assert text.options(0)[1] == [-1, *near]
        places = ", ".join(str(text.number(0, row)) for row in near)
        assert f"Place {numbers[-1]} is connected with Places {places}" in said


def test_places_are_where_candidates_are_seen(r2r):
    """Bearing and distance of the state's candidates, from the agent, are those of `places` from the pose."""
    for env in (house(), r2r()):
        for observation in episode(env, 0)[0]:
            pose, places = observation[POSE], observation[NEAR + ".places"]
            told = observation[STATE][5:].reshape(-1, 4)
            there = observation[NEAR] >= 0
            assert (told[:, 0] == there).all() and there.any()
            right, ahead = (places - pose[:3, 3])[there] @ pose[:3, 0], (places - pose[:3, 3])[there] @ pose[:3, 2]
            flat = np.hypot(right, ahead)
            assert np.stack([ahead, -right], 1) / flat[:, None] == pytest.approx(told[there, 1:3], abs=1e-3)
            assert np.linalg.norm(places - pose[:3, 3], axis=1)[there] == pytest.approx(told[there, 3], abs=1e-3)
            assert math.hypot(*pose[:2, 3]) == pytest.approx(math.hypot(*observation[STATE][:2]), abs=1e-4)


def test_the_view_that_shows_a_neighbour_is_the_nearest_in_direction(r2r):
    for env in (house(views="around"), r2r()):
        for observation in episode(env, 0)[0]:
            batch = {key: value for key, value in featured(observation).items() if key != NEAR + ".views"}
            cameras = env.embodiment.camera_names
            mine, theirs = observation[NEAR + ".views"], Visit.of(batch, torch.device("cpu"), cameras).shown[0]
            there = observation[NEAR] >= 0
            assert (mine[there] == theirs.numpy()[there]).all()


def test_a_houses_picture_of_a_neighbour_looks_at_it():
    """The view numbered beside a neighbour is the picture along the angle told, within 15 degrees of its bearing."""
    env = house(views="around")
    observation = episode(env, 0)[0][1]
    for k in np.flatnonzero(observation[NEAR] >= 0):
        view = int(observation[NEAR + ".views"][k])
        bearing = math.atan2(*(observation[NEAR + ".places"][k] - observation[POSE][:3, 3])[[1, 0]])
        assert abs(math.remainder(bearing - observation["observation.angles"][view, 0], 2 * math.pi)) <= math.pi / 12


def test_only_who_asks_is_told(r2r):
    for told, plain in ((house(), graph_vln.HouseGraph(height=8, width=8, houses=2)), (r2r(), r2r(neighbours=False))):
        more, less = told.reset(seed=0)[0], plain.reset(seed=0)[0]
        assert {NEAR, NEAR + ".places", "observation.node", POSE} <= set(more)
        assert set(more) - set(less) <= {key for key in more if key not in plain.observation_space.spaces}
        assert not any(NEAR in key for key in less) and plain.observation_space.contains(less)
        assert all(np.array_equal(more[key], less[key]) for key in less)


def test_neighbours_beyond_the_candidates_are_refused_where_they_would_be_told(r2r):
    with pytest.raises(ValueError, match="neighbours: candidates="):
        r2r(actions="low", candidates=1).reset(seed=0)
    r2r(actions="low", candidates=1, neighbours=False).reset(seed=0)


def test_features_of_another_shape_are_named(r2r, tmp_path):
    h5py = pytest.importorskip("h5py")
    for shape, says in (((35, F), r"f2.h5 should hold a dataset \(36, D\)"), (None, "but its first is")):
        with h5py.File(tmp_path / "f2.h5", "w") as file:
            if shape:
                file["a_b"] = np.zeros(shape)
        with pytest.raises(ValueError, match=says):
            r2r(features=str(tmp_path / "f2.h5"))
    env = r2r()
    with h5py.File(tmp_path / "f3.h5", "w") as file:
        file["a"] = np.zeros((36, 2))
        file[f"{env.draw(0).graph.scan}_{env.draw(0).graph.names[env.draw(0).start]}"] = np.zeros((36, 3))
    with pytest.raises(ValueError, match=r"viewpoint .* are \(36, 3\), not \(36, 2\)"):
        r2r(features=str(tmp_path / "f3.h5")).reset(seed=0)


def test_a_map_without_a_cameras_features_names_them():
    env = house(views="around")
    map_ = TopologicalMap(8, F, views=12, cameras=env.embodiment.camera_names, **SMALL)
    with pytest.raises(ValueError, match=r"needs observation\.features\.view_00"):
        map_.update(map_.begin(1), stack([env.reset(seed=0)[0]]))
    with pytest.raises(ValueError, match="12 cameras, but views=6"):
        TopologicalMap(8, F, views=6, cameras=env.embodiment.camera_names, **SMALL)
