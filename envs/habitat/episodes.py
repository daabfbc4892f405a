"""Episode files in habitat-lab's format: PointNav, ObjectNav, VLN-CE (R2R, RxR) and EQA, as .json.gz or .json.

A file is `{"episodes": [...]}` with what all of them share beside it (`goals_by_category`, vocabularies). A split may
be spread over `content/<scene>.json.gz` beside a file that has no episodes of its own. Nothing here needs habitat-sim,
and nothing is unpickled. Positions and rotations are turned into the frame of `envs.house` (z up) as they are read.

What is wrong in a file is one line with its name and the episode's id; `on_fault="skip"` leaves such episodes out and
counts them.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodied.building import nearest
from envs.habitat.engine import from_habitat, heading_of


@dataclass(frozen=True)
class Goal:
    """Somewhere to go.

    Attributes:
        position: (3,) metres.
        radius: metres within which an episode of its file counts as there; None where the file does not say.
        object_id: of the object that it is, as instance pictures hold it; None for a place.
        category: the object's.
        views: (K, 3) from where the object is seen (ObjectNav's `view_points`), K may be 0.
    """

    position: np.ndarray
    radius: float | None = None
    object_id: int | None = None
    category: str | None = None
    views: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


@dataclass(frozen=True)
class Episode:
    """One episode of a file.

    Attributes:
        id: its `episode_id`, a str.
        scene: its `scene_id`, as the file has it.
        start: (3,) metres.
        heading: radians, counter-clockwise from +x.
        goals: any of which will do; none where only the question matters.
        info: what the file says beside it, such as `geodesic_distance`.
        instruction: of VLN, or the question of EQA, in words.
        tokens: the same as the file's vocabulary has it.
        category: what to find (ObjectNav).
        answer: of EQA.
        question_type: of EQA.
        reference: (R, 3) the path that was described (VLN).
        trajectory: of VLN, R2R's `path_id`.
        actions: a shortest way in actions' numbers, where the file has one.
    """

    id: str
    scene: str
    start: np.ndarray
    heading: float
    goals: tuple[Goal, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    tokens: tuple[int, ...] = ()
    category: str | None = None
    answer: str | None = None
    question_type: str | None = None
    reference: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    trajectory: str | None = None
    actions: tuple[int, ...] = ()

    @property
    def points(self) -> np.ndarray:
        """(G, 3) what distances are measured to: all view points where there are any, else the goals' positions."""
        parts = [goal.views if len(goal.views) else goal.position[None] for goal in self.goals]
        return np.concatenate(parts) if parts else np.zeros((0, 3))


@dataclass(frozen=True)
class Episodes(Sequence[Episode]):
    """What was read.

    Attributes:
        episodes: those that are well formed, in the file's order.
        vocabulary: words of instructions or questions by number; empty where the file has none.
        answers: EQA's answers by number.
        faults: one line per episode that was left out.
    """

    episodes: tuple[Episode, ...]
    vocabulary: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def __getitem__(self, place: Any) -> Any:
        return self.episodes[place]

    def __len__(self) -> int:
        return len(self.episodes)


class Malformed(ValueError):
    """What is wrong with a value; the reader adds file and episode."""


def read(
    path: str | Path, task: str, scenes: Sequence[str] | None = None, on_fault: str = "error", most: int | None = None
) -> Episodes:
    """Read a file, and the `content` folder beside it where it has no episodes of its own.

    Args:
        path: `.json.gz` or `.json`.
        task: one of `TASKS`.
        scenes: only those, by the stem of their file (`17DRP5sb8fy`).
        on_fault: `error` or `skip`.
        most: read at most so many.

    Raises:
        ValueError: it is damaged, no such file of episodes, or (with `error`) an episode is malformed: with its name,
            and the episode's id.
    """
    path = Path(path)
    if task not in TASKS:
        raise ValueError(f"there is no task '{task}'{nearest(task, TASKS)}")
    if on_fault not in ("error", "skip"):
        raise ValueError(f"on_fault is one of error, skip, got '{on_fault}'")
    found: list[Episode] = []
    faults: list[str] = []
    words: list[tuple[str, ...]] = [(), ()]
    for file in files_of(path, scenes):
        content = load(file)
        if not isinstance(content, dict) or not isinstance(content.get("episodes"), list):
            raise ValueError(f"{file} has no list of episodes: it is no episode file of habitat-lab")
        for place, key in enumerate(("instruction_vocab" if task == "vln" else "question_vocab", "answer_vocab")):
            if not words[place] and isinstance(content.get(key), dict):
                words[place] = tuple(map(str, content[key].get("word_list", ())))
        shared = Shared(content, file)
        for place, row in enumerate(content["episodes"]):
            if most is not None and len(found) >= most:
                break
            if scenes is not None and isinstance(row, dict) and Path(str(row.get("scene_id"))).stem not in scenes:
                continue
            try:
                found.append(one(row, task, shared))
            except Malformed as fault:
                name = f"episode {row['episode_id']}" if isinstance(row, dict) and "episode_id" in row else ""
                problem = f"{file}, {name or f'row {place}'}: {fault}"
                if on_fault == "error":
                    raise ValueError(problem) from None
                faults.append(problem)
    return Episodes(tuple(found), words[0], words[1], tuple(faults))


def files_of(path: Path, scenes: Sequence[str] | None) -> Iterator[Path]:
    """The files of a split: itself, and those in `content` beside it."""
    parts = path.parent / "content"
    yield path
    if parts.is_dir():
        for file in sorted([*parts.glob("*.json.gz"), *parts.glob("*.json")]):
            if scenes is None or file.name.split(".")[0] in scenes:
                yield file


def load(path: Path) -> Any:
    """JSON, compressed or not.

    Raises:
        ValueError: it is damaged.
        FileNotFoundError: it is missing.
    """
    data = path.read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return json.loads(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}): it is damaged or was cut short") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): it is damaged or was cut short") from None


