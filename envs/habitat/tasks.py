"""PointNav, ObjectNav, VLN-CE's R2R and MP3D-EQA on habitat-sim, from episode files in habitat-lab's format.

The rest - observations, measures, the oracle that follows the shortest way greedily - is that of the tasks in houses
(`envs.house.tasks`), so an agent runs on either. Predictions are in Habitat's own frame, as its files and
`embodied-score` have them.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from embodied.spec import TASK, Camera, Embodiment
from envs.habitat import episodes as files
from envs.habitat.engine import to_habitat
from envs.habitat.scenes import find
from envs.habitat.simulator import FloorState, HabitatSimulator, open_engine
from envs.house.naming import article, called
from envs.house.routes import dense
from envs.house.simulator import AgentState, Body, camera_pose, relative
from envs.house.tasks.base import CAMERA, Episode, HouseTask
from envs.house.walk import Walk

TRIED = 1000
"""So many episodes in a row are left out before a run is given up."""


class FloorWalk(Walk):
    """A walk whose positions have heights."""

    def add(self, position: np.ndarray, distance: float) -> None:
        x, y, z = (float(value) for value in position)
        self.positions.append((x, y, z))
        self.distances.append(float(distance))


class HabitatTask(HouseTask):
    """The common part; see `HouseTask` for actions, observations and `info`, which has `scene` and `episode_id` here.

    The episode of seed s is number s, modulo their count, in the order of the file. With `on_fault=skip`, the next one
    that can be run takes the place of one that cannot; `skipped` lists those.

    Args:
        episodes: the file of episodes, `.json.gz` or `.json`.
        scenes: the folder that has `mp3d`, `hm3d`, ... in it.
        on_fault: `error`: an episode that is malformed, whose scene is missing, that starts off the navigation mesh, or
            whose goal cannot be reached, ends the run; `skip`: it is left out.
        python, address, token_file, device, dataset, navmesh, cell: where habitat-sim is, see `open_engine`.
        body, max_steps, success_distance, wander: see `HouseTask`.

    Attributes:
        skipped: one line per episode that was left out.

    Raises:
        ValueError: an unknown option, a file without a single good episode; at the first reset, no habitat-sim.
    """

    perturbable: ClassVar[tuple[str, ...]] = ()
    file_task: ClassVar[str]

    def __init__(
        self,
        episodes: str,
        scenes: str = "data/scene_datasets",
        on_fault: str = "error",
        python: str | None = None,
        address: str | None = None,
        token_file: str | None = None,
        device: int = -1,
        dataset: str | None = None,
        navmesh: str = "file",
        cell: float = 0.05,
        body: Body | None = None,
        max_steps: int = 500,
        success_distance: float | None = None,
        wander: float = 0.0,
        perturb: Mapping[str, float] | None = None,
    ) -> None:
        self.file, self.scenes, self.on_fault = str(episodes), scenes, on_fault
        self.read = files.read(episodes, self.file_task, on_fault=on_fault)
        self.skipped = list(self.read.faults)
        if not self.read:
            raise ValueError(f"{episodes} has no episode of {self.name} that can be run, {len(self.skipped)} faults")
        self.own = self.actions()  # type: ignore[misc]
        super().__init__(body, "test", None, max_steps, success_distance, wander, perturb)
        self._where: dict[str, Any] = {
            "python": python, "address": address, "token_file": token_file, "device": device, "dataset": dataset,
            "navmesh": navmesh, "cell": cell,
        }  # fmt: skip
        b, old = self.body, self.embodiment
        camera = Camera(
            CAMERA,
            b.height,
            b.width,
            f"habitat-sim:fov={b.field_of_view:g},height={b.camera_height:g}",
            "depth" in b.outputs,
        )
        self.embodiment = Embodiment(old.name, old.action, old.state, (camera,), old.rate)
        parts = dict(self.observation_space.spaces)  # type: ignore[attr-defined]
        letters = set(string.printable).union(*(row.instruction for row in self.read))
        self.observation_space = spaces.Dict(parts | {TASK: spaces.Text(10_000, charset="".join(sorted(letters)))})
        self._habitat: HabitatSimulator | None = None
        self._scene = ""

    def actions(self) -> tuple[str, ...]:
        """The task's own actions, some of which are the file's."""
        return type(self).own

    def draw(self, house: Any, rng: np.random.Generator) -> Episode | None:
        raise AssertionError("episodes of a file are not drawn")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the episode of a seed.

        Raises:
            ValueError: another task, an unknown option, a negative seed; an episode that cannot be run (its file, id
                and the reason), unless such are skipped.
        """
        who = type(self).__name__
        if seed is not None and seed < 0:
            raise ValueError(f"{who}: a seed is 0 or more, got {seed}")
        unknown = set(options or {}) - {"task"}
        if unknown or (options or {}).get("task", self.name) != self.name:
            raise ValueError(f"{who}: reset takes the option task, which is {self.name}, got {options}")
        gymnasium.Env.reset(self, seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self.rng = np.random.default_rng([seed, len(self.name)])
        for shift in range(min(TRIED, len(self.read))):
            row: files.Episode = self.read[(seed + shift) % len(self.read)]
            try:
                self.start(row)
                return self.observation(), self.info()
            except files.Malformed as fault:
                problem = f"{self.file}, episode {row.id}: {fault}"
                if self.on_fault == "error":
                    raise ValueError(problem) from None
                self.skipped.append(problem)
        raise ValueError(
            f"{who}: none of the {TRIED} episodes of {self.file} from {seed} on can be run: {self.skipped[-1]}"
        )

    def start(self, row: files.Episode) -> None:
        """Put the agent at the start of a file's episode.

        Raises:
            Malformed: it cannot be run.
        """
        try:
            scene = str(find(row.scene, self.scenes))
        except ValueError as error:
            raise files.Malformed(str(error)) from None
        if self._habitat is None or not self._habitat.engine.open:
            self._habitat = HabitatSimulator(open_engine(scene, self.body, **self._where), self.body)
        elif scene != self._scene:
            self._habitat.load(scene)
        self._scene, self._sim, self.row, self.episode_id = scene, self._habitat, row, row.id  # type: ignore[assignment]
        goals = row.points
        if not len(goals):
            raise files.Malformed("it has no goal to walk to")
        x, y, z = (float(value) for value in row.start)
        begun = FloorState(x, y, row.heading, 0.0, z)
        finder = self._habitat.finder
        if not finder.is_navigable(row.start[None])[0]:
            raise files.Malformed(f"its start {np.round(to_habitat(row.start), 3).tolist()} is off the navigation mesh")
        if not math.isfinite(finder.geodesic(row.start, goals)):
            raise files.Malformed("its goal cannot be reached from its start")
        self.begin(Episode(begun, goals, self.words_of(row)))
        first = self.walk.distances[0]
        self.walk = FloorWalk()
        self.walk.add(begun.position, first)

    def words_of(self, row: files.Episode) -> str:
        """What an episode asks for."""
        return row.instruction

    def pose(self, state: AgentState, start: AgentState) -> np.ndarray:
        pose = camera_pose(flat(state), self.body.camera_height, flat(start))
        pose[2, 3] += state.position[2] - start.position[2]
        return pose

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "success": bool(self.success),
            "task": self.name,
            "scene": self.row.scene,
            "episode_id": self.row.id,
            "collided": self.sim.collided,
            "distance": self.walk.distances[-1],
            "skipped": len(self.skipped),
        }
        if self._over:
            found["measures"] = self.measures()
            found["prediction"] = self.record()
            found["reference"] = self.reference(self.row)
        return found

    def reference(self, row: files.Episode) -> dict[str, Any]:
        """What `embodied-score` needs of an episode; the file itself will do, too."""
        return {"episode_id": row.id, "scene_id": row.scene, "object_category": row.category}

    def record(self) -> dict[str, Any]:
        """The row that `embodied-score` reads; positions have y up, as in the episode file."""
        return super().record() | {"positions": to_habitat(np.array(self.walk.positions)).astype(float).tolist()}

    def close(self) -> None:
        """End the simulator; the environment can be reset again."""
        super().close()
        if self._habitat is not None:
            self._habitat.close()
        self._habitat, self._scene = None, ""


