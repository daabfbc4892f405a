"""The greedy geodesic follower: which action brings an agent nearer to a goal along the shortest way.

After habitat-sim's `GreedyFollower.cpp`: of all ways to turn on the spot and then step ahead, take the one that gains
most on the goal, prefer few turns, avoid collisions and places close to obstacles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from envs.house.simulator import AgentState, Simulator

Distance = Callable[[np.ndarray], np.ndarray]
"""Metres to the goal from (P, 2) points, such as a `DistanceField`."""

GOOD_ENOUGH = 0.99
TURN_COST, COLLISION_COST, CLOSE_COST = 0.0125, 0.25, 0.05
CLOSE = 0.2
"""Metres from an obstacle that count as close."""
THRASHING = 16
"""So many turns to and fro, and a whole turn with its step is done before anything else is thought of."""


class GreedyGeodesicFollower:
    """Chooses actions for the agent of a simulator.

    Args:
        simulator: where the agent walks.
        goal_radius: metres from the goal that count as there; None: three quarters of a step.
        stop: the name of what to do there.
    """

    def __init__(self, simulator: Simulator, goal_radius: float | None = None, stop: str = "stop") -> None:
        self.simulator, self.stop = simulator, stop
        self.goal_radius = 0.75 * simulator.body.forward if goal_radius is None else goal_radius

    def reset(self) -> None:
        """Nothing is remembered from step to step but what `next_action` is told."""

    def next_action(self, state: AgentState, distance: Distance, recent: Sequence[str] = ()) -> str:
        """What to do at a state.

        Args:
            state: anywhere an agent can stand.
            distance: to the goal.
            recent: the actions done before, the last one last. After 16 turns to and fro the turn that was begun last
                is gone on with.

        Raises:
            ValueError: there is no way to the goal.
        """
        here = float(distance(state.position[None])[0])
        if not math.isfinite(here):
            raise ValueError(f"there is no way from ({state.x:.3f}, {state.y:.3f}) to the goal")
        if here < self.goal_radius:
            return self.stop
        held = thrashing(recent)
        return self.best(state, distance, here, (held,) if held else ("turn_left", "turn_right"))[0]

    def best(self, state: AgentState, distance: Distance, here: float, sides: Sequence[str]) -> tuple[str, ...]:
        """The turns and the step that gain most."""
        simulator = self.simulator
        best = -math.inf
        chosen: tuple[str, ...] = ("turn_left",)
        ways = dict.fromkeys(sides, state)
        for turns in range(math.ceil(180 / simulator.body.turn - 1e-9)):
            for side in sides if turns else sides[:1]:
                end, hit = simulator.after(ways[side], "move_forward")
                gain = (here - float(distance(end.position[None])[0])) / simulator.body.forward
                gain -= TURN_COST * turns + (COLLISION_COST if hit else 0.0)
                if gain > best and simulator.finder.clearance(end.position) < CLOSE:
                    gain -= CLOSE_COST
                if gain > best:
                    best, chosen = gain, (*(side,) * turns, "move_forward")
            if best > GOOD_ENOUGH:
                break
            ways = {side: simulator.after(ways[side], side)[0] for side in sides}
        return chosen


def thrashing(recent: Sequence[str]) -> str | None:
    """The side to go on turning to after 16 turns to and fro: that of the last one and of all since; else None."""
    end = len(recent)
    while end > 1 and recent[end - 1] == recent[end - 2]:
        end -= 1
    last = tuple(recent[max(0, end - THRASHING) : end])
    turning = len(last) == THRASHING and set(last) == {"turn_left", "turn_right"}
    return last[-1] if turning and all(a != b for a, b in pairwise(last)) else None
