"""The LeRobot v3.0 format: features, paths, Arrow columns and `meta/info.json`.

Written to be equal, column for column, to what LeRobot 0.4.4 writes (`lerobot/datasets/utils.py` there):

    meta/info.json, meta/stats.json, meta/tasks.parquet
    meta/episodes/chunk-000/file-000.parquet      one row per episode: where it is, its statistics
    data/chunk-000/file-000.parquet               one row per frame, one row group per episode, images as PNG
    videos/<key>/chunk-000/file-000.mp4           for features of dtype `video`, which have no column in `data`

Beside them this project keeps `meta/embodiment.json` (conventions), `meta/collection.json` (how it was made) and
`meta/records/file-000.parquet` (per episode: seed, success, ...), which LeRobot ignores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embodied.spec import ACTION, DEPTH, IMAGES, STATE, TASK, Embodiment

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EMBODIMENT, COLLECTION = "meta/embodiment.json", "meta/collection.json"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
RECORDS_PATH = "meta/records/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


@dataclass(frozen=True)
class Feature:
    """One entry of `info.json`'s `features`.

    Attributes:
        dtype: `image`, `video`, `string`, or a numpy dtype's name.
        shape: per frame; images are (H, W, 3); a single number is (1,).
        names: of the components or axes; None where there are none.
        info: what a video's codec made of it; None otherwise.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] | None = None

    @property
    def visual(self) -> bool:
        return self.dtype in ("image", "video")

    def to_dict(self) -> dict[str, Any]:
        """As `info.json` holds it."""
        record: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}
        return record if self.info is None else {**record, "info": dict(self.info)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Feature:
        """Inverse of `to_dict`."""
        return cls(record["dtype"], tuple(record["shape"]), record.get("names"), record.get("info"))


INDEX_FEATURES = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}


def features_of(frames: Mapping[str, np.ndarray], embodiment: Embodiment, images: str) -> dict[str, Feature]:
    """The features that an episode's arrays (N, ...) make, index columns included, cameras first.

    Raises:
        ValueError: arrays and embodiment disagree, or a key cannot be stored.
    """
    features: dict[str, Feature] = {}
    for camera in embodiment.cameras:
        features[IMAGES + camera.name] = Feature(
            images, (camera.height, camera.width, 3), ["height", "width", "channels"]
        )
        if camera.depth:
            features[DEPTH + camera.name] = Feature("float32", (camera.height, camera.width))
    if embodiment.state is not None:
        features[STATE] = Feature("float32", (embodiment.state.dim,), list(embodiment.state.names))
    text = embodiment.action.kind in ("text", "gui")
    names = list(embodiment.action.names) if embodiment.action.kind == "continuous" else ["index"]
    features[ACTION] = Feature("string", (1,)) if text else Feature("float32", (len(names),), names)
    for key in frames:
        if key not in features and key not in INDEX_FEATURES and key != TASK:
            features[key] = _extra_feature(key, np.asarray(frames[key]))
    for key, feature in features.items():
        if key not in frames:
            raise ValueError(f"the episode has no '{key}', which the embodiment {embodiment.name} declares")
        _check(key, np.asarray(frames[key]), feature)
    return {**features, **INDEX_FEATURES}


def _extra_feature(key: str, values: np.ndarray) -> Feature:
    if "/" in key:
        raise ValueError(f"a key cannot hold '/': '{key}'")
    if key.startswith(IMAGES):
        raise ValueError(f"'{key}' is a camera that the embodiment does not declare")
    if values.dtype.kind not in "fiubUO":
        raise ValueError(f"'{key}' has dtype {values.dtype}, which cannot be stored")
    dtype = {"f": "float32", "i": "int64", "u": "int64", "b": "bool"}.get(values.dtype.kind, "string")
    return Feature(dtype, values.shape[1:] or (1,))


def _check(key: str, values: np.ndarray, feature: Feature) -> None:
    shape = values.shape[1:] or (1,)
    if shape != feature.shape:
        raise ValueError(f"'{key}' has shape {shape} per frame, but {feature.shape} is declared")
    if feature.visual and values.dtype != np.uint8:
        raise ValueError(f"'{key}' holds images and is uint8, got {values.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(f"'{key}' is not finite at frame {frame}")


def column_type(feature: Feature) -> pa.DataType:
    """The Arrow type of a column; 2-D and larger are nested lists."""
    if feature.dtype == "image":
        return IMAGE_TYPE
    value = pa.string() if feature.dtype == "string" else pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:
        return pa.list_(value, feature.shape[0])
    for _ in feature.shape:
        value = pa.list_(value)
    return value


def to_column(values: np.ndarray, feature: Feature) -> pa.Array:
    """An Arrow column from an array (N, *shape); not for images."""
    if feature.dtype == "string":
        return pa.array([str(value) for value in values.reshape(len(values))], pa.string())
    values = np.ascontiguousarray(values, dtype=np.dtype(feature.dtype))
    column = pa.array(values.reshape(-1))
    if feature.shape == (1,):
        return column
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(column, feature.shape[0])
    for axis in range(len(feature.shape) - 1, -1, -1):
        size = feature.shape[axis]
        offsets = np.arange(0, len(column) + 1, size, dtype=np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def from_column(column: pa.ChunkedArray, feature: Feature) -> np.ndarray:
    """Inverse of `to_column`: (N, *shape), or (N,) where the shape is (1,). Fresh memory."""
    count = len(column)
    if feature.dtype == "string":
        return np.array(column.to_pylist(), dtype=object)
    parts = []
    for chunk in column.chunks:
        while isinstance(chunk, pa.ExtensionArray):
            chunk = chunk.storage
        while pa.types.is_nested(chunk.type):
            chunk = chunk.flatten()
        parts.append(chunk.to_numpy(zero_copy_only=False))
    values = np.concatenate(parts) if parts else np.empty(0)
    return values.astype(np.dtype(feature.dtype)).reshape(
        (count,) if feature.shape == (1,) else (count, *feature.shape)
    )


def data_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Schema of the `data` files, with the metadata Hugging Face `datasets` reads features from."""
    columns = {key: feature for key, feature in features.items() if feature.dtype != "video"}
    described = {"info": {"features": {key: _huggingface(feature) for key, feature in columns.items()}}}
    schema = pa.schema([(key, column_type(feature)) for key, feature in columns.items()])
    return schema.with_metadata({"huggingface": json.dumps(described)})


def _huggingface(feature: Feature) -> dict[str, Any]:
    if feature.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "List"}
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": f"Array{len(feature.shape)}D"}


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """`meta/tasks.parquet`: the instruction as a pandas index, as LeRobot's `pandas.read_parquet` expects."""
    text = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    index = {
        "name": "task_index",
        "field_name": "task_index",
        "pandas_type": "int64",
        "numpy_type": "int64",
        "metadata": None,
    }
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": [index, text], "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def make_info(
    robot: str, fps: float, features: Mapping[str, Feature], episodes: int, frames: int, tasks: int
) -> dict[str, Any]:
    """`meta/info.json`."""
    videos = any(feature.dtype == "video" for feature in features.values())
    return {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if videos else None,
        "features": {key: feature.to_dict() for key, feature in features.items()},
    }


def file_location(number: int) -> dict[str, int]:
    """Chunk and file index of the n-th file."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}
