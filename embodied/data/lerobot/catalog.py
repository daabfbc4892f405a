"""What a LeRobot dataset says of itself: where each episode lies, its tasks and features; v3.0 and v2.1.

Version 2.1 (`meta/{episodes,tasks,episodes_stats}.jsonl`, one parquet file and one video per episode) is described in
the same terms, so that the reader knows one layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embodied.building import nearest
from embodied.data.lerobot.format import COLLECTION, INFO, TASKS, Feature
from embodied.data.lerobot.staging import STAGING, staged
from embodied.files import read_json

LEGACY_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
LEGACY_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
LEGACY_STATS = "meta/episodes_stats.jsonl"


@dataclass(frozen=True)
class Episode:
    """Where an episode lies.

    Attributes:
        index: its number in the dataset.
        length: frames.
        tasks: its instructions.
        data: the parquet file that holds its rows, from row `first_row` on.
        videos: per video feature the MP4 and the second at which the episode begins in it.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    first_row: int
    videos: Mapping[str, tuple[Path, float]]


@dataclass(frozen=True)
class Catalog:
    """A dataset's description.

    Attributes:
        version: `v3.0`, `v2.1`, ...
        robot: `robot_type`.
        tasks: the instruction of each `task_index`.
    """

    root: Path
    version: str
    robot: str
    fps: float
    features: Mapping[str, Feature]
    tasks: tuple[str, ...]
    episodes: tuple[Episode, ...]

    @property
    def frames(self) -> int:
        return sum(episode.length for episode in self.episodes)


def load_catalog(root: str | Path) -> Catalog:
    """Read a dataset's description.

    Raises:
        ValueError: there is no dataset, it was never finalised, its version is unknown, or a file in `meta` is damaged.
        FileNotFoundError: a file in `meta` is missing.
    """
    root = Path(root)
    _is_dataset(root)
    info = read_json(root / INFO)
    try:
        version, features = str(info["codebase_version"]), info["features"]
        major = version.lstrip("v").split(".")[0]
        if major not in ("2", "3"):
            raise ValueError(f"{root} is a LeRobot dataset of version {version}; versions 2.1 and 3.0 can be read")
        tasks, episodes = (_episodes_v3 if major == "3" else _episodes_v2)(root, info)
        return Catalog(
            root=root,
            version=version,
            robot=str(info.get("robot_type") or "unknown"),
            fps=float(info["fps"]),
            features={key: Feature.from_dict(record) for key, record in features.items()},
            tasks=tuple(tasks),
            episodes=tuple(episodes),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{root}: the dataset's description in meta is not complete ({error!r})") from None


def read_parquet(file: Path, columns: list[str] | None = None) -> pa.Table:
    """A parquet file.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged or was cut short, with its name.
    """
    if not file.is_file():
        raise FileNotFoundError(2, "missing file of the dataset", str(file))
    try:
        return pq.read_table(file, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged or was cut short ({_first_line(error)})") from None


def _is_dataset(root: Path) -> None:
    if not root.exists():
        siblings = [path.name for path in root.parent.glob("*/") if path.is_dir()] if root.parent.is_dir() else []
        near = nearest(root.name, siblings)
        raise ValueError(f"there is no dataset at {root}{near if near.endswith('?') else ''}")
    if (root / INFO).is_file():
        return
    if (root / COLLECTION).is_file() or (root / STAGING).is_dir():
        raise ValueError(
            f"{root} is an unfinished collection ({len(staged(root))} episodes there): run its command again, "
            f"or make a dataset of what is there with embodied-dataset action=finalize root={root}"
        )
    inside = sorted(path.parent.parent.name for path in root.glob("*/meta/info.json"))
    hint = f"; there are datasets in it: {', '.join(inside[:5])}" if inside else ""
    raise ValueError(f"{root} is not a LeRobot dataset: it has no {INFO}{hint}")


def _episodes_v3(root: Path, info: Mapping[str, Any]) -> tuple[list[str], list[Episode]]:
    table = read_parquet(root / TASKS)
    # the instruction was a nameless pandas index until LeRobot 0.4, and is one named `task` since
    column = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if column is None:
        raise ValueError(f"{root / TASKS} has no column of instructions (task), only {', '.join(table.column_names)}")
    tasks = _by_index(zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = []
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(
            2, "missing file of the dataset", str(root / "meta/episodes/chunk-000/file-000.parquet")
        )
    for file in files:
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged or was cut short ({_first_line(error)})") from None
        rows += read_parquet(file, [name for name in names if not name.startswith("stats/")]).to_pylist()
    rows = [row for row in rows if row["episode_index"] < info["total_episodes"]]
    rows.sort(key=lambda row: row["episode_index"])
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    first: dict[Path, int] = {}
    episodes = []
    for row in rows:
        data = root / info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        start = first.setdefault(data, row["dataset_from_index"])
        places = {key: (_video_v3(root, info, row, key), row[f"videos/{key}/from_timestamp"]) for key in videos}
        tasks_of = tuple(row["tasks"])
        episodes.append(
            Episode(row["episode_index"], row["length"], tasks_of, data, row["dataset_from_index"] - start, places)
        )
    return tasks, episodes


def _video_v3(root: Path, info: Mapping[str, Any], row: Mapping[str, Any], key: str) -> Path:
    chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
    return root / info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file)


def _episodes_v2(root: Path, info: Mapping[str, Any]) -> tuple[list[str], list[Episode]]:
    tasks = _by_index((row["task_index"], row["task"]) for row in json_lines(root / "meta/tasks.jsonl"))
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    data_path, video_path = info.get("data_path") or LEGACY_DATA, info.get("video_path") or LEGACY_VIDEO
    episodes = []
    for row in json_lines(root / "meta/episodes.jsonl"):
        index = row["episode_index"]
        names = {"episode_chunk": index // info.get("chunks_size", 1000), "episode_index": index}
        places = {key: (root / video_path.format(video_key=key, **names), 0.0) for key in videos}
        data = root / data_path.format(**names)
        episodes.append(Episode(index, row["length"], tuple(row["tasks"]), data, 0, places))
    return tasks, sorted(episodes, key=lambda episode: episode.index)


def json_lines(file: Path) -> list[dict[str, Any]]:
    """A JSON value per line.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: a line is not JSON, with its number.
    """
    if not file.is_file():
        raise FileNotFoundError(2, "missing file of the dataset", str(file))
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{file}, line {number}, is not valid JSON ({error})") from None
    return rows


def _by_index(pairs: Any) -> list[str]:
    found = dict(pairs)
    return [found.get(index, "") for index in range(max(found, default=-1) + 1)]


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
