"""Merge datasets, split one by episodes, select episodes, store images anew: always into new folders.

Every result is a complete dataset: indices, tasks and statistics are made for it, and each episode keeps its record.
Images and numbers are those of the source, bit for bit, unless `reencode` or a `size` says otherwise (see `copying`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from embodied.building import nearest
from embodied.data.edit.assembly import assemble, refuse_overlap
from embodied.data.edit.copying import Copier, Images, copied_features
from embodied.data.lerobot.format import INDEX_FEATURES, INFO
from embodied.data.lerobot.reader import LeRobotDataset
from embodied.spec import ConventionMismatch, Embodiment, pair

Choice = tuple[LeRobotDataset, int]
"""An episode of a dataset."""


def merge(datasets: Sequence[LeRobotDataset], out: str | Path, stream: TextIO | None = None) -> int:
    """One dataset of several, in their order; returns how many episodes it has.

    Tasks of the same words become one.

    Raises:
        ValueError: fewer than two datasets, or they disagree on what their numbers mean or how they are stored.
    """
    if len(datasets) < 2:
        raise ValueError("a merge takes at least two datasets: roots=[a,b]")
    places = [dataset.root.resolve() for dataset in datasets]
    twice = next(
        (dataset.root for dataset, place in zip(datasets, places, strict=True) if places.count(place) > 1), None
    )
    if twice is not None:
        raise ValueError(f"{twice} is named twice: its episodes would count double")
    first, *others = datasets
    for other in others:
        _same_meaning(first, other)
    choices = [(dataset, number) for dataset in datasets for number in range(len(dataset))]
    return write(choices, out, {"merged": [_identity(dataset) for dataset in datasets]}, stream=stream)


def split(
    dataset: LeRobotDataset, out: str | Path, parts: Mapping[str, float], seed: int = 0, stream: TextIO | None = None
) -> dict[str, int]:
    """Datasets `out/<part>` that share no episode and together have all; returns how many episodes each has.

    Args:
        parts: the fraction of the episodes that each part has; together 1.
        seed: decides which episodes go where.

    Raises:
        ValueError: the fractions are not positive or do not add up to 1, or a part would be empty.
    """
    chosen = split_numbers(len(dataset), parts, seed)
    told = {"split": _identity(dataset), "parts": dict(parts), "seed": seed}
    return {
        name: write([(dataset, number) for number in numbers], Path(out) / name, {**told, "part": name}, stream=stream)
        for name, numbers in chosen.items()
    }


def split_numbers(episodes: int, parts: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Which episodes each part gets, ascending: the largest remainders decide who gets what does not divide.

    Raises:
        ValueError: as `split`.
    """
    names = list(parts)
    if not names or any(not isinstance(share, int | float) or share <= 0 for share in parts.values()):
        raise ValueError(
            f"parts are positive fractions that add up to 1, such as {{train:0.9,val:0.1}}, got {dict(parts)}"
        )
    if abs(sum(parts.values()) - 1) > 1e-6:
        raise ValueError(f"the parts {dict(parts)} add up to {sum(parts.values()):g}, not 1")
    for name in names:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"a part's name becomes a folder's, which '{name}' cannot")
    exact = [parts[name] * episodes for name in names]
    counts = [math.floor(count + 1e-9) for count in exact]
    by_remainder = sorted(range(len(names)), key=lambda i: counts[i] - exact[i])
    for index in by_remainder[: episodes - sum(counts)]:
        counts[index] += 1
    for name, count in zip(names, counts, strict=True):
        if count == 0:
            raise ValueError(f"part '{name}' would have no episode: {parts[name]:g} of {episodes} is less than one")
    order = np.random.default_rng(seed).permutation(episodes)
    ends = np.cumsum(counts)
    return {
        name: sorted(order[end - count : end].tolist()) for name, count, end in zip(names, counts, ends, strict=True)
    }


