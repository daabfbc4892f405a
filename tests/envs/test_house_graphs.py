"""Graphs of viewpoints: sampled in houses, read from Room-to-Room's files, walked by its rules."""

import importlib
import importlib.util
import json
import math
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.navigation.graphs import Graphs
from embodied.evaluation.scorers.navigation.r2r import RoomToRoom as Official
from embodied.interaction import Environment
from embodied.spec import STATE

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)
viewpoints = importlib.import_module("envs.house.viewpoints")
graph_vln = importlib.import_module("envs.house.tasks.graph_vln")
from envs.house.houses import load  # noqa: E402
from envs.house.renderer import Renderer  # noqa: E402

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "r2r"
CROSS = {"a": (0, 0, 0), "b": (0, 2, 0), "c": (2, 0, 0), "d": (0.5, 4, 0), "e": (0, 2, 3)}
JOINED = ["ab", "ac", "bd", "be"]


@pytest.fixture
def folder(tmp_path):
    """A hand-made scan `toy`: a in the middle, b north of it, c east, d further north, e above b."""
    names = list(CROSS)
    joined = np.array([[a + b in JOINED or b + a in JOINED for b in names] for a in names])
    viewpoints.ViewpointGraph("toy", tuple(names), np.array(list(CROSS.values()), float), joined).save(tmp_path)
    row = {"scan": "toy", "path_id": 7, "path": ["a", "b", "d"], "heading": 0.0, "instructions": ["go north"] * 3}
    (tmp_path / "R2R_toy.json").write_text(json.dumps([row]))
    return tmp_path


def r2r(folder, **options):
    return graph_vln.RoomToRoom(str(folder / "R2R_toy.json"), str(folder), **options)


def run(env, seed):
    env.reset(seed=seed)
    while True:
        _, _, terminated, truncated, info = env.step(env.oracle())
        if terminated or truncated:
            return info


@pytest.fixture(scope="module")
def houses():
    return [load(seed) for seed in (0, 3)]


def test_every_edge_of_a_house_can_be_walked_and_every_room_reached(houses):
    for house in houses:
        finder = house.finder()
        graph = viewpoints.graph_of(house.spec, finder)
        points = graph.positions[:, :2]
        assert finder.is_navigable(points).all() and np.isfinite(graph.distances).all()
        for a, b in np.argwhere(graph.joined):
            end, hit = finder.step(points[a], points[b], sliding=False)
            assert not hit and end == pytest.approx(points[b], abs=1e-6)
        assert {house.room_at(point) for point in points} == set(range(len(house.spec.rooms)))


def test_a_saved_graph_is_what_the_scorers_and_this_module_read(houses, tmp_path):
    graph = viewpoints.graph_of(houses[0].spec, houses[0].finder())
    graph.save(tmp_path)
    official, again = Graphs(tmp_path).house(graph.scan), viewpoints.read_graph(tmp_path, graph.scan)
    assert official.names == graph.names == again.names
    assert official.distances == pytest.approx(graph.distances)
    assert (again.joined == graph.joined).all() and again.positions == pytest.approx(graph.positions)


def test_a_panorama_goes_clockwise_from_north_below_ahead_and_above(houses):
    renderer = Renderer(houses[0].scene, 8, 8, 60.0, ("rgb", "depth"))
    x, y, z = viewpoints.graph_of(houses[0].spec, houses[0].finder()).positions[0]
    views = viewpoints.panorama(renderer, (x, y, z))
    assert views["rgb"].shape == (36, 8, 8, 3)
    for view, heading, pitch in (
        (12, math.pi / 2, 0),
        (15, 0, 0),
        (3, 0, -math.pi / 6),
        (24 + 6, -math.pi / 2, math.pi / 6),
    ):
        alone = renderer.render(np.array([[x, y, z, heading, pitch]]))
        assert np.abs(alone["depth"][0] - views["depth"][view]).max() < 1e-2


@pytest.mark.parametrize("actions", ["panoramic", "low"])
def test_instructions_of_houses_are_followed_by_the_oracle_and_scored_as_officially(actions, tmp_path):
    env = graph_vln.HouseGraph(actions, height=8, width=8, max_steps=80, houses=2)
    assert isinstance(env, Environment)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
        end = run(env, seed)
        env.graph.save(tmp_path)
        path = [pose[0] for pose in end["prediction"]["trajectory"]]
        scored = Official(str(tmp_path)).episode(Record("x", {"path": path}, end["reference"]))
        assert scored["success"] == end["measures"]["success"] == 1 and scored["spl"] == pytest.approx(1)
        assert scored["path_length"] == pytest.approx(end["measures"]["path_length"])
    again, _ = env.reset(seed=0)
    env.reset(seed=1)
    assert all(np.array_equal(env.reset(seed=0)[0][key], again[key]) for key in again)


def test_views_all_around_begin_with_the_one_ahead():
    front, around = (graph_vln.HouseGraph(height=8, width=8, houses=2, views=views) for views in ("front", "around"))
    one, all_around = front.reset(seed=0)[0], around.reset(seed=0)[0]
    assert np.array_equal(one["observation.images.front"], all_around["observation.images.view_00"])
    turned = around.renderer.render(
        np.array([[*around.graph.positions[around.at], around.heading + np.pi / 2, 0]], np.float32)
    )
    assert np.array_equal(turned["rgb"][0], all_around["observation.images.view_03"])
    assert len(around.embodiment.cameras) == 12 and around.observation_space["observation.images.view_11"]