class HabitatPointNav(HabitatTask):
    """Walk to a point given relative to where one stands; success is to stop within 0.2 m (habitat-lab)."""

    name, near, file_task = "pointnav", 0.2, "pointnav"
    senses: ClassVar[tuple[str, ...]] = ("goal_distance", "goal_cos", "goal_sin")
    units: ClassVar[tuple[str, ...]] = ("m", "1", "1")

    def sense(self) -> np.ndarray:
        ahead, left = relative(self.episode.goals[0], self.sim.state)
        far = math.hypot(ahead, left)
        return np.array([far, ahead / far, left / far] if far > 1e-9 else [0.0, 1.0, 0.0])

    def words_of(self, row: files.Episode) -> str:
        return "go to the goal point and stop there"


class HabitatObjectNav(HabitatTask):
    """Find any object of a category; success is to stop within 0.1 m of a view point of one (habitat-lab)."""

    name, near, file_task = "objectnav", 0.1, "objectnav"

    def words_of(self, row: files.Episode) -> str:
        return f"find {article(called(str(row.category)))}"


class HabitatVLN(HabitatTask):
    """Follow an instruction; success is to stop within 3 m of where it leads (VLN-CE).

    Also nDTW and SDTW to the reference path, a point a step; `embodied-score profile=vlnce` takes the locations of
    the file's ground truth instead, as VLN-CE does.
    """

    name, near, file_task = "vln", 3.0, "vln"

    def measures(self) -> dict[str, float]:
        found = super().measures()
        if len(self.row.reference):
            found["ndtw"] = self.walk.likeness(dense(self.row.reference[:, :2], self.body.forward), self.near)
            found["sdtw"] = self.success * found["ndtw"]
        return found


