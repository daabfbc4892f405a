"""MapGPT's text is the one its template makes of a walk, with places numbered as first seen."""

import math

import numpy as np
import pytest
import torch

from maps.geometry import camera_pose
from maps.mapgpt import GraphText, direction


def visit(node, near, places=None, heading=0.0):
    places = [(1.0, 0.0, 0.0)] * len(near) if places is None else places
    pose = camera_pose(*(torch.tensor([v]) for v in (0.0, 0.0, 0.0, heading)))
    return {
        "observation.node": np.array([node]),
        "observation.neighbours": np.array([near]),
        "observation.neighbours.places": np.array([places]),
        "observation.pose": pose.numpy(),
    }


def test_a_walk_in_words():
    graph = GraphText()
    graph.reset(1)
    for node, near in ((40, [7, 9, -1]), (9, [40, 8, 3]), (3, [9, 5, -1])):
        graph.update(visit(node, near))
    # numbered as first seen: 40 7 9 8 3 5 are 0 1 2 3 4 5
    assert graph.text(0) == (
        "Trajectory: Place 0 2 4\n"
        "Map:\n"
        "Place 0 is connected with Places 1, 2\n"
        "Place 2 is connected with Places 0, 3, 4\n"
        "Place 4 is connected with Places 2, 5\n"
        "Supplementary Info:\n"
        "Place 1 which is corresponding to Image 1\n"
        "Place 3 which is corresponding to Image 3"
    )


def test_going_back_lists_no_place_twice():
    graph = GraphText(images=False)
    graph.reset(1)
    for node, near in ((0, [1]), (1, [0]), (0, [1])):
        graph.update(visit(node, near))
    text = graph.text(0)
    assert text.startswith("Trajectory: Place 0 1 0\n") and text.count("Place 0 is connected") == 1
    assert text.endswith("Supplementary Info:\nNothing yet.")


def test_options_say_where_to_turn():
    graph = GraphText(images=False)
    graph.reset(1)
    places = [(1, 0.0, 0), (1, 1, 0), (1, -1, 0), (-1, 0.1, 0), (0.5, 0, 2), (0.5, 0, -2)]
    graph.update(visit(0, [1, 2, 3, 4, 5, 6], places))
    said, nodes = graph.options(0)
    assert said == [
        "A. stop", "B. go forward to Place 1", "C. turn left to Place 2", "D. turn right to Place 3",
        "E. turn around to Place 4", "F. go up to Place 5", "G. go down to Place 6",
    ]  # fmt: skip
    assert nodes == [-1, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("heading, says", [(0.0, "turn left"), (math.pi / 2, "go forward"), (3.0, "turn right")])
def test_directions_are_relative_to_where_one_looks(heading, says):
    pose = camera_pose(*(torch.tensor(v) for v in (2.0, 3.0, 0.0, heading))).numpy()
    assert direction(pose, np.array([2.0, 4.0, 0.0])) == says


def test_slots_are_episodes_of_their_own():
    graph = GraphText()
    graph.reset(2)
    graph.update(visit(0, [1]), [1])
    graph.update(visit(5, [6]), [0])
    graph.reset([1])
    graph.update(visit(3, [4]), [1])
    assert graph.number(1, 3) == 0 and "Place 0 is connected with Places 1" in graph.text(1)
    assert graph.number(0, 6) == 1
    with pytest.raises(ValueError, match="1 episodes was given for 2 slots"):
        graph.update(visit(0, [1]))
    with pytest.raises(ValueError, match=r"needs observation\.pose"):
        graph.update({"observation.node": [1], "observation.neighbours": [], "observation.neighbours.places": []})
    with pytest.raises(ValueError, match="more than there are letters"):
        graph.update(visit(0, list(range(1, 30))), [0])
        graph.options(0)