def test_forward_goes_to_what_is_nearest_to_the_middle_of_the_view(folder):
    env = r2r(folder, actions="low")
    env.reset(seed=0)
    names = env.embodiment.action.names

    def act(*moves):
        for move in moves:
            env.step(names.index(move))
        return env.pose()[0]

    assert act("left", "forward") == "b"  # 30 degrees aside is still in view
    assert act("forward") == "b"  # d is 44 degrees aside now
    assert act("right", "forward") == "d"
    env.reset(seed=0)
    assert act("right", "right", "forward") == "c"
    env.reset(seed=0)
    assert act("left", "left", "forward") == "a"  # nothing there


def test_a_candidate_that_is_not_there_leaves_all_as_it_is(folder):
    env = r2r(folder)
    observation, _ = env.reset(seed=0)
    for name in ("a", "b"):
        assert name in env.graph.names
    after, *_ = env.step(9)
    assert np.array_equal(after[STATE], observation[STATE])
    # north is ahead: candidates counter-clockwise from there are b, then c
    env.step(1)
    assert env.pose()[:2] == ["b", pytest.approx(0, abs=1e-6)]


def test_success_needs_no_stop_but_the_end_near_the_goal(folder):
    env = r2r(folder, max_steps=1)
    env.reset(seed=1)
    *_, terminated, truncated, info = env.step(1)  # b is 2.06 m from d
    assert truncated and not terminated and info["success"]
    assert info["prediction"]["instr_id"] == "7_1"
    env.reset(seed=1)
    *_, info = env.step(0)
    assert not info["success"]


@pytest.mark.parametrize("actions", ["panoramic", "low"])
def test_the_oracle_walks_room_to_rooms_own_paths(actions, tmp_path):
    if not DATA.is_dir():
        pytest.skip("Room-to-Room's files are not beside the repository")
    rows = json.loads((DATA / "R2R_val_unseen.json").read_text())
    with tarfile.open(DATA / "connectivity.tar.xz") as archive:
        wanted = {rows[k]["scan"] for k in (0, 5)}
        for member in archive.getmembers():
            if Path(member.name).name.removesuffix("_connectivity.json") in wanted:
                (tmp_path / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    env = graph_vln.RoomToRoom(str(DATA / "R2R_val_unseen.json"), str(tmp_path), actions=actions, max_steps=60)
    official = Official(str(tmp_path))
    for seed in (0, 1, 15):
        end = run(env, seed)
        row = rows[seed // 3]
        assert end["prediction"]["instr_id"] == f"{row['path_id']}_{seed % 3}"
        path = [pose[0] for pose in end["prediction"]["trajectory"]]
        scored = official.episode(Record("x", {"path": path}, row))
        assert scored["success"] == 1 and scored["spl"] > 0.99


def test_the_users_features_are_those_of_the_viewpoint(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "f.h5", "w") as file:
        for k, name in enumerate(CROSS):
            file[f"toy_{name}"] = np.full((36, 4), k, np.float32)
    env = r2r(folder, features=str(folder / "f.h5"))
    assert env.reset(seed=0)[0]["observation.features"].shape == (36, 4)
    assert (env.step(1)[0]["observation.features"] == 1).all()


def wrong_file(folder, text):
    (folder / "R2R_toy.json").write_text(text)


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda f: wrong_file(f, '[{"scan": "toy"}]'), "is no R2R file"),
        (lambda f: wrong_file(f, "[]"), "holds no instructions"),
        (lambda f: wrong_file(f, (f / "R2R_toy.json").read_text().replace('"d"', '"z"')), "7_0: viewpoint z is not in"),
        (lambda f: wrong_file(f, (f / "R2R_toy.json").read_text().replace("toy", "tou")), "7_0: there is no .*tou"),
        (lambda f: (f / "toy_connectivity.json").write_text("[{}]"), "is no connectivity file"),
        (lambda f: (f / "R2R_toy.json").unlink(), "R2R_toy.json"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(folder, spoil, says):
    spoil(folder)
    with pytest.raises((ValueError, OSError), match=says) as error:
        r2r(folder).reset(seed=0)
    assert "\n" not in str(error.value)


def test_a_goal_that_no_way_leads_to_is_named(folder):
    rows = json.loads((folder / "toy_connectivity.json").read_text())
    for row in rows:
        row["unobstructed"][3] = False
    rows[3]["unobstructed"] = [False] * 5
    (folder / "toy_connectivity.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="instruction 7_0: no way leads"):
        r2r(folder).reset(seed=0)


def test_a_pickle_of_graphs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="can run code"):
        viewpoints.read_graph(tmp_path / "connectivity_graphs.pkl", "toy")


def test_a_wrong_option_is_one_line(folder):
    with pytest.raises(ValueError, match="actions is panoramic or low"):
        r2r(folder, actions="hops")
    with pytest.raises(ValueError, match="candidates=3 or more is needed"):
        r2r(folder, candidates=2).reset(seed=0)
    with pytest.raises(ValueError, match="there is no folder"):
        graph_vln.RoomToRoom(str(folder / "R2R_toy.json"), str(folder / "no"))
