"""Exact statistics of features, in the shapes LeRobot stores.

`min, max, mean, std, count, q01, q10, q50, q90, q99` of every numeric feature, where `count` is the number of frames
and a quantile interpolates linearly between the two nearest values (numpy's default). LeRobot itself subsamples images,
bins quantiles and averages them over episodes; here they are those of all values. An image has 256 levels, so its
histogram holds
all there is to know: per-episode histograms (C, 256) add up to the data set's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from embodied.data.lerobot.format import QUANTILES, Feature

Stats = dict[str, dict[str, np.ndarray]]
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)


def histogram(images: np.ndarray) -> np.ndarray:
    """How often each level occurs in each channel: images (..., H, W, C) uint8 to (C, 256) int64."""
    channels = images.shape[-1]
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(channels)]).astype(np.int64)


def image_stats(counts: np.ndarray, frames: int) -> dict[str, np.ndarray]:
    """Statistics in [0, 1], each (C, 1, 1), from a histogram (C, 256) over `frames` frames."""
    levels = np.arange(256) / 255
    total = counts.sum(axis=1, keepdims=True)
    mean = (counts * levels).sum(axis=1, keepdims=True) / total
    variance = (counts * (levels - mean) ** 2).sum(axis=1, keepdims=True) / total
    seen = [np.flatnonzero(row) for row in counts]
    stats = {
        "min": np.array([levels[row[0]] for row in seen]),
        "max": np.array([levels[row[-1]] for row in seen]),
        "mean": mean[:, 0],
        "std": np.sqrt(variance[:, 0]),
    }
    stats |= {name: np.array([_level_at(row, q) for row in counts]) / 255 for name, q in QUANTILES.items()}
    shaped = {name: value.reshape(-1, 1, 1) for name, value in stats.items()}
    return {**shaped, "count": np.array([frames])}


def _level_at(row: np.ndarray, q: float) -> float:
    ends = np.cumsum(row)
    position = q * (ends[-1] - 1)
    below, above = (
        int(np.searchsorted(ends, index, side="right")) for index in (np.floor(position), np.ceil(position))
    )
    return below + (above - below) * (position - np.floor(position))


def column_stats(values: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics over frames of a numeric feature (N, ..., D), per entry of the last axis: (D,); (1,) of (N,)."""
    flat = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values.reshape(-1, 1)
    exact = flat.astype(np.float64)
    mean = exact.mean(axis=0)
    stats = {"min": flat.min(axis=0), "max": flat.max(axis=0), "mean": mean, "std": exact.std(axis=0)}
    quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
    return {**stats, "count": np.array([len(values)]), **dict(zip(QUANTILES, quantiles, strict=True))}


def stats_columns(features: Mapping[str, Feature], episodes: Iterable[Stats]) -> dict[str, pa.Array]:
    """`stats/<feature>/<name>` columns of `meta/episodes`, one row per episode."""
    rows = list(episodes)
    columns = {}
    for key, feature in features.items():
        if feature.dtype == "string":
            continue
        for name in NAMES:
            values = [row[key][name].tolist() for row in rows]
            columns[f"stats/{key}/{name}"] = pa.array(values, _stat_type(feature, name))
    return columns


def _stat_type(feature: Feature, name: str) -> pa.DataType:
    if name == "count":
        return pa.list_(pa.int64())
    if feature.visual:
        return pa.list_(pa.list_(pa.list_(pa.float64())))
    kind = np.dtype(feature.dtype).kind
    exact = name in ("min", "max") and kind in "iub"
    return pa.list_((pa.bool_() if kind == "b" else pa.int64()) if exact else pa.float64())


def to_json(stats: Stats) -> dict[str, Any]:
    """Plain lists, as `meta/stats.json` holds them."""
    return {key: {name: value.tolist() for name, value in entry.items()} for key, entry in stats.items()}


def from_json(record: Mapping[str, Any]) -> Stats:
    """Inverse of `to_json`."""
    return {key: {name: np.asarray(value) for name, value in entry.items()} for key, entry in record.items()}
