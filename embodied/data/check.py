"""Is a dataset what it says? Every file, every frame, every timestamp, and the statistics, episode by episode."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from embodied.data.lerobot import stats as statistics
from embodied.data.lerobot.format import COLLECTION, INFO
from embodied.data.lerobot.reader import LeRobotDataset
from embodied.data.lerobot.staging import staged
from embodied.data.lerobot.video import TOLERANCE
from embodied.files import read_json
from embodied.progress import Progress
from embodied.spec import ACTION

INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        episode: where; None where it concerns the whole dataset.
        message: what, in one line.
        broken: whether training on it would fail or learn something wrong; otherwise it is worth knowing.
    """

    episode: int | None
    message: str
    broken: bool = True

    def __str__(self) -> str:
        where = "dataset" if self.episode is None else f"episode {self.episode}"
        return f"{'broken ' if self.broken else 'note   '} {where}: {self.message}"


def check(dataset: LeRobotDataset, decode: bool = True, stream: TextIO | None = sys.stderr) -> list[Problem]:
    """Everything that is wrong with a dataset; one problem hides no other.

    Args:
        decode: whether every image is decoded, which takes most of the time.
        stream: where progress goes.
    """
    problems = [*_description(dataset)]
    columns: dict[str, list[np.ndarray]] = {}
    histograms: dict[str, np.ndarray] = {}
    progress = Progress(len(dataset), "episodes", stream=stream)
    start = 0
    for number, episode in enumerate(dataset.episodes):
        found: list[str] = []
        try:
            data = dataset.low_dimensional(number)
            found += _numbers(dataset, number, data, start)
            for key, values in data.items():
                columns.setdefault(key, []).append(values)
        except (ValueError, OSError) as error:
            found.append(_line(error))
        for camera in dataset.cameras:
            try:
                counts = _look(dataset, number, camera, decode)
                histograms[camera] = histograms.get(camera, 0) + counts
            except (ValueError, OSError) as error:
                found.append(_line(error))
        problems += [Problem(number, message) for message in dict.fromkeys(found)]
        start += episode.length
        progress.advance()
    whole = not any(problem.broken for problem in problems)
    if whole:
        problems += _statistics(dataset, columns, histograms if decode else {})
        problems += _bounds(dataset, columns)
    return problems


def _description(dataset: LeRobotDataset) -> Iterator[Problem]:
    info = read_json(dataset.root / INFO)
    for key, there in {
        "total_episodes": len(dataset),
        "total_frames": dataset.frames,
        "total_tasks": len(dataset.tasks),
    }.items():
        if info.get(key) != there:
            yield Problem(None, f"{INFO} says {key} = {info.get(key)}, but meta describes {there}")
    numbers = [episode.index for episode in dataset.episodes]
    if numbers != list(range(len(numbers))):
        absent = _few(sorted(set(range(len(numbers))) - set(numbers)))
        yield Problem(None, f"episodes are not numbered 0 to {len(numbers) - 1}: {absent} missing")
    if (dataset.root / COLLECTION).is_file() and (waiting := staged(dataset.root)):
        yield Problem(
            None, f"{len(waiting)} staged episodes are not in the dataset yet: embodied-dataset action=finalize", False
        )
    try:
        rate = dataset.embodiment.rate
        if rate != dataset.fps:
            yield Problem(None, f"{dataset.fps:g} frames per second, but the embodiment's rate is {rate:g} Hz")
    except ValueError as error:
        yield Problem(None, str(error), broken=False)


def _numbers(dataset: LeRobotDataset, number: int, data: dict[str, np.ndarray], start: int) -> Iterator[str]:
    length = dataset.episodes[number].length
    frame = np.arange(length)
    for key in INDICES:
        if key not in data:
            yield f"there is no column '{key}'"
            return
    late = np.abs(data["timestamp"].astype(np.float64) - frame / dataset.fps)
    if late.max(initial=0) > TOLERANCE:
        at = int(late.argmax())
        said, wanted_time = data["timestamp"][at], at / dataset.fps
        yield f"timestamp of frame {at} is {said:.4f} s, not {wanted_time:.4f} s ({(late > TOLERANCE).sum()} are off)"
    for key, wanted in {"frame_index": frame, "index": start + frame}.items():
        wrong = np.flatnonzero(data[key] != wanted)
        if len(wrong):
            yield f"{key} of frame {wrong[0]} is {data[key][wrong[0]]}, not {wanted[wrong[0]]} ({len(wrong)} are off)"
    unknown = sorted(set(data["task_index"].tolist()) - set(range(len(dataset.tasks))))
    if unknown:
        yield f"task_index {_few(unknown)} is not among the {len(dataset.tasks)} tasks"
    for key, values in data.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"{key} is not finite at frame {int(np.argwhere(~np.isfinite(values))[0][0])}"


