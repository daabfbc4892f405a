"""Agents that walk anywhere: PointNav, ObjectNav, VLN-CE and MultiON, each with its own threshold and comparator."""

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.navigation.habitat import Habitat
from embodied.evaluation.scorers.navigation.multion import MultiON
from embodied.evaluation.scorers.navigation.vlnce import VLNCE


def line(*along):
    """Positions on a line, metres."""
    return np.array([[x, 0.0, 0.0] for x in along])


def went(along, distances, stop=True, **reference):
    did = {"positions": line(*along), "distances": np.array(distances, dtype=float), "stop": stop}
    return Record("3", did, reference, "episodes.json: row 2")


def test_habitat_by_hand():
    found = Habitat().episode(went([0, 1, 2, 1, 2, 3.9], [4, 3, 2, 3, 2, 0.1]))
    assert found["success"] == 1 and found["spl"] == pytest.approx(4 / 5.9)
    assert found["soft_spl"] == pytest.approx((1 - 0.1 / 4) * 4 / 5.9)
    assert (found["distance_to_goal"], found["actions"]) == (pytest.approx(0.1), 6)


@pytest.mark.parametrize("threshold", [0.2, 0.1, 3.0])
def test_the_threshold_itself_is_too_far_and_stop_has_to_be_called(threshold):
    near = np.nextafter(threshold, 0)
    assert Habitat(threshold).episode(went([0, 4], [4, near]))["success"] == 1
    assert Habitat(threshold).episode(went([0, 4], [4, threshold]))["success"] == 0
    silent = Habitat(threshold).episode(went([0, 4], [4, near], stop=False))
    assert silent["success"] == silent["spl"] == 0 and silent["soft_spl"] > 0 and silent["actions"] == 1
    assert VLNCE(None, threshold).episode(went([0, 4], [4, threshold]))["success"] == 0
    assert VLNCE(None, threshold, inclusive=True).episode(went([0, 4], [4, threshold]))["success"] == 1


metres = st.floats(0, 50)


@given(st.lists(metres, min_size=1, max_size=9).flatmap(
    lambda along: st.tuples(st.just(along), st.lists(metres, min_size=len(along), max_size=len(along)), st.booleans())
))  # fmt: skip
def test_what_holds_for_every_walk(walk):
    found = Habitat().episode(went(*walk))
    assert 0 <= found["spl"] <= found["success"] <= 1 and 0 <= found["soft_spl"] <= 1
    vln = VLNCE(None).episode(went(*walk))
    assert vln["spl"] <= vln["success"] <= vln["oracle_success"]
    if walk[1][0] > 0:  # the unit of length does not matter
        twice = Habitat(0.4).episode(went([2 * x for x in walk[0]], [2 * d for d in walk[1]], walk[2]))
        assert twice["spl"] == pytest.approx(found["spl"]) and twice["soft_spl"] == pytest.approx(found["soft_spl"])


def test_objects_are_told_apart_by_category():
    records = [went([0, 4], [4, 0.05], object_category="bed"), went([0, 4], [4, 1], object_category="sofa")]
    scores = Habitat(0.1, by=["object_category"]).score(records)
    assert scores.metrics["success"].value == 0.5
    assert scores.groups["object_category: bed"]["success"].value == 1
    assert scores.samples[0]["prediction"] == "1 actions, ends at (4.00, 0.00, 0.00), stopped"


@pytest.fixture
def truth(tmp_path):
    file = tmp_path / "gt.json.gz"
    file.write_bytes(gzip.compress(json.dumps({"3": {"locations": line(0, 3, 6).tolist()}}).encode()))
    return str(file)


def test_vlnce_by_hand(truth):
    scorer = VLNCE(truth)
    found = scorer.episode(went([0, 0, 3, 3, 5], [6, 6, 3, 3, 1]))  # turns keep the place and count as no points
    assert (found["success"], found["spl"], found["oracle_success"]) == (1, 1, 1)
    assert found["ndtw"] == found["sdtw"] == pytest.approx(math.exp(-1 / 9)) and found["actions"] == 5
    passing = scorer.episode(went([0, 3, 6, 9], [6, 3, 0, 3]))
    assert (passing["success"], passing["oracle_success"], passing["sdtw"]) == (0, 1, 0)
    assert passing["ndtw"] == pytest.approx(math.exp(-3 / 9)) and passing["navigation_error"] == 3


