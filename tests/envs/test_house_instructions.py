"""Instructions through houses say what is there, and those held out share no words' order with training's."""

import importlib
import importlib.util
import itertools
import os
import re

import numpy as np
import pytest

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)
instructions = importlib.import_module("envs.house.instructions")
routes = importlib.import_module("envs.house.routes")
tasks = importlib.import_module("envs.house.tasks.vln")
from envs.house.naming import called, told_apart  # noqa: E402
from envs.house.simulator import Body  # noqa: E402


def templates(held_out):
    def leaves(node):
        if isinstance(node, str):
            yield node
        else:
            for child in node.values() if isinstance(node, dict) else node:
                yield from leaves(child)

    return list(leaves(instructions.phrasings(held_out)))


@pytest.fixture(scope="module")
def episodes():
    env = tasks.VLN(Body(8, 8), houses=3)
    found = []
    for seed in range(25):
        env.reset(seed=seed)
        path = env.sim.finder.path(env.episode.start.position, env.episode.goals[0])
        found.append((env.sim.house, env.episode, path))
    return found


def test_left_and_right_are_what_a_hand_made_way_says(episodes):
    house = episodes[0][0].spec
    assert routes.side_of(np.pi / 2) == "left" and routes.side_of(-1.0) == "right"
    assert (
        routes.side_of(0.3) == "ahead"
        and routes.side_of(3.0) == "behind"
        and routes.side_of(2 * np.pi - 0.3) == "ahead"
    )
    centre = np.array(house.doors[0].centre)
    assert np.allclose(routes.door_between(house, *house.doors[0].rooms, centre), centre)


def test_the_rooms_named_are_those_the_way_leads_through(episodes):
    for house, episode, path in episodes:
        legs = routes.legs_of(house.spec, path, episode.start.heading)
        crossed = [house.room_at(point) for point in routes.dense(path, 0.02)]
        assert [leg.room for leg in legs] == [room for room, _ in itertools.groupby(crossed)]
        at = 0
        for leg in legs[1:]:
            at = episode.text.index(house.spec.rooms[leg.room].kind, at) + 1


def test_each_turn_into_a_room_is_where_its_door_is(episodes):
    """Independent of the code: bearings from the point of entering to the door, by hand."""
    for house, episode, path in episodes:
        legs = routes.legs_of(house.spec, path, episode.start.heading)
        points = routes.dense(path, 0.01)
        rooms = [house.room_at(point) for point in points]
        first = next(k for k, room in enumerate(rooms) if room != rooms[0])
        door = min(house.spec.doors, key=lambda d: np.linalg.norm(np.array(d.centre) - points[first]))
        assert set(door.rooms) == {rooms[0], rooms[first]}
        ahead = np.array([np.cos(episode.start.heading), np.sin(episode.start.heading)])
        away = np.array(door.centre) - points[0]
        cos = away @ ahead / np.linalg.norm(away)
        cross = ahead[0] * away[1] - ahead[1] * away[0]
        if abs(abs(np.degrees(np.arccos(np.clip(cos, -1, 1)))) - 30) < 1 or abs(np.degrees(np.arccos(cos)) - 135) < 1:
            continue
        expected = (
            "ahead"
            if cos > np.cos(np.pi / 6)
            else "behind"
            if cos < np.cos(0.75 * np.pi)
            else "left"
            if cross > 0
            else "right"
        )
        assert legs[0].towards == expected


def test_a_thing_that_is_mentioned_is_the_only_one_of_its_name_in_its_room(episodes):
    for house, episode, path in episodes:
        target = episode.reference["target"]
        assert re.search(rf"\b{told_apart(house.spec, target)}\b", episode.text)
        room = house.spec.objects[target].room
        assert house.room_at(path[-1]) == room
        for leg in routes.legs_of(house.spec, path, episode.start.heading):
            for passed in leg.passed:
                item, name = house.spec.objects[passed.place], told_apart(house.spec, passed.place)
                alike = [
                    o
                    for o in house.spec.objects
                    if o.room == item.room and name in (called(o.category), f"{o.colour} {called(o.category)}")
                ]
                assert alike == [item]


def test_held_out_words_are_none_of_trainings():
    train, held_out = templates(False), templates(True)
    assert not set(train) & set(held_out)

    def pairs(texts):
        words = [
            [w for w in re.sub(r"[{},.]", "", text).split() if w not in ("the", "to", "you", "on", "your")]
            for text in texts
        ]
        return {
            pair
            for line in words
            for pair in itertools.pairwise(line)
            if not set(pair) & {"room", "thing", "side", "here"}
        }

    shared = pairs(train) & pairs(held_out)
    assert shared <= {("in", "front")}, shared


def test_sides_of_an_instruction_agree_in_both_sets():
    env, other = tasks.VLN(Body(8, 8), houses=2), tasks.VLN(Body(8, 8), houses=2, perturb={"instruction": 1})
    for seed in range(6):
        one, two = env.reset(seed=seed)[0]["task"], other.reset(seed=seed)[0]["task"]
        assert one != two
        assert np.array_equal(env.episode.goals, other.episode.goals) and env.episode.start == other.episode.start
