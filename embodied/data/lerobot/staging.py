"""Episodes on their way into a dataset: each is there whole or not at all, whoever is killed when.

A collection is begun once by the main process; then any process stages any episode, under a number that the caller
chooses (so that it means the same after a restart); `finalize` makes the LeRobot v3.0 dataset of what is there:

    ready = begin(root, embodiment, images="image", settings={"env": ..., "seed": 0})    # numbers already there
    stage_episode(root, 7, frames, task="press the button", record={"seed": 7, "success": True})   # in any process
    finalize(root)

Everything costly (PNG or video encoding, statistics) happens in `stage_episode`. A staged episode is a folder
`<root>/staging/episode_000007` that appeared under this name complete:

    data.parquet     one row per frame, images as PNG
    <key>.mp4        per camera, where images are stored as video
    episode.json     number, task, record, statistics, image histograms
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied.data.lerobot import stats as statistics
from embodied.data.lerobot.format import (
    COLLECTION,
    EMBODIMENT,
    INDEX_FEATURES,
    INFO,
    RECORDS_PATH,
    Feature,
    data_schema,
    features_of,
    from_column,
    to_column,
)
from embodied.data.lerobot.images import decode_png, encode_png
from embodied.data.lerobot.video import encode_video, read_frames
from embodied.files import atomic_folder, read_json, write_json
from embodied.spec import TASK, Embodiment

STAGING = "staging"
STORAGES = ("image", "video")


def begin(
    root: str | Path, embodiment: Embodiment, images: str = "image", settings: Mapping[str, Any] | None = None
) -> set[int]:
    """Begin a collection, or go on with the one that is there; to be called by one process before any stages.

    Args:
        root: the dataset's folder; missing, empty, or begun before with equal arguments.
        embodiment: what every episode's arrays mean; its rate is the frame rate.
        images: `image` (lossless PNG in the parquet files) or `video` (MP4, lossy, smaller).
        settings: what makes two episodes of one number equal (environment, seed, noise, ...), as JSON. How many
            episodes are wanted is not part of it, so that a collection can be extended.

    Returns:
        The numbers of the episodes that are there already.

    Raises:
        ValueError: the folder holds something else, or a collection with other arguments: the first difference is
            named.
    """
    root = Path(root)
    if images not in STORAGES:
        raise ValueError(f"images are stored as {' or '.join(STORAGES)}, got '{images}'")
    wanted = json.loads(
        json.dumps({"images": images, "settings": dict(settings or {}), "embodiment": embodiment.to_dict()})
    )
    if (root / COLLECTION).is_file():
        _same_collection(root, {**read_json(root / COLLECTION), "embodiment": read_json(root / EMBODIMENT)}, wanted)
        if (root / INFO).is_file() and read_json(root / INFO)["total_episodes"] != len(committed_records(root)):
            raise ValueError(f"{root} was changed by another program and cannot be continued: choose another folder")
    else:
        _refuse_foreign(root)
        write_json(root / EMBODIMENT, wanted.pop("embodiment"))
        write_json(root / COLLECTION, wanted)
    (root / STAGING).mkdir(exist_ok=True)
    for unfinished in (root / STAGING).glob(".episode_*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    return done(root)


def stage_episode(
    root: str | Path, number: int, frames: Mapping[str, np.ndarray], task: str, record: Mapping[str, Any] | None = None
) -> None:
    """Encode one whole episode and put it in place atomically; may run in any process, several at once.

    Staging a number again replaces it, so a rerun does no harm.

    Args:
        root: where `begin` was called.
        number: any integer >= 0; gaps are allowed, and episodes end up in the order of their numbers.
        frames: arrays (N, ...) under the keys of `embodied.spec`, all that the embodiment declares; further numeric or
            text arrays (`next.reward`, `next.success`, ...) are kept too and have to be the same in every episode.
        task: the instruction.
        record: what else is worth knowing of the episode (seed, success, ...), as JSON.

    Raises:
        ValueError: a key is missing, has a wrong shape or length, or holds a number that is not finite.
        OSError: it cannot be written; nothing is left behind.
    """
    root = Path(root)
    collection, embodiment = _collection(root)
    try:
        count = _length(frames)
        arrays = {
            key: np.asarray(values) for key, values in frames.items() if key not in INDEX_FEATURES and key != TASK
        }
        features = features_of(arrays, embodiment, collection["images"])
    except ValueError as error:
        raise ValueError(f"episode {number}: {error}") from None
    (root / STAGING).mkdir(exist_ok=True)
    with atomic_folder(_folder(root, number)) as folder:
        columns: list[pa.Array] = []
        own = {key: feature for key, feature in features.items() if key not in INDEX_FEATURES}
        for key, feature in own.items():
            if feature.dtype == "video":
                encode_video(folder / f"{key}.mp4", arrays[key], embodiment.rate)
            elif feature.dtype == "image":
                columns.append(_png_column(arrays[key]))
            else:
                columns.append(to_column(arrays[key], feature))
        schema = data_schema(own)
        if not columns:  # every feature is a video: keep the number of rows
            schema, columns = pa.schema([("timestamp", pa.float32())]), [pa.array(np.zeros(count, np.float32))]
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), folder / "data.parquet")
        histograms = {
            key: _seen(folder / f"{key}.mp4", count, embodiment.rate)
            if feature.dtype == "video"
            else statistics.histogram(arrays[key])
            for key, feature in own.items()
            if feature.visual
        }
        numbers = {key: arrays[key] for key, feature in own.items() if not feature.visual}
        _describe(folder, number, task, record, own, count, numbers, histograms)


def stage_encoded(
    root: str | Path,
    number: int,
    rows: pa.Table,
    features: Mapping[str, Feature],
    videos: Mapping[str, Callable[[Path], object]],
    task: str,
    record: Mapping[str, Any] | None = None,
    histograms: Mapping[str, np.ndarray] | None = None,
) -> None:
    """As `stage_episode`, for an episode whose images are encoded already and are kept as they are.

    Args:
        rows: a row per frame and a column for each of `features` that is no video, with the schema of `data_schema`.
        features: of the episode, without the index columns.
        videos: per video feature what writes its MP4 to a path.
        histograms: of images (C, 256), where they are known; the others are decoded for theirs.

    Raises:
        ValueError: a number is not finite, or an image or video is damaged.
        OSError: it cannot be written; nothing is left behind.
    """
    root = Path(root)
    _, embodiment = _collection(root)
    numbers = {key: from_column(rows[key], feature) for key, feature in features.items() if not feature.visual}
    for key, values in numbers.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            frame = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(f"'{key}' is not finite at frame {frame}")
    (root / STAGING).mkdir(exist_ok=True)
    with atomic_folder(_folder(root, number)) as folder:
        pq.write_table(rows, folder / "data.parquet")
        seen = dict(histograms or {})
        for key, write in videos.items():
            write(folder / f"{key}.mp4")
            if key not in seen:
                seen[key] = _seen(folder / f"{key}.mp4", len(rows), embodiment.rate)
        for key, feature in features.items():
            if feature.dtype == "image" and key not in seen:
                images = (
                    decode_png(image["bytes"].as_py(), f"frame {frame}, {key}") for frame, image in enumerate(rows[key])
                )
                seen[key] = np.sum([statistics.histogram(image) for image in images], axis=0)
        ordered = {key: seen[key] for key, feature in features.items() if feature.visual}
        _describe(folder, number, task, record, features, len(rows), numbers, ordered)


def _describe(
    folder: Path,
    number: int,
    task: str,
    record: Mapping[str, Any] | None,
    features: Mapping[str, Feature],
    count: int,
    numbers: Mapping[str, np.ndarray],
    histograms: Mapping[str, np.ndarray],
) -> None:
    stats = {key: statistics.image_stats(counts, count) for key, counts in histograms.items()}
    for key, values in numbers.items():
        if features[key].dtype != "string":
            stats[key] = statistics.column_stats(values.astype(features[key].dtype))
    description = {
        "number": int(number),
        "task": str(task),
        "length": count,
        "record": dict(record or {}),
        "features": {key: feature.to_dict() for key, feature in features.items()},
        "stats": statistics.to_json(stats),
        "histograms": {key: counts.tolist() for key, counts in histograms.items()},
    }
    (folder / "episode.json").write_text(json.dumps(description))


def staged(root: str | Path) -> set[int]:
    """Numbers of the episodes that are staged and not yet finalised."""
    found = (re.fullmatch(r"episode_(\d+)", path.name) for path in (Path(root) / STAGING).glob("episode_*"))
    return {int(match.group(1)) for match in found if match}


def done(root: str | Path) -> set[int]:
    """Numbers of all episodes that are there: staged, or already part of the dataset."""
    root = Path(root)
    return staged(root) | {row["number"] for row in committed_records(root)}


def committed_records(root: Path) -> list[dict[str, Any]]:
    """One row per episode of the finalised dataset: `episode_index`, `number`, `record`, `histograms`, in order."""
    if not (root / INFO).is_file():
        return []
    total = read_json(root / INFO)["total_episodes"]
    rows: list[dict[str, Any]] = []
    for file in sorted((root / RECORDS_PATH).parent.glob("file-*.parquet")):
        rows += pq.read_table(file).to_pylist()
    rows = [row for row in rows if row["episode_index"] < total]
    for row in rows:
        row["record"] = json.loads(row["record"])
        row["histograms"] = {key: np.asarray(levels) for key, levels in (row["histograms"] or {}).items()}
    return sorted(rows, key=lambda row: row["episode_index"])


def read_staged(root: Path, number: int) -> dict[str, Any]:
    """`episode.json` of a staged episode, `features` as Features and `stats` as arrays."""
    description = read_json(_folder(root, number) / "episode.json")
    description["features"] = {key: Feature.from_dict(value) for key, value in description["features"].items()}
    description["stats"] = statistics.from_json(description["stats"])
    description["histograms"] = {key: np.asarray(levels) for key, levels in description["histograms"].items()}
    return description


def read_staged_data(root: Path, number: int) -> pa.Table:
    """`data.parquet` of a staged episode.

    Raises:
        ValueError: it is damaged.
    """
    file = _folder(root, number) / "data.parquet"
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): delete {file.parent} and collect episode {number} again"
        ) from None


def staged_video(root: Path, number: int, key: str) -> Path:
    """The MP4 of a staged episode's camera."""
    return _folder(root, number) / f"{key}.mp4"


