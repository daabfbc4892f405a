"""An agent's steps, turns and pictures in a house, and the follower that chooses them."""

import importlib
import importlib.util
import math
import os

import numpy as np
import pytest

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)
follower = importlib.import_module("envs.house.follower")
simulator = importlib.import_module("envs.house.simulator")
from envs.house.houses import load  # noqa: E402
from envs.house.simulator import AgentState, Body, Simulator  # noqa: E402


@pytest.fixture(scope="module")
def sim():
    return Simulator(load(4), Body(16, 16, turn=30, look=True, outputs=("rgb", "depth", "semantic", "instance")))


@pytest.fixture(scope="module")
def open_place(sim):
    """The middle of the widest free disc found among random points."""
    rng = np.random.default_rng(0)
    points = [sim.finder.random_point(rng) for _ in range(60)]
    return max(points, key=sim.finder.clearance)


def test_steps_are_a_quarter_of_a_metre_and_turns_come_round(sim, open_place):
    sim.place(AgentState(*open_place, 0.3))
    assert not sim.step("move_forward")
    assert sim.state.position - open_place == pytest.approx(0.25 * np.array([math.cos(0.3), math.sin(0.3)]))
    for _ in range(12):
        sim.step("turn_left")
    assert sim.state.heading == pytest.approx(0.3)
    sim.step("turn_right")
    assert sim.state.heading == pytest.approx(0.3 - math.pi / 6)
    for _ in range(5):
        sim.step("look_up")
    assert sim.state.pitch == pytest.approx(math.pi / 3)


def test_a_blocked_step_slides_unless_told_not_to(sim):
    stuck = Simulator(sim.house, Body(8, 8, sliding=False))
    rng = np.random.default_rng(1)
    for _ in range(20):
        state = AgentState(*sim.finder.random_point(rng), float(rng.uniform(-3, 3)))
        for walker in (sim, stuck):
            walker.place(state)
            for _ in range(60):
                walker.step("move_forward")
            assert walker.collided and sim.finder.is_navigable(walker.state.position[None])[0]
        before = stuck.state.position
        stuck.step("move_forward")
        assert stuck.state.position == pytest.approx(before, abs=1e-5)


def test_pictures_of_several_states_at_once_are_those_of_each(sim, open_place):
    states = [AgentState(*open_place, heading, pitch) for heading, pitch in ((0, 0), (2, 0.5), (-1, -0.5))]
    together = sim.observe_at(states)
    for k, state in enumerate(states):
        sim.place(state)
        for name, picture in sim.observe().items():
            assert np.array_equal(picture, together[name][k])


def test_one_cannot_be_put_into_a_wall(sim):
    x0, y0, _, _ = sim.house.spec.bounds
    with pytest.raises(ValueError, match="is not navigable in house 4"):
        sim.place(AgentState(x0, y0))
    with pytest.raises(ValueError, match="has no action 'jump'"):
        sim.step("jump")


def test_in_the_open_the_follower_turns_the_shorter_way_and_walks_straight(sim, open_place):
    guide = follower.GreedyGeodesicFollower(sim)
    for bearing, first in ((0, "move_forward"), (90, "turn_left"), (-90, "turn_right"), (10, "move_forward")):
        angle = math.radians(bearing)
        goal = open_place + 0.6 * np.array([math.cos(angle), math.sin(angle)])
        action = guide.next_action(AgentState(*open_place), lambda p, goal=goal: np.linalg.norm(p - goal, axis=1))
        assert action == first, bearing
    assert guide.next_action(AgentState(*open_place), lambda p: np.full(len(p), 0.18)) == "stop"
    with pytest.raises(ValueError, match="there is no way"):
        guide.next_action(AgentState(*open_place), lambda p: np.full(len(p), np.inf))


def test_turning_to_and_fro_sixteen_times_is_thrashing_until_a_step_is_made():
    turns = ["turn_left", "turn_right"] * 8
    assert follower.thrashing(turns) == "turn_right"
    assert follower.thrashing([*turns, "turn_right", "turn_right"]) == "turn_right"
    assert follower.thrashing([*turns, "turn_right", "move_forward"]) is None
    assert follower.thrashing(turns[1:]) is None and follower.thrashing([]) is None


def test_a_pose_puts_what_is_ahead_where_it_is():
    state = AgentState(1.0, 2.0, math.pi / 2, 0.0)
    pose = simulator.camera_pose(state, 1.25)
    assert pose @ [0, 0, 3, 1] == pytest.approx([1, 5, 1.25, 1], abs=1e-6)  # three metres ahead is north
    assert pose @ [1, 0, 0, 1] == pytest.approx([2, 2, 1.25, 1], abs=1e-6)  # to the right is east
    assert pose @ [0, 1, 0, 1] == pytest.approx([1, 2, 0.25, 1], abs=1e-6)  # y is down
    own = simulator.camera_pose(state, 1.25, state)
    assert own @ [0, 1.25, 3, 1] == pytest.approx([3, 0, 0, 1], abs=1e-6)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("options", [{"turn": 0}, {"forward": -1}, {"camera_height": 9}, {"height": 0}])
def test_a_body_that_cannot_be_is_refused_in_one_line(options):
    with pytest.raises(ValueError) as error:
        Body(**options)
    assert "\n" not in str(error.value)
