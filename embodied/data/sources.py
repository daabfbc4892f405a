"""The demonstrations that a training names: one dataset (`data.root`), or several under names (`data.sources`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from embodied.building import nearest
from embodied.data.cache import Cache
from embodied.data.episodes import Episodes
from embodied.data.lerobot import LeRobotDataset
from embodied.data.windows import Windows

SHARED = ("cameras", "conventions", "cache", "episodes")
"""Keys of `data` that each source may give for itself."""

PARTS = ("head", "processing", "execution")
"""What of its agent a source may want otherwise than the rest."""


@dataclass(frozen=True)
class Demonstrations:
    """A dataset as a training sees it.

    Attributes:
        training: samples to learn from.
        held_out: samples of the episodes to validate on; None where none are held out.
        weight: rows of a batch in proportion to other sources.
        parts: changes to the config of this source's agent, such as `{head: {gripper: 6}}`.
    """

    training: Windows
    held_out: Windows | None
    weight: float = 1.0
    parts: Mapping[str, Any] = field(default_factory=dict)


def open_sources(
    data: Mapping[str, Any], chunk: Mapping[str, Any], seed: int, stream: TextIO | None = None
) -> dict[str, Demonstrations]:
    """Open, and decode where that was not done before, what `data` of a training's config names.

    Args:
        data: `root`, or `sources`: `{name: {root, weight, cameras, conventions, cache, episodes, head, processing,
            execution}}`, of which `root` is needed and what is not given is `data`'s own; `validation`; `processes`.
        chunk: sizes of the samples.
        seed: decides which episodes are held out.
        stream: where progress goes; None prints nothing.

    Returns:
        By name; a single dataset is called "".

    Raises:
        ValueError: neither or both of `root` and `sources`; a source without a root or with an unknown key; a share
            of held-out episodes that can't be; a dataset that can't be read.
    """
    sources = data.get("sources")
    if not sources:
        if data["root"] is None:
            raise ValueError("data.root is not given: add data.root=..., or name several datasets in data.sources")
        return {"": _opened(data, data, chunk, seed, "data.root", stream)}
    if data["root"] is not None:
        raise ValueError("give data.root (one dataset) or data.sources (several), not both")
    known = ("root", "weight", *SHARED, *PARTS)
    opened = {}
    for name, source in sources.items():
        where = f"data.sources.{name}"
        if not isinstance(source, Mapping):
            raise ValueError(f"{where} is {source!r}; a source is {{root: folder, weight: 1.0}}")
        for key in source:
            if key not in known:
                raise ValueError(f"{where} has no '{key}'{nearest(str(key), known)}")
        if not source.get("root"):
            raise ValueError(f"{where}.root is not given: add {where}.root=<folder>")
        own = {key: source[key] for key in SHARED if source.get(key) is not None}
        folder = {} if "cache" in own or data["cache"] is None else {"cache": f"{data['cache']}/{name}"}
        opened[str(name)] = _opened(data, {**source, **own, **folder}, chunk, seed, where, stream)
    return opened


def _opened(
    data: Mapping[str, Any],
    source: Mapping[str, Any],
    chunk: Mapping[str, Any],
    seed: int,
    where: str,
    stream: TextIO | None,
) -> Demonstrations:
    source = {key: data.get(key) for key in SHARED} | dict(source)
    weight = source.get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise ValueError(f"{where}.weight must be a positive number, got {weight}")
    dataset = LeRobotDataset(str(source["root"]), source["conventions"])
    count, share = source["episodes"] or len(dataset), data["validation"]
    if not isinstance(count, int) or not 1 <= count <= len(dataset):
        raise ValueError(f"{source['root']} has {len(dataset)} episodes, asked for the first {count}")
    if not 0 <= share < 1:
        raise ValueError(f"data.validation is a share of the episodes, at least 0 and below 1; got {share}")
    held = min(max(round(share * count), 1), count - 1) if share > 0 else 0
    if share > 0 and held == 0:
        raise ValueError(f"data.validation={share} holds out an episode, but of {source['root']} there is only {count}")
    order = np.random.default_rng(seed).permutation(count)
    place = {"location": source["cache"], "processes": data["processes"], "stream": stream}
    cache = Cache(dataset, source["cameras"], **place)
    whole = bool(chunk.get("whole_episodes"))
    sizes = {
        key: chunk[key] for key in (("horizon",) if whole else ("history", "horizon", "every_step")) if key in chunk
    }
    samples = Episodes if whole else Windows
    training = samples(cache, episodes=sorted(order[held:].tolist()), **sizes)
    held_out = samples(cache, episodes=sorted(order[:held].tolist()), **sizes) if held else None
    return Demonstrations(training, held_out, float(weight), {key: source[key] for key in PARTS if key in source})