def _collection(root: Path) -> tuple[dict[str, Any], Embodiment]:
    if not (root / COLLECTION).is_file():
        raise ValueError(f"no collection was begun in {root}")
    return read_json(root / COLLECTION), Embodiment.from_dict(read_json(root / EMBODIMENT))


def _folder(root: Path, number: int) -> Path:
    return root / STAGING / f"episode_{number:06d}"


def _length(frames: Mapping[str, np.ndarray]) -> int:
    lengths = {key: len(values) for key, values in frames.items() if key != TASK}
    if not lengths or 0 in lengths.values():
        raise ValueError("an episode has at least one frame")
    (first, count), *rest = lengths.items()
    for key, other in rest:
        if other != count:
            raise ValueError(f"'{key}' has {other} frames, but '{first}' has {count}")
    return count


def _seen(video: Path, count: int, rate: float) -> np.ndarray:
    """Histogram of a video as a reader will see it: compression changed the frames. It also proves them readable."""
    frames = read_frames(video, [index / rate for index in range(count)])
    return np.sum([statistics.histogram(frame) for frame in frames], axis=0)


def _png_column(images: np.ndarray) -> pa.Array:
    rows = [encode_png(image) for image in images]
    names = [f"frame-{index:06d}.png" for index in range(len(rows))]
    return pa.StructArray.from_arrays(
        [pa.array(rows, pa.binary()), pa.array(names, pa.string())], names=["bytes", "path"]
    )


def _same_collection(root: Path, there: Mapping[str, Any], wanted: Mapping[str, Any], path: str = "") -> None:
    for key in sorted(set(there) | set(wanted)):
        left, right = there.get(key), wanted.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            _same_collection(root, left, right, f"{path}{key}.")
        elif left != right:
            raise ValueError(
                f"{root} was begun with {path}{key} = {left!r}, not {right!r}: use the old value or another folder"
            )


def _refuse_foreign(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file: a dataset is a folder")
    if (root / INFO).is_file():
        raise ValueError(f"{root} is a dataset that this command did not begin: choose another folder")
    begun = {root / "meta"}  # left when a begin was cut short
    things = [path for path in root.glob("[!.]*") if path not in begun]
    if things:
        raise ValueError(f"{root} holds other things ({things[0].name}, ...): choose an empty or new folder")
