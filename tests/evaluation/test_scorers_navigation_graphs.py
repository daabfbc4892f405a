"""Paths through graphs of viewpoints are scored by each benchmark's own rule, on a house small enough to do by hand.

a --2-- b --2-- c --2-- d     and e, 3 m beside b; x is not included, z is joined to nothing
"""

import itertools
import json
import math

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.navigation.cvdn import CVDN
from embodied.evaluation.scorers.navigation.graphs import Graphs
from embodied.evaluation.scorers.navigation.r2r import RoomToRoom
from embodied.evaluation.scorers.navigation.reverie import REVERIE
from embodied.evaluation.scorers.navigation.soon import SOON, inside

POINTS = {"a": (0, 0), "b": (2, 0), "c": (4, 0), "d": (6, 0), "e": (2, 3), "x": (1, 0), "z": (9, 9)}
EDGES = [("a", "b"), ("b", "c"), ("c", "d"), ("b", "e"), ("a", "x"), ("x", "b")]


def connectivity(points=POINTS, edges=EDGES, left_out=("x",)):
    def row(name):
        x, y = points[name]
        free = [(name, other) in edges or (other, name) in edges for other in points]
        pose = [1, 0, 0, x, 0, 1, 0, y, 0, 0, 1, 1.5, 0, 0, 0, 1]
        return {"image_id": name, "pose": pose, "included": name not in left_out, "unobstructed": free}

    return [row(name) for name in points]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("connectivity")
    (folder / "home_connectivity.json").write_text(json.dumps(connectivity()))
    return str(folder)


def ask(path, reference, **more):
    return Record("7_0", {"path": list(path), **more}, {"scan": "home", "path": list(reference)}, "data.json: row 0")


def test_distances_are_along_the_shortest_way_and_what_is_left_out_is_no_viewpoint(folder):
    house = Graphs(folder).house("home")
    assert house.names == ("a", "b", "c", "d", "e", "z")
    graph = networkx.Graph()
    graph.add_nodes_from(house.names)
    for one, other in EDGES:
        if "x" not in (one, other):
            graph.add_edge(one, other, weight=math.dist(POINTS[one], POINTS[other]))
    theirs = dict(networkx.all_pairs_dijkstra_path_length(graph))
    for one, other in itertools.product(house.names, repeat=2):
        found = house.distances[house.places[one], house.places[other]]
        assert found == pytest.approx(theirs[one].get(other, math.inf))


def test_room_to_room_by_hand(folder):
    scorer = RoomToRoom(folder)
    there = scorer.episode(ask("abcd", "abcd"))
    assert there == {
        **dict.fromkeys(["success", "spl", "oracle_success", "ndtw", "sdtw", "cls"], 1.0),
        "navigation_error": 0.0,
        "oracle_error": 0.0,
        "path_length": 6.0,
    }
    detour = scorer.episode(ask("abebc", "abcd"))  # 2 + 3 + 3 + 2 = 10 m, ends 2 m away
    assert (detour["success"], detour["spl"]) == (1, 6 / 10) and detour["path_length"] == 10
    assert detour["navigation_error"] == 2
    # alignment: a-a 0, b-b 0, e-b 3, b-b 0, c-c 0, c-d 2
    assert detour["ndtw"] == pytest.approx(math.exp(-5 / 12)) and detour["sdtw"] == detour["ndtw"]
    passing = scorer.episode(ask("abcba", "abcd"))
    assert (passing["success"], passing["oracle_success"], passing["oracle_error"]) == (0, 1, 2)


def test_three_metres_are_too_far_and_turning_costs_nothing(folder):
    assert RoomToRoom(folder).episode(ask("ab", "abe"))["success"] == 0  # e is exactly 3 m from b
    assert RoomToRoom(folder, threshold=3.01).episode(ask("ab", "abe"))["success"] == 1
    turning, straight = (RoomToRoom(folder).episode(ask(path, "abcd")) for path in ("aaabbccd", "abcd"))
    assert turning == straight