def select(
    dataset: LeRobotDataset,
    out: str | Path,
    tasks: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    success: bool | None = None,
    stream: TextIO | None = None,
) -> int:
    """A dataset of the episodes that pass every filter given, in their order; returns how many that are.

    Args:
        tasks: with one of these instructions.
        episodes: of these numbers.
        min_length, max_length: with so many frames, both included.
        success: whose record says that they succeeded (or failed).

    Raises:
        ValueError: an unknown task or number, a missing record of success, no filter, or nothing passes.
    """
    told = {
        "tasks": tasks,
        "episodes": episodes,
        "min_length": min_length,
        "max_length": max_length,
        "success": success,
    }
    told = {key: value for key, value in told.items() if value is not None}
    if not told:
        raise ValueError("nothing to filter by: give tasks, episodes, min_length, max_length or success")
    for task in tasks or []:
        if task not in dataset.tasks:
            raise ValueError(f"{dataset.root} has no task '{task}'{nearest(task, dataset.tasks)}")
    for number in episodes or []:
        if not 0 <= number < len(dataset):
            raise ValueError(f"{dataset.root} has episodes 0 to {len(dataset) - 1}, not {number}")
    if success is not None:
        unknown = [number for number, record in enumerate(dataset.records) if "success" not in record]
        if unknown:
            raise ValueError(f"{dataset.root} does not say whether episode {unknown[0]} succeeded")
    kept = [
        number
        for number, episode in enumerate(dataset.episodes)
        if (tasks is None or set(episode.tasks) <= set(tasks))
        and (episodes is None or number in episodes)
        and (min_length is None or episode.length >= min_length)
        and (max_length is None or episode.length <= max_length)
        and (success is None or bool(dataset.records[number]["success"]) == success)
    ]
    if not kept:
        raise ValueError(f"none of the {len(dataset)} episodes of {dataset.root} passes")
    choices = [(dataset, number) for number in kept]
    return write(choices, out, {"filtered": _identity(dataset), "by": told}, stream=stream)


def reencode(
    dataset: LeRobotDataset, out: str | Path, images: Images | None = None, stream: TextIO | None = None
) -> int:
    """A dataset with its images stored or scaled anew (and with LeRobot v3.0 around them); returns how many episodes.

    The cameras' renderer stays: it says what drew the pixels, not how they were scaled or compressed since.
    """
    images = images or Images()
    return write(
        [(dataset, number) for number in range(len(dataset))],
        out,
        {"reencoded": _identity(dataset), "images": asdict(images)},
        images,
        stream,
    )


def write(
    choices: Sequence[Choice],
    out: str | Path,
    settings: Mapping[str, Any],
    images: Images | None = None,
    stream: TextIO | None = None,
) -> int:
    """A dataset of episodes of others that agree on their conventions; returns how many it has.

    Raises:
        ValueError: there are none, conventions are not told, an episode is damaged, or `out` cannot be written to.
    """
    if not choices:
        raise ValueError("no episodes to write")
    images = images or Images()
    datasets = list({id(dataset): dataset for dataset, _ in choices}.values())
    refuse_overlap(out, [dataset.root for dataset in datasets])
    features = copied_features(datasets[0], images)
    storage = "video" if any(feature.dtype == "video" for feature in features.values()) else "image"
    copiers = {id(dataset): Copier(dataset, out, images) for dataset in datasets}

    def stage(target: int) -> None:
        dataset, number = choices[target]
        copiers[id(dataset)].stage(number, target)

    embodiment = _scaled(datasets[0].embodiment, images)
    return assemble(out, embodiment, storage, settings, range(len(choices)), stage, stream)


def _scaled(embodiment: Embodiment, images: Images) -> Embodiment:
    if images.size is None:
        return embodiment
    height, width = images.size
    cameras = tuple(replace(camera, height=height, width=width) for camera in embodiment.cameras)
    if any(camera.depth for camera in cameras):
        raise ValueError(f"{embodiment.name} has depth cameras, whose images cannot be scaled yet")
    return replace(embodiment, cameras=cameras)


def _same_meaning(one: LeRobotDataset, other: LeRobotDataset) -> None:
    """Stop where two datasets disagree on what their numbers mean, or on what they hold."""
    names = (str(one.root), str(other.root))
    if one.fps != other.fps:
        raise ConventionMismatch(f"{names[0]} has {one.fps:g} frames per second, {names[1]} has {other.fps:g}")
    pair(**{names[0]: one.embodiment, names[1]: other.embodiment})
    pair(**{names[1]: other.embodiment, names[0]: one.embodiment})
    left, right = (
        {key: (feature.dtype, feature.shape) for key, feature in copied_features(dataset).items()}
        for dataset in (one, other)
    )
    for key in sorted(set(left) | set(right)):
        if key not in INDEX_FEATURES and left.get(key) != right.get(key):
            images = "images" in key and key in left and key in right
            raise ValueError(
                f"{key} is {_kind(left.get(key))} in {names[0]}, but {_kind(right.get(key))} in {names[1]}"
                + (": action=reencode stores them alike" if images else "")
            )


def _kind(feature: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if feature is None else f"{feature[0]} {' x '.join(map(str, feature[1]))}"


def _identity(dataset: LeRobotDataset) -> dict[str, Any]:
    """Changes when the dataset does, so that an interrupted operation is not continued on another."""
    files = sorted({episode.data for episode in dataset.episodes})
    digest = hashlib.sha256((dataset.root / INFO).read_bytes())
    for file in files:
        size = file.stat().st_size if file.is_file() else -1
        digest.update(json.dumps([file.relative_to(dataset.root).as_posix(), size]).encode())
    return {"root": dataset.root.name, "digest": digest.hexdigest()[:16], "episodes": len(dataset)}
