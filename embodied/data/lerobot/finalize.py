"""Staged episodes into LeRobot v3.0 files.

What is committed is what `meta/info.json` counts. New episodes go to new files, and `info.json` is replaced last, so a
run that is killed anywhere leaves the dataset as it was and the staged episodes where they were; running `finalize`
again sweeps up the uncounted files and does it over. Videos stay one file per episode, which v3.0 allows and which
never needs re-encoding.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied.data.lerobot import stats as statistics
from embodied.data.lerobot.format import (
    DATA_MB,
    DATA_PATH,
    EMBODIMENT,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INDEX_FEATURES,
    INFO,
    RECORDS_PATH,
    STATS,
    TASKS,
    VIDEO_PATH,
    Feature,
    data_schema,
    file_location,
    from_column,
    make_info,
    tasks_table,
    to_column,
)
from embodied.data.lerobot.staging import (
    STAGING,
    committed_records,
    read_staged,
    read_staged_data,
    staged,
    staged_video,
)
from embodied.data.lerobot.video import video_info
from embodied.files import atomic_file, read_json, sync, write_json
from embodied.progress import Progress
from embodied.spec import Embodiment


def finalize(root: str | Path, progress: bool = False) -> int:
    """Turn all staged episodes into part of the dataset, in the order of their numbers; returns how many it now has.

    Call it once no process stages any more. It may be called again after more were staged, and after having been
    killed.

    Raises:
        ValueError: nothing was ever staged, a staged episode is damaged, or episodes have different features.
        OSError: it cannot be written (a full disk); nothing is lost, and it can be called again.
    """
    root = Path(root)
    before = Committed(root)
    numbers = sorted(staged(root) - {row["number"] for row in before.records})
    if not numbers:
        if not before.episodes:
            raise ValueError(f"{root} holds no staged episode: nothing to make a dataset of")
        _remove_staging(root)
        return before.episodes
    before.sweep()
    fresh = [read_staged(root, number) for number in numbers]
    features = _common_features(fresh, before.features, root)
    tasks = list(dict.fromkeys([*before.tasks, *(episode["task"] for episode in fresh)]))
    writer = _DataFiles(root, features, before, progress=len(fresh) if progress else 0)
    rows = [writer.add(episode, tasks.index(episode["task"])) for episode in fresh]
    writer.close()
    for key, feature in features.items():
        if feature.dtype == "video" and feature.info is None:
            features[key] = Feature(
                feature.dtype, feature.shape, feature.names, video_info(root / _video_file(key, before.videos))
            )
    _write_episodes(root, before, features, fresh, rows)
    _write_records(root, before, fresh, [row["episode_index"] for row in rows])
    _write_parquet(root / TASKS, tasks_table(tasks))
    histograms = [*(row["histograms"] for row in before.records), *(episode["histograms"] for episode in fresh)]
    total = rows[-1]["dataset_to_index"]
    write_json(root / STATS, statistics.to_json(_total_stats(root, features, histograms, total)))
    embodiment = Embodiment.from_dict(read_json(root / EMBODIMENT))
    episodes = before.episodes + len(rows)
    write_json(root / INFO, make_info(embodiment.name, embodiment.rate, features, episodes, total, len(tasks)))
    _remove_staging(root)
    return episodes


class Committed:
    """What a dataset of ours holds already, by its `info.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records = committed_records(root)
        info = read_json(root / INFO) if (root / INFO).is_file() else {}
        self.episodes, self.frames = info.get("total_episodes", 0), info.get("total_frames", 0)
        self.features = {key: Feature.from_dict(value) for key, value in info.get("features", {}).items()}
        self.tasks: list[str] = []
        if self.episodes:
            self.tasks = pq.read_table(root / TASKS).slice(0, info["total_tasks"])["task"].to_pylist()
        rows = self._episode_rows()
        self.episode_files = max((_number(row, "meta/episodes") for row in rows), default=-1) + 1
        self.data_files = max((_number(row, "data") for row in rows), default=-1) + 1
        self.videos = self.episodes

    def _episode_rows(self) -> list[dict[str, Any]]:
        columns = [
            "episode_index",
            *(f"{kind}/{part}_index" for kind in ("data", "meta/episodes") for part in ("chunk", "file")),
        ]
        rows: list[dict[str, Any]] = []
        for file in sorted((self.root / "meta/episodes").glob("*/*.parquet")) if self.episodes else []:
            rows += pq.read_table(file, columns=columns).to_pylist()
        return [row for row in rows if row["episode_index"] < self.episodes]

    def sweep(self) -> None:
        """Remove files that an interrupted `finalize` left: whatever is numbered past what is committed."""
        keep = {self.root / DATA_PATH.format(**file_location(n)) for n in range(self.data_files)}
        keep |= {self.root / EPISODES_PATH.format(**file_location(n)) for n in range(self.episode_files)}
        keep |= {self.root / RECORDS_PATH.format(file_index=n) for n in range(self.episode_files)}
        keep |= {self.root / _video_file(key, n) for key in self.features for n in range(self.videos)}
        for folder in ("data", "meta/episodes", "meta/records", "videos"):
            for file in (self.root / folder).rglob("*"):
                if file.is_file() and file not in keep:
                    file.unlink()


class _DataFiles:
    """Appends episodes to `data` files, a new one whenever the last exceeds its size; moves videos into place."""

    def __init__(self, root: Path, features: dict[str, Feature], before: Committed, progress: int) -> None:
        self.root, self.features, self.before = root, features, before
        self.schema, self.rate = data_schema(features), read_json(root / EMBODIMENT)["rate"]
        self.file, self.episode, self.index = before.data_files - 1, before.episodes, before.frames
        self.writer: pq.ParquetWriter | None = None
        self.progress = Progress(progress, "episodes written") if progress else None

    def add(self, episode: dict[str, Any], task_index: int) -> dict[str, Any]:
        count, start = episode["length"], self.index
        table = read_staged_data(self.root, episode["number"])
        if table.num_rows != count:
            raise ValueError(f"staged episode {episode['number']} has {table.num_rows} rows, not {count}")
        index = index_columns(self.episode, start, count, task_index, self.rate)
        columns = [
            to_column(index[key], INDEX_FEATURES[key]) if key in index else table[key].combine_chunks()
            for key in self.schema.names
        ]
        row: dict[str, Any] = {"episode_index": self.episode, "tasks": [episode["task"]], "length": count}
        if self.writer is None or self._path().stat().st_size > DATA_MB * 2**20:
            self._next()
        assert self.writer is not None
        self.writer.write_table(pa.Table.from_arrays(columns, schema=self.schema), row_group_size=count)
        row |= {f"data/{key}": value for key, value in file_location(self.file).items()}
        row |= {"dataset_from_index": start, "dataset_to_index": start + count}
        for key, feature in self.features.items():
            if feature.dtype == "video":
                _link(staged_video(self.root, episode["number"], key), self.root / _video_file(key, self.episode))
                row |= {f"videos/{key}/{name}": value for name, value in file_location(self.episode).items()}
                row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": count / self.rate}
        for key in INDEX_FEATURES:
            episode["stats"][key] = statistics.column_stats(index[key])
        self.episode, self.index = self.episode + 1, start + count
        if self.progress:
            self.progress.advance()
        return row

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            sync(self._path())
            self.writer = None

    def _next(self) -> None:
        self.close()
        self.file += 1
        self._path().parent.mkdir(parents=True, exist_ok=True)
        self.writer = pq.ParquetWriter(self._path(), self.schema)

    def _path(self) -> Path:
        return self.root / DATA_PATH.format(**file_location(self.file))


def index_columns(episode: int, start: int, count: int, task_index: int, rate: float) -> dict[str, np.ndarray]:
    """`timestamp` (s, from the episode's start) and the four indices of an episode's frames."""
    frame = np.arange(count, dtype=np.int64)
    return {
        "timestamp": (frame / rate).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(count, episode, np.int64),
        "index": start + frame,
        "task_index": np.full(count, task_index, np.int64),
    }


def _common_features(fresh: Sequence[dict[str, Any]], before: dict[str, Feature], root: Path) -> dict[str, Feature]:
    shown = {
        key: (f.dtype, f.shape) for key, f in (before or fresh[0]["features"]).items() if key not in INDEX_FEATURES
    }
    for episode in fresh:
        other = {key: (f.dtype, f.shape) for key, f in episode["features"].items()}
        for key in sorted(set(shown) | set(other)):
            if shown.get(key) != other.get(key):
                raise ValueError(
                    f"{root}: staged episode {episode['number']} has {key} as {other.get(key)}, not as {shown.get(key)}"
                )
    return dict(before) or {**fresh[0]["features"], **INDEX_FEATURES}


def _write_episodes(
    root: Path,
    before: Committed,
    features: dict[str, Feature],
    fresh: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
) -> None:
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
    columns["tasks"] = pa.array(columns["tasks"], pa.list_(pa.string()))
    columns |= statistics.stats_columns(features, [episode["stats"] for episode in fresh])
    location = file_location(before.episode_files)
    columns |= {f"meta/episodes/{key}": [value] * len(rows) for key, value in location.items()}
    _write_parquet(root / EPISODES_PATH.format(**location), pa.table(columns))


def _write_records(root: Path, before: Committed, fresh: Sequence[dict[str, Any]], indices: Sequence[int]) -> None:
    keys = list(fresh[0]["histograms"])
    seen = [_lists(episode["histograms"]) if keys else None for episode in fresh]
    levels = pa.struct([(key, pa.list_(pa.list_(pa.int64()))) for key in keys])
    table = pa.table(
        {
            "episode_index": pa.array(indices, pa.int64()),
            "number": pa.array([episode["number"] for episode in fresh], pa.int64()),
            "record": [json.dumps(episode["record"]) for episode in fresh],
            "histograms": pa.array(seen, levels if keys else pa.null()),
        }
    )
    _write_parquet(root / RECORDS_PATH.format(file_index=before.episode_files), table)


def _lists(histograms: dict[str, np.ndarray]) -> dict[str, Any]:
    return {key: counts.tolist() for key, counts in histograms.items()}


def _total_stats(root: Path, features: dict[str, Feature], histograms: Sequence[Any], frames: int) -> statistics.Stats:
    stats: statistics.Stats = {}
    files = sorted((root / "data").glob("*/*.parquet"))
    for key, feature in features.items():
        if feature.visual:
            stats[key] = statistics.image_stats(np.sum([h[key] for h in histograms], axis=0), frames)
        elif feature.dtype != "string":
            values = np.concatenate([from_column(pq.read_table(file, columns=[key])[key], feature) for file in files])
            stats[key] = statistics.column_stats(values)
    return stats


def _write_parquet(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)


def _video_file(key: str, episode: int) -> str:
    return VIDEO_PATH.format(video_key=key, **file_location(episode))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name where the file system can, a copy elsewhere: staging must survive a kill."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    sync(target)


def _number(row: dict[str, Any], kind: str) -> int:
    return int(row[f"{kind}/chunk_index"]) * FILES_PER_CHUNK + int(row[f"{kind}/file_index"])


def _remove_staging(root: Path) -> None:
    """Delete what is now in the dataset; unlisted first by name, so that a kill cannot leave half an episode.

    What killed processes left behind goes with it: nobody stages any more.
    """
    for folder in _episode_folders(root):
        hidden = folder.with_name(f".{folder.name}.old")
        folder.replace(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    for left in (root / STAGING).glob(".episode_*"):
        shutil.rmtree(left, ignore_errors=True)
    if (root / STAGING).is_dir() and not any((root / STAGING).iterdir()):
        (root / STAGING).rmdir()


def _episode_folders(root: Path) -> Iterator[Path]:
    return iter(sorted((root / STAGING).glob("episode_*")))