def test_room_for_room_is_held_against_the_path_it_describes(folder):
    walked = ask("abebcd", "abebcd")  # 12 m, where 6 m would do
    assert RoomToRoom(folder).episode(walked)["spl"] == 6 / 12
    assert RoomToRoom(folder, reference_length="annotated").episode(walked)["spl"] == 1
    loop = ask("aba", "aba")
    assert RoomToRoom(folder).episode(loop)["spl"] == 0  # the shortest way from a place to itself is 0 m
    assert RoomToRoom(folder, reference_length="annotated").episode(loop)["spl"] == 1


def steps(length=8):
    """Walks along edges, from a."""
    near = {name: [o for pair in EDGES if name in pair for o in pair if o != name and o != "x"] for name in "abcde"}

    def go(choices):
        path = ["a"]
        for choice in choices:
            path.append(near[path[-1]][choice % len(near[path[-1]])])
        return path

    return st.lists(st.integers(0, 9), max_size=length).map(go)


@given(steps(), steps())
@settings(max_examples=60, deadline=None)
def test_what_holds_for_every_walk(path, reference):
    scorer = test_what_holds_for_every_walk.scorer
    found = scorer.episode(ask(path, reference))
    assert 0 <= found["spl"] <= found["success"] <= found["oracle_success"] <= 1
    assert found["sdtw"] <= found["ndtw"] <= 1 and 0 <= found["cls"] <= 1
    assert found["oracle_error"] <= found["navigation_error"]
    assert scorer.episode(ask(reference, reference))["ndtw"] == 1
    assert (found["success"] == 1) == (found["navigation_error"] < 3)


@pytest.fixture(autouse=True, scope="module")
def _scorer(folder):
    test_what_holds_for_every_walk.scorer = RoomToRoom(folder)


@pytest.mark.parametrize(
    "record, said",
    [
        (ask("acd", "abcd"), "sample 7_0 has a trajectory that jumps from a to c, which no edge joins"),
        (ask("bcd", "abcd"), "sample 7_0 starts at a, but its trajectory starts at b"),
        (ask("aqd", "abcd"), "viewpoint q is not in the graph of home"),
        (ask("axb", "abcd"), "viewpoint x is not in the graph of home"),
        (ask("ab", "aq"), "has a reference that does not fit: viewpoint q is not in the graph of home"),
        (Record("7_0", {"path": ["a"]}, {"scan": "hom", "path": ["a"]}, "d"), "no graph of scan hom"),
        (Record("7_0", {"path": ["a"]}, {"scan": "../home", "path": ["a"]}, "d"), "no graph of scan ../home"),
        (Record("7_0", {"path": ["a"]}, {"scan": "home", "path": "ab"}, "d"), "no list of viewpoints"),
        (Record("7_0", {"path": ["a"]}, {"scan": "home"}, "d"), "has no path"),
    ],
)
def test_what_cannot_be_scored_is_named(folder, record, said):
    with pytest.raises(ValueError, match="7_0") as error:
        RoomToRoom(folder).check([record])
    assert said in str(error.value) and "\n" not in str(error.value) and record.where in str(error.value)


def test_where_jumps_are_allowed_they_are_as_long_as_the_shortest_way(folder):
    scorer = RoomToRoom(folder, edges=False)
    assert scorer.episode(ask("ad", "abcd"))["path_length"] == 6
    with pytest.raises(ValueError, match="no way joins"):
        scorer.episode(ask("az", "abcd"))