def test_vlnce_without_a_truth_leaves_warping_out_and_says_so():
    scores = VLNCE(None).score([went([0, 6], [6, 0])])
    assert "ndtw" not in scores.metrics and "left out" in scores.notes[0]


def test_vlnce_names_the_episode_that_the_truth_lacks(truth, tmp_path):
    with pytest.raises(ValueError, match=r"row 2: sample 4 has no locations in .*gt\.json\.gz"):
        VLNCE(truth).episode(Record("4", went([0], [0]).prediction, {}, "episodes.json: row 2"))
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"3": 1}')[:-9])
    with pytest.raises(ValueError, match=r"cut\.json\.gz is no whole gzip file"):
        VLNCE(str(tmp_path / "cut.json.gz"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match=r"list\.json is no ground truth"):
        VLNCE(str(tmp_path / "list.json"))


def found(along, calls, ways=(4.0, 3.0, 3.0), goals=3):
    did = {"positions": line(*along), "found": [list(call) for call in calls], "goal_distances": list(ways)}
    return Record("3", did, {"goals": [{}] * goals}, "episodes.json: row 2")


def test_multion_by_hand():
    scorer = MultiON()
    every = scorer.episode(found([0, 2, 4, 7, 10], [(2, 0), (3, 1), (4, 0.5)]))
    assert every == {"success": 1, "progress": 1, "ppl": 1, "spl": 1, "path_length": 10}
    # two of three, after 8 m where 7 would do; what is walked later costs nothing
    two = scorer.episode(found([0, 4.5, 4, 7, 17], [(2, 0.2), (3, 0.4), (4, 9)]))
    assert two["progress"] == pytest.approx(2 / 3) and two["success"] == two["spl"] == 0
    assert two["ppl"] == pytest.approx(2 / 3 * 7 / 8) and two["path_length"] == 18
    none = scorer.episode(found([0, 4], []))
    assert none["progress"] == none["ppl"] == 0


def test_multion_at_the_threshold_goes_on_without_progress():
    exact = MultiON().episode(found([0, 4, 7, 10], [(1, 1.5), (2, 0), (3, 0)]))
    assert exact["success"] == 1 and exact["progress"] == pytest.approx(2 / 3)
    beyond = MultiON().episode(found([0, 4], [(1, np.nextafter(1.5, 2))]))
    assert beyond["progress"] == beyond["success"] == 0


@pytest.mark.parametrize(
    "record, said",
    [
        (found([0, 4, 7], [(1, 9), (2, 0)]), "calls found after its episode was over"),
        (found([0, 4, 7], [(1, 0), (2, 0)], (4.0,), 1), "calls found after its episode was over"),
        (found([0, 4], [(5, 0)]), "none of its 2 positions"),
        (found([0, 4], [(0.5, 0)]), "none of its 2 positions"),
        (found([0, 4, 7], [(2, 0), (1, 0)]), "go back in time"),
        (found([0, 4], [(1, 0)], (4.0,)), "needs 'goal_distances', finite, in metres, one for each of its 3 goals"),
        (found([0, 4], [(1, 0)], (4.0, math.inf, 1.0)), "needs 'goal_distances', finite"),
        (found([0, 4], [(1,)]), "needs 'found' as a list"),
    ],
)
def test_multion_names_the_episode_that_cannot_be(record, said):
    with pytest.raises(ValueError, match="row 2: sample 3") as error:
        MultiON().check([record])
    assert said in str(error.value)


@pytest.mark.parametrize("make", [Habitat, lambda t: VLNCE(None, t), MultiON])
def test_a_threshold_is_more_than_nothing(make):
    with pytest.raises(ValueError, match="threshold is more than 0 metres"):
        make(0.0)