class HabitatEQA(HabitatTask):
    """Answer a question about something to be found; an action of `answer <words>` ends the episode (MP3D-EQA).

    Answers are the file's vocabulary, or where it has none, the answers of its episodes. Success is the right one,
    wherever the agent is. Distances are to where the object is seen, as the goal's view points or else the end of the
    file's shortest path tell it; that is where the oracle turns to the object and answers.
    """

    name, near, file_task = "eqa", 1.0, "eqa"

    def actions(self) -> tuple[str, ...]:
        words = self.read.answers or tuple(sorted({str(row.answer) for row in self.read}))
        return tuple(f"answer {word}" for word in dict.fromkeys(words))

    def start(self, row: files.Episode) -> None:
        if f"answer {row.answer}" not in self.own:
            raise files.Malformed(f"its answer '{row.answer}' is not in answer_vocab")
        self.answered = ""
        super().start(row)

    def decide(self, action: str) -> tuple[bool, bool]:
        self.answered = action.removeprefix("answer ")
        return True, self.answered == self.row.answer

    def arrived(self) -> str:
        """Face the nearest object that can be meant, then answer."""
        here = self.sim.state.position
        things = [goal.position for goal in self.row.goals if len(goal.views)]
        if things:
            ahead, left = relative(min(things, key=lambda at: math.dist(at[:2], here[:2]))[:2], flat(self.sim.state))
            bearing = math.atan2(left, ahead)
            if abs(bearing) > math.radians(self.body.turn) / 2 + 1e-6:
                return "turn_left" if bearing > 0 else "turn_right"
        return f"answer {self.row.answer}"

    def measures(self) -> dict[str, float]:
        found = super().measures()
        kept = {name: found[name] for name in ("success", "distance_to_goal", "path_length")}
        return kept | {"answered": float(self.ended)}

    def record(self) -> dict[str, Any]:
        return {"episode_id": self.row.id, "prediction": self.answered}

    def reference(self, row: files.Episode) -> dict[str, Any]:
        asked = {"question_text": row.instruction, "answer_text": row.answer, "question_type": row.question_type}
        return {"episode_id": row.id, "scene_id": row.scene, "question": asked, "answer": row.answer}


def flat(state: AgentState) -> AgentState:
    """The same in the plan."""
    return AgentState(state.x, state.y, state.heading, state.pitch)
