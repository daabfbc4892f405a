"""Episodes from one dataset to another: as they are, or with their images stored or scaled anew.

As they are means bit for bit: PNG (or JPEG) bytes are copied, and so is a video's file where the episode has one of its
own. Where a file holds several episodes, as LeRobot writes them, the episode's packets are cut out without decoding.
Numbers are copied in the type they have.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embodied.data.lerobot.format import (
    COLLECTION,
    IMAGE_TYPE,
    INDEX_FEATURES,
    Feature,
    data_schema,
    to_column,
)
from embodied.data.lerobot.images import encode_png
from embodied.data.lerobot.reader import LeRobotDataset, camera_name
from embodied.data.lerobot.staging import STORAGES, committed_records, stage_encoded
from embodied.data.lerobot.video import CODECS, TOLERANCE, encode_video, has_encoder, open_video
from embodied.spec import IMAGES


@dataclass(frozen=True)
class Images:
    """How images are stored in the copy.

    Attributes:
        storage: `image` (lossless PNG) or `video`; None keeps each camera's.
        size: (height, width) to scale to; None keeps theirs.
        codec: of videos that are encoded; the best that is there, unless given.
        crf: their quality: lower is better and larger.
    """

    storage: str | None = None
    size: tuple[int, int] | None = None
    codec: str | None = None
    crf: int = 30

    def __post_init__(self) -> None:
        if self.storage is not None and self.storage not in STORAGES:
            raise ValueError(f"images are stored as {' or '.join(STORAGES)}, got '{self.storage}'")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size is [height, width] in pixels, got {list(self.size)}")
        if self.codec is not None and (self.codec not in CODECS or not has_encoder(self.codec)):
            there = ", ".join(name for name in CODECS if has_encoder(name)) or "none"
            raise ValueError(f"videos cannot be encoded with '{self.codec}': there is {there}")
        if not 0 <= self.crf <= 63:
            raise ValueError(f"crf is 0 (best) to 63, got {self.crf}")

    def of(self, feature: Feature) -> Feature:
        """What a camera's feature becomes."""
        height, width = self.size or feature.shape[:2]
        storage = self.storage or feature.dtype
        if (storage, height, width) == (feature.dtype, *feature.shape[:2]):
            return feature
        return Feature(storage, (height, width, 3), ["height", "width", "channels"])