def _look(dataset: LeRobotDataset, number: int, camera: str, decode: bool) -> np.ndarray:
    """Histogram (3, 256) of a camera's images; without decoding, only whether the video is there."""
    counts = np.zeros((3, 256), np.int64)
    if decode:
        for image in dataset.images(number, camera):
            counts += statistics.histogram(image)
    else:
        for file, _ in dataset.episodes[number].videos.values():
            if not file.is_file():
                raise FileNotFoundError(2, "missing video", str(file))
    return counts


def _statistics(
    dataset: LeRobotDataset, columns: dict[str, list[np.ndarray]], histograms: dict[str, np.ndarray]
) -> Iterator[Problem]:
    """Compare `stats.json` with the data: exactly where written here, else as notes (LeRobot's are estimates)."""
    ours = (dataset.root / COLLECTION).is_file()
    if not dataset.stats:
        yield Problem(None, "there is no meta/stats.json", broken=False)
        return
    for key, parts in columns.items():
        if dataset.features[key].dtype == "string":
            continue
        if key not in dataset.stats:
            yield Problem(None, f"stats.json has no {key}", broken=ours)
            continue
        values = np.concatenate(parts)
        yield from _compare(key, dataset.stats[key], statistics.column_stats(values), ours, 1e-5)
    for camera, counts in histograms.items():
        key = dataset.camera_key(camera)
        if key in dataset.stats:  # decoders differ in how they turn a video's colours into RGB
            exact = dataset.features[key].dtype == "image"
            tolerance, names = (1e-6, None) if exact else (0.01, ("mean", "std"))
            yield from _compare(
                key, dataset.stats[key], statistics.image_stats(counts, dataset.frames), ours, tolerance, names
            )


def _compare(
    key: str,
    said: dict[str, np.ndarray],
    true: dict[str, np.ndarray],
    ours: bool,
    tolerance: float,
    names: tuple[str, ...] | None = None,
) -> Iterator[Problem]:
    for name in names or (statistics.NAMES if ours else ("min", "max", "mean", "std")):
        if name not in said:
            yield Problem(None, f"stats.json has no {name} of {key}", broken=ours)
            continue
        left, right = np.asarray(said[name], np.float64).reshape(-1), np.asarray(true[name], np.float64).reshape(-1)
        scale = np.maximum(np.abs(np.asarray(true["max"], np.float64)).reshape(-1), 1) if name != "count" else 1
        if left.shape != right.shape or (np.abs(left - right) > tolerance * scale).any():
            shown = f"{np.round(left, 5).tolist()[:4]}, the data's is {np.round(right, 5).tolist()[:4]}"
            yield Problem(None, f"stats.json: {name} of {key} is {shown}", broken=ours)


def _bounds(dataset: LeRobotDataset, columns: dict[str, list[np.ndarray]]) -> Iterator[Problem]:
    try:
        spec = dataset.embodiment.action
    except ValueError:
        return
    if spec.kind != "continuous" or ACTION not in columns:
        return
    actions = np.concatenate(columns[ACTION]).reshape(-1, spec.dim)
    for i, name in enumerate(spec.names):
        low, high = actions[:, i].min(), actions[:, i].max()
        if low < spec.low[i] - 1e-4 or high > spec.high[i] + 1e-4:
            message = (
                f"action '{name}' spans {low:g} to {high:g}, beyond its bounds {spec.low[i]:g} to {spec.high[i]:g}"
            )
            yield Problem(None, message, broken=False)


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split())


def _few(items: list[int]) -> str:
    return ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")
