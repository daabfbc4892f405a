"""The classical explorer: keep a map, go to what is wanted once it is on it, to the nearest frontier until then.

Yamauchi 1997, "A frontier-based approach for autonomous exploration", with the goals of embodied navigation: an object,
which the instruction names and semantic images show, or a point, which the state gives. Nothing here is learned, which
makes it the baseline that a learned agent has to beat. With a value map it chooses frontiers as VLFM does.

The map, the frontiers and the values are given to it (`maps` has them, `conf/policies/explorer.yaml` puts them
together); the protocols below say what is asked of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from scipy import ndimage

from embodied.interaction import Drawings, Observation, Policy
from embodied.spec import DEPTH, SEMANTIC, STATE, TASK, Embodiment
from policies.navigation.goals import NamedGoals
from policies.navigation.steering import Steering
from policies.navigation.ways import descend, remaining, walking_cost

MOVES = ("stop", "move_forward", "turn_left", "turn_right")
GOAL = ("goal_distance", "goal_cos", "goal_sin")
ARRIVED = 0.3
"""Metres from where a plan leads at which the next one is made."""
NARROWER = (1.0, 0.5)
"""By what the clearance is multiplied where no way keeps all of it."""


class Map(Protocol):
    """What is asked of an occupancy map; `maps.occupancy.OccupancyMap` has it."""

    camera: str
    classes: int
    grid: Any

    def begin(self, slots: int) -> Any: ...
    def update(self, memory: Any, observation: Mapping[str, Any], slots: Any = None) -> None: ...
    def occupied(self, memory: Any) -> torch.Tensor: ...
    def explored(self, memory: Any) -> torch.Tensor: ...
    def told(self, memory: Any, category: int, least: int = 1) -> torch.Tensor: ...
    def block(self, memory: Any, slot: int, places: torch.Tensor) -> None: ...


class Frontiers(Protocol):
    """What is asked of a finder of frontiers; `maps.frontier.FrontierFinder` has it."""

    def find(self, grid: Any, memory: Any, slot: int = 0) -> list[Any]: ...
    def nearest(self, frontiers: list[Any]) -> Any: ...
    def best(self, frontiers: list[Any], values: Any, memory: Any, slot: int = 0) -> Any: ...


@dataclass
class Episode:
    """What the explorer keeps of one episode beside its map.

    Attributes:
        goal: the number of the category that is looked for; None where a point is.
        spin: turns that are left of the first look around.
        plan: what remains from each cell on the way there is now; None: a new one is due.
        kind: what the plan leads to: `object`, `point` or `frontier`.
        age: steps since the plan was made. known: cells of the wanted object when it was made.
        target: (2,) the point, or the middle of the frontier, that the plan leads to.
        avoided: (K, 2) middles of frontiers that turned out not to be reachable.
        failed: (F, 3) where it was and looked when a step led nowhere.
        walked: where it has been. edges: the frontiers when the plan was made.
        last: the agent and the movement before, to notice that a step failed.
    """

    goal: int | None = None
    spin: int = 0
    plan: np.ndarray | None = None
    kind: str = ""
    age: int = 0
    known: int = 0
    target: np.ndarray | None = None
    avoided: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    failed: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    walked: list[np.ndarray] = field(default_factory=list)
    edges: list[Any] = field(default_factory=list)
    last: tuple[np.ndarray, str] | None = None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)


class FrontierExplorer(Policy):
    """Explores until it sees what it looks for, goes there and stops.

    Args:
        embodiment: whose actions are `stop`, `move_forward`, `turn_left`, `turn_right`, and maybe more.
        grid: the occupancy map; with `classes` where objects are looked for.
        frontiers: finds its edges.
        goals: which category an instruction names; None: only points are gone to.
        values: VLFM's value map, and `scorer`: what scores a picture for a text. With both the frontier with the best
            value is chosen, without them the nearest.
        forward, turn: of the body, metres and degrees.
        radius, comfort: metres that ways keep from obstacles, and would like to.
        reach: metres from an object's nearest cell at which it stops.
        near: metres from a point at which it stops.
        sure: points on the map that make an object believed.
        opaque: the category of walls, through which nothing is reached.
        patience: steps after which it plans anew.
        picture: draws its map for videos (`maps.pictures.MapPicture`); None: nothing does.
        unknown: what a metre costs on the way to a point where nobody has looked; where it is free it costs 1.

    Raises:
        ValueError: a body without these actions, without depth, or that sees neither point nor categories.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        grid: Map,
        frontiers: Frontiers,
        goals: NamedGoals | None = None,
        values: Any = None,
        scorer: Any = None,
        forward: float = 0.25,
        turn: float = 30.0,
        radius: float = 0.2,
        comfort: float = 0.45,
        reach: float = 0.85,
        near: float = 0.18,
        sure: int = 3,
        opaque: int = 1,
        patience: int = 8,
        unknown: float = 1.5,
        picture: Any = None,
    ) -> None:
        names = embodiment.action.names
        if embodiment.action.kind != "categorical" or not set(MOVES) <= set(names):
            raise ValueError(f"the explorer acts by {', '.join(MOVES)}; {embodiment.name} has {', '.join(names[:8])}")
        camera = next((camera for camera in embodiment.cameras if camera.name == grid.camera), None)
        if camera is None or not camera.depth:
            raise ValueError(
                f"the explorer needs depth from the camera '{grid.camera}': add env.make.body.outputs=[rgb,depth]"
            )
        if (values is None) != (scorer is None):
            raise ValueError("the explorer's values need a scorer, and its scorer values: give both or neither")
        self.embodiment = embodiment
        self.grid, self.frontiers, self.goals, self.values, self.scorer = grid, frontiers, goals, values, scorer
        self.radius, self.comfort, self.reach, self.near = radius, comfort, reach, near
        self.sure, self.opaque, self.patience, self.unknown = sure, opaque, patience, unknown
        self.picture = picture
        self.steering = Steering(forward, math.radians(turn), grid.grid.size, grid.grid.resolution)
        felt = embodiment.state.names if embodiment.state else ()
        self.point = [felt.index(name) for name in GOAL] if set(GOAL) <= set(felt) else None
        self.episodes: list[Episode] = []

    def reset(self, slots: int) -> None:
        self.episodes = [Episode() for _ in range(slots)]
        self.memory = self.grid.begin(slots)
        self.worth = None if self.values is None else self.values.begin(slots)

    def start(self, slot: int, seed: int, task: str) -> None:
        self.episodes[slot] = Episode(rng=np.random.default_rng([seed, *task.encode()]))
        self.memory.reset([slot])
        if self.worth is not None:
            self.worth.reset([slot])

    def act(self, observations: Observation, slots: Sequence[int]) -> np.ndarray:
        texts = observations[TASK]
        self._look(observations, slots, texts)
        states = np.asarray(observations[STATE], float)
        assert self.embodiment is not None
        names = self.embodiment.action.names
        return np.array([[names.index(self._decide(s, states[row]))] for row, s in enumerate(slots)], np.float32)

    def drawings(self, slot: int) -> Drawings:
        """Its map with the way walked, the way it means to go, and the frontiers that were left."""
        if self.picture is None or self.episodes[slot].last is None:
            return {}
        episode, way = self.episodes[slot], None
        if episode.plan is not None:
            row, column = self.steering.cell(episode.walked[-1])
            way = self.steering.centres(descend(episode.plan, (int(row), int(column))))
        drawn = self.picture.draw(
            self.grid, self.memory, slot,
            walked=np.array(episode.walked), frontiers=episode.edges if episode.kind == "frontier" else (),
            way=way, goal=None if way is None else way[-1],
            values=None if self.values is None else (self.values, self.worth),
        )  # fmt: skip
        return {"map": drawn}

    # what is seen

    def _look(self, observations: Observation, slots: Sequence[int], texts: Sequence[str]) -> None:
        """Write what all slots see into their maps; an episode that begins also reads what it is to look for."""
        seen = {key: value for key, value in observations.items() if key != TASK}
        semantic = SEMANTIC + self.grid.camera
        fresh = [row for row, slot in enumerate(slots) if self.episodes[slot].last is None]
        if self.point is None:
            if self.goals is None or not self.grid.classes:
                raise ValueError("this explorer knows no objects, and the state has no goal: give it goals and classes")
            if semantic not in seen:
                raise ValueError(
                    f"the explorer looks for objects in {semantic}: add env.make.body.outputs=[rgb,depth,semantic]"
                )
            for row in fresh:
                self.episodes[slots[row]].goal = self.goals.ids[self.goals.find(texts[row])]
        elif self.grid.classes and semantic not in seen:
            seen[semantic] = np.full(np.shape(seen[DEPTH + self.grid.camera]), -1)  # who goes to a point needs none
        for row in fresh:
            self.episodes[slots[row]].spin = round(2 * math.pi / self.steering.turn)
        self.grid.update(self.memory, seen, slots)
        if self.values is not None:
            seen["observation.value"] = self.scorer.score(observations, texts)
            self.values.update(self.worth, seen, slots)

    # what is done

    def _decide(self, slot: int, state: np.ndarray) -> str:
        episode = self.episodes[slot]
        agent = self.memory["agent"][slot].double().numpy()
        episode.walked.append(agent[:2])
        self._learn(episode, slot, agent)
        name = self._next(episode, slot, agent, state)
        episode.last = agent, name
        episode.age += 1
        return name

    def _learn(self, episode: Episode, slot: int, agent: np.ndarray) -> None:
        """A step that led nowhere met something that no view showed."""
        if episode.last is None or episode.last[1] != "move_forward":
            return
        before, step = episode.last[0], self.steering.forward
        if np.linalg.norm(agent[:2] - before[:2]) < 0.2 * step:
            ahead = agent[:2] + (self.radius + 0.1) * np.array([math.cos(agent[2]), math.sin(agent[2])])
            self.grid.block(self.memory, slot, torch.tensor(ahead[None], dtype=torch.float32))
            episode.failed = np.concatenate([episode.failed, agent[None]])
            episode.plan = None

    def _next(self, episode: Episode, slot: int, agent: np.ndarray, state: np.ndarray) -> str:
        if self.point is not None:
            away, cosine, sine = state[self.point]
            if away < self.near:
                return "stop"
            angle = agent[2] + math.atan2(sine, cosine)
            episode.target = agent[:2] + away * np.array([math.cos(angle), math.sin(angle)])
            occupied = self.grid.occupied(self.memory)[slot].numpy()
            if away < 2 * self.steering.forward + self.near and self.steering.clear(
                occupied, agent[:2], episode.target
            ):
                turns = self.steering.to_point(episode.target, agent, self.near, episode.failed)
                if turns is not None:
                    return _movement(turns)
        if episode.spin and not (self.point is None and self._seen(episode, slot).any()):
            episode.spin -= 1
            return "turn_left"
        for _ in range(3):
            if self._is_due(episode, slot, agent):
                self._plan(episode, slot, agent)
            if episode.plan is None:
                break
            if episode.kind == "object" and self._remains(episode, agent) < self.grid.grid.resolution / 2:
                return "stop"
            turns = self.steering.towards(episode.plan, agent, episode.failed)
            if turns is not None:
                return _movement(turns)
            if episode.kind == "object" and self._remains(episode, agent) < ARRIVED:
                return "stop"  # as near as steps of this length come
            self._give_up(episode)
        return "move_forward" if episode.rng.random() < 0.5 else "turn_left"

    def _seen(self, episode: Episode, slot: int) -> np.ndarray:
        """(S, S), bool: where the wanted object is."""
        assert episode.goal is not None
        return self.grid.told(self.memory, episode.goal, self.sure)[slot].numpy()

    def _remains(self, episode: Episode, agent: np.ndarray) -> float:
        assert episode.plan is not None
        return float(self.steering.left_over(episode.plan, agent[None, :2])[0])

    def _is_due(self, episode: Episode, slot: int, agent: np.ndarray) -> bool:
        if episode.plan is None or episode.age >= self.patience:
            return True
        if episode.goal is not None and int(self._seen(episode, slot).sum()) > episode.known:
            return True
        return episode.kind == "frontier" and self._remains(episode, agent) < ARRIVED

    def _give_up(self, episode: Episode) -> None:
        if episode.target is not None and episode.kind == "frontier":
            episode.avoided = np.concatenate([episode.avoided, episode.target[None]])
        episode.plan = None

    def _plan(self, episode: Episode, slot: int, agent: np.ndarray) -> None:
        """Make a field that leads to the object or point, or to a frontier while there is none."""
        episode.age, episode.plan = 0, None
        occupied = self.grid.occupied(self.memory)[slot].numpy()
        known = self.grid.explored(self.memory)[slot].numpy()
        row, column = self.steering.cell(agent[:2])
        resolution = self.grid.grid.resolution
        goals = np.zeros_like(known)
        if self.point is None:
            wanted = self._seen(episode, slot)
            episode.known = int(wanted.sum())
        for share in NARROWER:
            unknown = self.unknown if self.point is not None else None
            cost = walking_cost(occupied, known, resolution, share * self.radius, self.comfort, unknown)
            around = np.hypot(*np.ogrid[-row : len(known) - row, -column : len(known) - column])
            here = (around * resolution <= self.radius + 0.15) & ~occupied & ~np.isfinite(cost)
            cost[here] = 4.0  # wherever it stands it can leave
            if self.point is not None:
                assert episode.target is not None
                goals[tuple(self.steering.cell(episode.target))] = True
                cost[goals] = 1.0
                known[row, column] = True
                field = remaining(cost, goals, resolution, known)
                episode.kind = "point"
            elif wanted.any():
                goals = self._stands(wanted, np.isfinite(cost), slot)
                field = remaining(cost, goals, resolution)
                episode.kind = "object"
            else:
                field = np.full(cost.shape, np.inf)
            if np.isfinite(field[row, column]):
                episode.plan = field
                return
        if self.point is None:
            self._explore(episode, slot, cost)

    def _stands(self, wanted: np.ndarray, walkable: np.ndarray, slot: int) -> np.ndarray:
        """(S, S), bool: where one can stand within reach of a wanted cell, without a wall between."""
        resolution = self.grid.grid.resolution
        away, nearest = ndimage.distance_transform_edt(~wanted, return_indices=True)
        cells = np.argwhere(walkable & (away * resolution <= self.reach))
        wall = self.grid.told(self.memory, self.opaque, self.sure)[slot].numpy() & ~wanted
        ends = nearest[:, cells[:, 0], cells[:, 1]].T
        between = cells[:, None] + np.linspace(0, 1, 16)[:, None] * (ends - cells)[:, None]
        at = np.round(between).astype(int)
        free = ~wall[at[..., 0], at[..., 1]].any(1)
        found = np.zeros_like(walkable)
        found[tuple(cells[free].T)] = True
        return found

    def _explore(self, episode: Episode, slot: int, cost: np.ndarray) -> None:
        """A field that leads to the frontier that is chosen."""
        found = episode.edges = self.frontiers.find(self.grid, self.memory, slot)
        kept = [one for one in found if not (np.linalg.norm(episode.avoided - one.middle, axis=1) < 0.3).any()]
        if self.values is None:
            chosen = self.frontiers.nearest(kept)
        else:
            chosen = self.frontiers.best(kept, self.values, self.worth, slot)
        if chosen is None:
            episode.avoided = np.zeros((0, 2))
            return
        goals = np.zeros(cost.shape, bool)
        goals[tuple(self.steering.cell(chosen.middle))] = True
        cost = np.where(goals, np.minimum(cost, 4.0), cost)
        episode.plan, episode.kind = remaining(cost, goals, self.grid.grid.resolution), "frontier"
        episode.target = np.asarray(chosen.middle, float)


def _movement(turns: int) -> str:
    return "move_forward" if turns == 0 else "turn_left" if turns > 0 else "turn_right"