class Copier:
    """Stages episodes of a dataset in another.

    Args:
        dataset: where they come from.
        root: of the dataset that is begun.
        images: how its images are stored.
    """

    def __init__(self, dataset: LeRobotDataset, root: str | Path, images: Images | None = None) -> None:
        self.dataset, self.root, self.images = dataset, Path(root), images or Images()
        self.features = copied_features(dataset, self.images)
        shared: dict[Path, int] = {}
        for episode in dataset.episodes:
            for file, _ in episode.videos.values():
                shared[file] = shared.get(file, 0) + 1
        self._alone = {file for file, count in shared.items() if count == 1}
        ours = (dataset.root / COLLECTION).is_file()
        self._records = {row["episode_index"]: row for row in committed_records(dataset.root)} if ours else {}

    def stage(self, number: int, target: int) -> None:
        """Stage the dataset's episode `number` as number `target`.

        Raises:
            ValueError: the episode is damaged, has several instructions, or its video cannot be cut without decoding.
            OSError: a file is missing, or cannot be written.
        """
        dataset, keys = self.dataset, self._keys()
        indices = [key for key in ("task_index",) if key in dataset.columns]
        numbers = dataset.low_dimensional(number, [keys[k] for k, f in self.features.items() if not f.visual] + indices)
        videos: dict[str, Callable[[Path], object]] = {}
        columns: list[pa.Array] = []
        unchanged = []
        for key, feature in self.features.items():
            source = dataset.features[keys[key]]
            same = (source.dtype, source.shape) == (feature.dtype, feature.shape)
            if same and feature.visual:
                unchanged.append(key)
            if feature.dtype == "video":
                videos[key] = self._video(number, keys[key], same)
            elif feature.dtype == "image":
                columns.append(self._stored_images(number, keys[key]) if same else self._png(number, keys[key]))
            else:
                columns.append(to_column(numbers[keys[key]], feature))
        table = pa.Table.from_arrays(columns, schema=data_schema(self.features))
        row: Mapping[str, Any] = self._records.get(number, {})
        known = {key: row.get("histograms", {}).get(keys[key]) for key in unchanged}
        histograms = {key: counts for key, counts in known.items() if counts is not None}
        record = {key: value for key, value in dataset.records[number].items() if key != "number"}
        try:
            task = self._task(number, numbers.get("task_index", np.empty(0, np.int64)))
            stage_encoded(self.root, target, table, self.features, videos, task, record, histograms)
        except ValueError as error:
            raise ValueError(f"{dataset.root}: episode {number}: {error}") from None

    def _keys(self) -> dict[str, str]:
        """The dataset's key of each key of the copy."""
        return {copied_key(key, feature): key for key, feature in self.dataset.features.items()}

    def _task(self, number: int, indices: np.ndarray) -> str:
        tasks, found = self.dataset.tasks, set(indices.tolist())
        if len(found) > 1:
            raise ValueError(f"it has {len(found)} instructions, and an episode is copied under one: filter it out")
        index = found.pop() if found else -1
        return tasks[index] if 0 <= index < len(tasks) else " ".join(self.dataset.episodes[number].tasks[:1])

    def _stored_images(self, number: int, key: str) -> pa.Array:
        """The bytes as they are; those in files of their own are brought in."""
        column = self.dataset.table(number, [key])[key].combine_chunks()
        data = pc.struct_field(column, "bytes")
        if data.null_count:
            paths = pc.struct_field(column, "path").to_pylist()
            inside = data.to_pylist()
            data = pa.array(
                [self._outside(p) if b is None else b for p, b in zip(paths, inside, strict=True)], pa.binary()
            )
        names = pa.array([f"frame-{index:06d}.png" for index in range(len(column))], pa.string())
        return pa.StructArray.from_arrays([data.cast(pa.binary()), names], fields=list(IMAGE_TYPE))

    def _outside(self, path: str | None) -> bytes:
        file = (self.dataset.root / (path or "")).resolve()
        if not file.is_file() or self.dataset.root.resolve() not in file.parents:
            raise ValueError(f"an image is neither in the file nor at {file}")
        return file.read_bytes()

    def _png(self, number: int, key: str) -> pa.Array:
        images = [{"bytes": encode_png(image)} for image in self._seen(number, key)]
        return pa.array([{**image, "path": f"frame-{i:06d}.png"} for i, image in enumerate(images)], IMAGE_TYPE)

    def _seen(self, number: int, key: str) -> Iterator[np.ndarray]:
        for image in self.dataset.images(number, camera_name(key)):
            yield image if self.images.size is None else _scaled(image, self.images.size)

    def _video(self, number: int, key: str, same: bool) -> Callable[[Path], object]:
        if not same:
            return lambda path: encode_video(
                path, self._seen(number, key), self.dataset.fps, self.images.codec, self.images.crf
            )
        episode = self.dataset.episodes[number]
        file, start = episode.videos[key]
        if file in self._alone and start == 0:
            return lambda path: shutil.copyfile(file, path)
        return lambda path: cut_video(file, path, start, episode.length, self.dataset.fps)


def copied_key(key: str, feature: Feature) -> str:
    """The key of a feature in a copy: cameras get the name that ours have."""
    return IMAGES + camera_name(key) if feature.visual else key


def copied_features(dataset: LeRobotDataset, images: Images | None = None) -> dict[str, Feature]:
    """The features that a copy of a dataset has, without index columns."""
    images = images or Images()
    return {
        copied_key(key, feature): images.of(feature) if feature.visual else feature
        for key, feature in dataset.features.items()
        if key not in INDEX_FEATURES
    }


def cut_video(source: Path, target: Path, start: float, count: int, fps: float) -> None:
    """Copy `count` frames from second `start` on into a video of their own, without decoding them.

    Raises:
        ValueError: the first frame is none that decoding can begin with, or there are too few frames.
    """
    end = start + (count - 0.5) / fps
    with open_video(source) as container, av.open(str(target), "w", format="mp4") as made:
        stream = container.streams.video[0]
        copy: Any = made.add_stream_from_template(stream, opaque=True)  # AV1 is decoded by a codec that cannot encode
        shift = round(Fraction(start).limit_denominator(10**6) / stream.time_base)
        container.seek(max(int((start - TOLERANCE) / stream.time_base), 0), stream=stream, backward=True)
        copied = 0
        try:
            for packet in container.demux(stream):
                if packet.pts is None or packet.dts is None:
                    continue
                time = float(packet.pts * stream.time_base)
                if time > end + 1:  # packets come in the order of decoding, which is not far from that of showing
                    break
                if time < start - TOLERANCE or time > end:
                    continue
                if copied == 0 and not packet.is_keyframe:
                    break
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                made.mux(packet)
                copied += 1
        except av.FFmpegError as error:
            raise ValueError(f"{source} is damaged or was cut short ({error})") from None
    if copied != count:
        raise ValueError(
            f"{source} cannot be cut at {start:.3f} s without decoding ({copied} of {count} frames): "
            "use action=reencode with image_storage=image"
        )


def _scaled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from embodied.data.cache import resize  # loads torch

    return np.ascontiguousarray(resize(image[None], *size)[0])