@pytest.mark.parametrize(
    "content, said",
    [
        ({"a": 1}, "is no connectivity file"),
        ([{"image_id": "a", "pose": [1, 2], "included": True, "unobstructed": [False]}], "is no connectivity file"),
        ([{"image_id": "a", "pose": [0] * 16, "included": True, "unobstructed": [0, 1]}], "is no connectivity file"),
        ([{"image_id": "a", "pose": [0] * 16, "included": False, "unobstructed": [False]}], "no included viewpoint"),
        (connectivity({"a": (0, 0), "b": (math.nan, 0)}, [], ()), "not finite"),
        (connectivity() + connectivity(), "is no connectivity file"),
        ([{**row, "image_id": "a"} for row in connectivity()], "viewpoint a twice"),
    ],
)
def test_a_graph_of_another_format_is_named(tmp_path, content, said):
    (tmp_path / "s_connectivity.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"s_connectivity\.json") as error:
        Graphs(tmp_path).house("s")
    assert said in str(error.value)


def test_a_pickled_graph_is_never_read(tmp_path):
    (tmp_path / "connectivity_graphs.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="is a pickle, which can run code when it is read"):
        Graphs(tmp_path / "connectivity_graphs.pkl")
    with pytest.raises(ValueError, match="there is no folder"):
        Graphs(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Object 5 is seen from c and e; it has an empty row at d."""
    folder = tmp_path_factory.mktemp("boxes")
    for viewpoint, seen in {"c": [12], "e": [13, 14], "d": []}.items():
        row = {viewpoint: {"5": {"name": "sofa", "visible_pos": seen, "bbox2d": [[0, 0, 9, 9]] * len(seen)}}}
        (folder / f"home_{viewpoint}.json").write_text(json.dumps(row))
    return str(folder)


def seek(path, thing=5, **more):
    return Record("7_5_0", {"path": list(path), **more}, {"scan": "home", "path": list("abc"), "objId": thing}, "r")


def test_reverie_counts_seeing_the_object_and_not_metres(folder, boxes):
    scorer = REVERIE(folder, boxes)
    assert scorer.episode(seek("abc")) == {"success": 1, "spl": 1, "oracle_success": 1, "path_length": 4}
    near = scorer.episode(seek("abcd"))  # 2 m from where it is annotated, but nothing is seen from d
    assert (near["success"], near["oracle_success"], near["spl"]) == (0, 1, 0)
    elsewhere = scorer.episode(seek("abe"))  # 5 m from the annotated end, and it is seen
    assert (elsewhere["success"], elsewhere["spl"]) == (1, 4 / 5)


def test_reverie_grounding_needs_no_success_and_compares_text(folder, boxes):
    scorer = REVERIE(folder, boxes)
    lost = scorer.episode(seek("abeb", predObjId="5"))
    assert (lost["success"], lost["rgs"], lost["rgspl"]) == (0, 1, 4 / 8)
    assert scorer.episode(seek("abc", pred_objid=6))["rgs"] == 0
    scores = scorer.score([seek("abc", predObjId=5), seek("abe", predObjId=5)])
    assert list(scores.metrics)[:5] == ["success", "spl", "oracle_success", "rgs", "rgspl"]
    partly = scorer.score([seek("abc", predObjId=5), seek("abe")])
    assert "rgs" not in partly.metrics and "rgs, rgspl left out" in partly.notes[0]
    with pytest.raises(ValueError, match="sample 7_5_0 is about object 9, which no viewpoint of home sees"):
        scorer.episode(seek("abc", 9))


def test_reverie_boxes_of_another_format_are_named(folder, tmp_path):
    (tmp_path / "home_c.json").write_text('{"c": {"5": [1, 2]}}')
    with pytest.raises(ValueError, match=r"home_c.json is no file of boxes"):
        REVERIE(folder, str(tmp_path)).episode(seek("abc"))
    with pytest.raises(ValueError, match="there is no folder"):
        REVERIE(folder, str(tmp_path / "none"))


def box(left, right, down, up):
    corner = {
        "left_top": (left, up),
        "right_top": (right, up),
        "right_bottom": (right, down),
        "left_bottom": (left, down),
    }
    return {"target": {name: {"heading": h, "elevation": e} for name, (h, e) in corner.items()}}


def point(path, heading, elevation, boxes):
    did = {"obj_heading": [heading / (2 * math.pi)], "obj_elevation": [(elevation + math.pi) / (2 * math.pi)]}
    return Record("7_0", {"path": list(path), **did}, {"scan": "home", "path": list("abcd"), "bboxes": boxes}, "s")


def test_soon_takes_the_end_as_the_goal_where_the_object_is_seen_from_it(folder):
    scorer, boxes = SOON(folder), {"d": box(1, 2, -0.5, 0.5), "e": box(3, 4, -0.5, 0.5)}
    right = scorer.episode(point("abcd", 1.5, 0, boxes))
    assert (right["success"], right["spl"], right["grounding"], right["grounding_spl"]) == (1, 1, 1, 1)
    other = scorer.episode(point("abe", 3.5, 0.2, boxes))
    assert (other["success"], other["navigation_error"], other["grounding"], other["spl"]) == (1, 0, 1, 1)
    assert other["goal_progress"] == 5
    # the nearest viewpoint is the nearest to d, b, which is 3 m from e: the oracle misses what the agent reached
    assert (other["oracle_error"], other["oracle_success"]) == (3, 0)
    near = scorer.episode(point("abc", 1.5, 0, boxes))
    assert (near["success"], near["navigation_error"], near["grounding"]) == (1, 2, 0)
    assert scorer.episode(point("abcd", 2.5, 0, boxes))["grounding"] == 0
    with pytest.raises(ValueError, match="7_0 has a box without the corners"):
        scorer.episode(point("abcd", 1.5, 0, {"d": {"target": {}}}))


turns = st.floats(-1, 2)


@given(turns, turns)
def test_inside_a_rectangle_and_inside_a_hollow_shape(x, y):
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert inside((x, y), square) == inside((x, y), square[::-1]) == (0 < x < 1 and 0 < y < 1)
    hollow = [(0, 0), (1, 0), (1, 1), (0.5, 0), (0, 1)]
    if 0 < y < 1 and 0 < x < 1 and abs(abs(x - 0.5) - y / 2) > 1e-9:
        assert inside((x, y), hollow) == (abs(x - 0.5) > y / 2)


def dialogue(path, planner="abcd", player="abe", ends="d"):
    reference = {"scan": "home", "planner_path": list(planner), "player_path": list(player), "end_panos": list(ends)}
    return Record("12", {"path": list(path)}, reference, "cvdn.json: row 3")


def test_cvdn_progress_is_towards_the_nearest_of_the_end_region(folder):
    scorer = CVDN(folder)
    found = scorer.episode(dialogue("abc", ends="de"))
    assert found["goal_progress"] == 5 - 2  # from a the nearest is e, 5 m; from c it is d, 2 m
    assert scorer.episode(dialogue("abeb", ends="d"))["goal_progress"] == 2
    assert scorer.episode(dialogue("aba", ends="d"))["goal_progress"] == 0


def test_cvdn_trusts_the_player_who_passed_the_planners_end(folder):
    wandering = dialogue("ab", planner="ab", player="abe")
    assert CVDN(folder).episode(wandering)["navigation_error"] == 3  # the player's end, e
    assert CVDN(folder, "planner_path").episode(wandering)["navigation_error"] == 0
    assert CVDN(folder).episode(dialogue("ab", planner="abc", player="abe"))["navigation_error"] == 2  # the planner's


def test_cvdn_at_the_goal_already(folder):
    stay, leave = dialogue("a", "a", "a", "a"), dialogue("aba", "a", "a", "a")
    assert CVDN(folder).episode(stay)["spl"] == 1 and CVDN(folder).episode(leave)["spl"] == 0


def test_figures_are_means_with_intervals_and_parts_are_split(folder):
    records = [ask("abcd", "abcd"), ask("ab", "abcd"), ask("abebc", "abcd")]
    for place, record in enumerate(records):
        record.reference["floor"] = "low" if place else "high"
    scores = RoomToRoom(folder, by=["floor"]).score(records)
    assert scores.headline[0] == "success" and scores.metrics["success"].value == pytest.approx(2 / 3)
    assert scores.metrics["spl"].value == pytest.approx(np.mean([1, 0, 0.6]))
    assert scores.metrics["navigation_error"].unit == "number" and scores.metrics["navigation_error"].low is not None
    assert scores.groups["floor: low"]["success"].value == 0.5 and scores.groups["floor: high"]["success"].n == 1
    assert scores.samples[1]["prediction"] == "2 viewpoints, ends at b" and scores.samples[2]["score"] == 0.6