def ground_truth(path: str | Path) -> dict[str, tuple[np.ndarray, tuple[int, ...]]]:
    """VLN-CE's `<split>_gt.json.gz`: (L, 3) where the shortest-path follower was, and its actions, by episode id.

    Raises:
        ValueError: it is damaged, or an episode is malformed.
    """
    content = load(Path(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no ground truth of VLN-CE: it should be an object by episode id")
    found = {}
    for name, row in content.items():
        try:
            if not isinstance(row, dict):
                raise Malformed("it should be an object")
            where = vectors(need(row, "locations"), "locations")
            found[str(name)] = (where, numbers(row.get("actions", []), "actions"))
        except Malformed as fault:
            raise ValueError(f"{path}, episode {name}: {fault}") from None
    return found


class Shared:
    """What the episodes of a file share: goals by category, read once each."""

    def __init__(self, content: Mapping[str, Any], file: Path) -> None:
        table = content.get("goals_by_category")
        self.rows: Mapping[str, Any] = table if isinstance(table, dict) else {}
        self.read: dict[str, tuple[Goal, ...]] = {}

    def goals(self, scene: str, category: str) -> tuple[Goal, ...]:
        """Those of a category in a scene."""
        key = f"{scene.rsplit('/', 1)[-1]}_{category}"
        if key not in self.read:
            if not isinstance(self.rows.get(key), list) or not self.rows[key]:
                raise Malformed(f"goals_by_category has no '{key}'")
            self.read[key] = tuple(map(goal, self.rows[key]))
        return self.read[key]


def one(row: Any, task: str, shared: Shared) -> Episode:
    """An episode from its row."""
    if not isinstance(row, dict):
        raise Malformed(f"it should be an object, got {str(row)[:40]}")
    name, scene = need(row, "episode_id"), need(row, "scene_id")
    if not isinstance(name, str | int) or isinstance(name, bool) or not isinstance(scene, str) or not scene:
        raise Malformed(f"episode_id and scene_id should be names, got {str(name)[:40]} and {str(scene)[:40]}")
    rotation = np.asarray(floats(need(row, "start_rotation"), 4, "start_rotation"))
    length = float(np.linalg.norm(rotation))
    if abs(length - 1) > 0.01:
        raise Malformed(f"start_rotation should be a quaternion of length 1, got length {length:.3g}")
    info = row.get("info")
    if info is not None and not isinstance(info, dict):
        raise Malformed("info should be an object")
    for key in ("geodesic_distance", "euclidean_distance"):
        value = (info or {}).get(key)
        if value is not None and (not isinstance(value, int | float) or not math.isfinite(value) or value < 0):
            raise Malformed(f"info.{key} should be a distance, got {value}")
    return Episode(
        id=str(name),
        scene=scene,
        start=vector(need(row, "start_position"), "start_position"),
        heading=heading_of(rotation / length),
        info=info or {},
        **TASKS[task](row, shared),
    )


def pointnav(row: Mapping[str, Any], shared: Shared) -> dict[str, Any]:
    return {"goals": goals_of(row)} | shortest(row)


def objectnav(row: Mapping[str, Any], shared: Shared) -> dict[str, Any]:
    category = need(row, "object_category")
    if not isinstance(category, str) or not category:
        raise Malformed(f"object_category should be a name, got {category}")
    goals = goals_of(row) if row.get("goals") else shared.goals(row["scene_id"], category)
    return {"goals": goals, "category": category} | shortest(row)


def vln(row: Mapping[str, Any], shared: Shared) -> dict[str, Any]:
    told = need(row, "instruction")
    if not isinstance(told, dict) or not isinstance(told.get("instruction_text"), str):
        raise Malformed("instruction should have an instruction_text")
    path = row.get("reference_path")
    return {
        "goals": goals_of(row),
        "instruction": told["instruction_text"].strip(),
        "tokens": numbers(told.get("instruction_tokens") or [], "instruction_tokens"),
        "reference": vectors(path, "reference_path") if path else np.zeros((0, 3)),
        "trajectory": None if row.get("trajectory_id") is None else str(row["trajectory_id"]),
    }


def eqa(row: Mapping[str, Any], shared: Shared) -> dict[str, Any]:
    asked = need(row, "question")
    if not isinstance(asked, dict):
        raise Malformed("question should be an object")
    for key in ("question_text", "answer_text"):
        if not isinstance(asked.get(key), str) or not asked[key].strip():
            raise Malformed(f"question.{key} should be words, got {asked.get(key)}")
    kind = asked.get("question_type")
    goals = goals_of(row) if row.get("goals") else ()
    if not any(len(goal.views) for goal in goals):  # an object's middle is no place to walk to
        goals = walked_to(row) or goals
    return {
        "goals": goals,
        "instruction": asked["question_text"].strip(),
        "tokens": numbers(asked.get("question_tokens") or [], "question_tokens"),
        "answer": asked["answer_text"].strip(),
        "question_type": None if kind is None else str(kind),
    } | shortest(row)


TASKS: dict[str, Callable[[Mapping[str, Any], Shared], dict[str, Any]]] = {
    "pointnav": pointnav,
    "objectnav": objectnav,
    "vln": vln,
    "eqa": eqa,
}


def goals_of(row: Mapping[str, Any]) -> tuple[Goal, ...]:
    rows = need(row, "goals")
    if not isinstance(rows, list) or not rows:
        raise Malformed("it has no goals")
    return tuple(map(goal, rows))


def goal(row: Any) -> Goal:
    if not isinstance(row, dict):
        raise Malformed("a goal should be an object")
    radius, number, seen = row.get("radius"), row.get("object_id"), row.get("view_points") or []
    if radius is not None and (not isinstance(radius, int | float) or not radius >= 0):
        raise Malformed(f"a goal's radius should be a distance, got {radius}")
    try:  # ObjectNav's have an agent_state, EQA's are one
        places = [view.get("agent_state", view)["position"] for view in seen]
    except (AttributeError, KeyError, TypeError):
        raise Malformed("a goal's view_points should have an agent_state with a position") from None
    if number is not None:
        try:
            number = int(number)
        except (TypeError, ValueError):
            raise Malformed(f"a goal's object_id should be a number, got {number}") from None
    category = row.get("object_category")
    return Goal(
        vector(need(row, "position"), "a goal's position"),
        None if radius is None else float(radius),
        number,
        None if category is None else str(category),
        vectors(places, "view_points") if places else np.zeros((0, 3)),
    )


def shortest(row: Mapping[str, Any]) -> dict[str, Any]:
    """The first of `shortest_paths`: actions, or steps with an `action`."""
    paths = row.get("shortest_paths")
    if not paths or not isinstance(paths, list) or not isinstance(paths[0], list):
        return {}
    steps = [step.get("action") if isinstance(step, dict) else step for step in paths[0]]
    return {"actions": numbers([step for step in steps if step is not None], "shortest_paths")}


def walked_to(row: Mapping[str, Any]) -> tuple[Goal, ...]:
    """Where the first of `shortest_paths` ends, where its steps have positions: MP3D-EQA's paths end at a good view."""
    paths = row.get("shortest_paths")
    last = paths[0][-1] if isinstance(paths, list) and paths and isinstance(paths[0], list) and paths[0] else None
    if not isinstance(last, dict) or "position" not in last:
        return ()
    return (Goal(vector(last["position"], "the end of shortest_paths")),)


def need(row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise Malformed(f"it has no {key}")
    return row[key]


def floats(value: Any, count: int, name: str) -> list[float]:
    good = isinstance(value, list) and len(value) == count
    if not good or not all(type(v) in (int, float) and math.isfinite(v) for v in value):
        raise Malformed(f"{name} should be {count} finite numbers, got {str(value)[:60]}")
    return [float(v) for v in value]


def numbers(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(v) is int for v in value):
        raise Malformed(f"{name} should be whole numbers, got {str(value)[:60]}")
    return tuple(value)


def vector(value: Any, name: str) -> np.ndarray:
    return from_habitat(np.array(floats(value, 3, name)))


def vectors(value: Any, name: str) -> np.ndarray:
    """(K, 3) from a list of three numbers each."""
    if not isinstance(value, list):
        raise Malformed(f"{name} should be a list of places, got {str(value)[:60]}")
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 3 or not np.isfinite(array).all():
        raise Malformed(f"{name} should be finite x, y, z for each place, got {str(value)[:60]}")
    return from_habitat(array)
