"""A source's episodes under the keys of `embodied.spec`: what `LeRobotDataset` yields, from any format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from embodied.building import nearest
from embodied.data.formats.base import TEXT, Keys, Source, named
from embodied.data.lerobot.catalog import Catalog
from embodied.data.lerobot.conventions import derive
from embodied.data.lerobot.format import INDEX_FEATURES, Feature
from embodied.files import read_json
from embodied.progress import Progress
from embodied.spec import ACTION, IMAGES, STATE, TASK, Embodiment


class ForeignDataset:
    """The episodes of a source.

    Args:
        source: the opened file or folder.
        keys: which of its keys are what; the format's habit where a part is None.
        fps: steps per second, where the files don't tell; it must not contradict them.
        robot: name of the body, where another than the file's is wanted.
        instruction: of every episode, where the files hold none or another is wanted.
        conventions: an Embodiment, a mapping (see `lerobot.conventions`), or a JSON file of either.
        leave_out: numbers of episodes that are not converted.
        stream: where progress goes when every action has to be read for its bounds.

    Attributes:
        root, fps, cameras: as `LeRobotDataset`'s.
        keys: what is what, resolved.
        numbers: of the episodes that aren't left out.
        features: of cameras, `observation.state` and `action`.

    Raises:
        ValueError: something is not told and cannot be known, or a key isn't there; the nearest is named.
    """

    def __init__(
        self,
        source: Source,
        keys: Keys | None = None,
        fps: float | None = None,
        robot: str | None = None,
        instruction: str | None = None,
        conventions: Embodiment | Mapping[str, Any] | str | Path | None = None,
        leave_out: Sequence[int] = (),
        stream: TextIO | None = None,
    ) -> None:
        self.source, self.root, self._stream = source, source.root, stream
        if fps is None and source.fps is None:
            raise ValueError(f"{self.root} does not tell how many steps a second has: give fps")
        if fps is not None and (fps <= 0 or (source.fps is not None and fps != source.fps)):
            raise ValueError(f"fps is {fps:g}, but {self.root} was recorded at {source.fps or 'a positive rate'}")
        unknown = sorted(set(leave_out) - set(range(len(source.names))))
        if unknown:
            raise ValueError(f"{self.root} has episodes 0 to {len(self) - 1}: {unknown[0]} cannot be left out")
        self.numbers = sorted(set(range(len(source.names))) - set(leave_out))
        if not self.numbers:
            raise ValueError(f"every episode of {self.root} is left out")
        self.fps = float(fps or source.fps or 0)
        self.robot = robot or source.robot
        self.keys = _resolve(source, keys or Keys())
        self.instruction = instruction or (None if self.keys.task else source.instruction)
        if self.instruction is None and self.keys.task is None:
            raise ValueError(
                f"{self.root} holds no instruction: give instruction='what the robot is told', or keys.task"
            )
        self.cameras = tuple(self.keys.cameras or {})
        self.features = _features(source, self.keys)
        self._conventions = conventions

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.source.names)

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the file says of each episode besides."""
        return [self.source.record(number) for number in range(len(self))]

    def camera_feature(self, camera: str) -> Feature:
        """Shape of a camera's images.

        Raises:
            ValueError: there is no such camera; the nearest is named.
        """
        if camera not in self.cameras:
            raise ValueError(f"{self.root} has no camera '{camera}'{nearest(camera, self.cameras)}")
        return self.features[IMAGES + camera]

    def episode(self, number: int, cameras: Sequence[str] | None = None) -> dict[str, Any]:
        """One episode: images of `cameras` (all, unless given), state, action, extra columns and `task`.

        Returns:
            Arrays (N, ...), `observation.images.<camera>` (N, H, W, 3) uint8, `task` a str.

        Raises:
            ValueError: no such episode or camera, it is damaged, or its parts have different lengths.
        """
        if not 0 <= number < len(self):
            raise ValueError(f"{self.root} has episodes 0 to {len(self) - 1}, not {number}")
        with named(f"{self.root}: {self.source.names[number]}"):
            return self._episode(number, self.cameras if cameras is None else cameras)

    def low_dimensional(self, number: int) -> dict[str, np.ndarray]:
        """All of an episode but its images and its task."""
        return {key: value for key, value in self.episode(number, []).items() if key != TASK}

    def images(self, number: int, camera: str) -> Iterator[np.ndarray]:
        """The images (H, W, 3) uint8 that a camera saw in an episode."""
        self.camera_feature(camera)
        yield from self.episode(number, [camera])[IMAGES + camera]

    @cached_property
    def embodiment(self) -> Embodiment:
        """What the numbers mean, by the conventions given; every action is read where they tell no bounds.

        Raises:
            ValueError: conventions are missing or incomplete, or an episode is damaged.
        """
        given = self._conventions
        if isinstance(given, str | Path):
            given = read_json(given)
        if given is None:
            raise ValueError(
                f"{self.root} does not say what its actions mean, and conventions are not guessed: give conventions "
                "(a JSON file with control, space, rotation, frame and units of action and state, and the renderer)"
            )
        if isinstance(given, Embodiment):
            return given
        if "name" in given:
            return Embodiment.from_dict(given)
        catalog = Catalog(self.root, self.source.format, self.robot, self.fps, self.features, (), ())
        cameras = {name: self.camera_feature(name) for name in self.cameras}
        action = dict(given.get("action") or {})
        open_ends = {side: [0.0] * self.features[ACTION].shape[0] for side in ("low", "high") if side not in action}
        if open_ends and action:
            derive(catalog, cameras, {**given, "action": {**open_ends, **action}})  # is it complete? Before all is read
            action = {**dict(zip(("low", "high"), self._bounds(), strict=True)), **action}
        return derive(catalog, cameras, {**given, "action": action})

    @cached_property
    def _of_camera(self) -> dict[str, str]:
        return dict(self.keys.cameras or {})

    def _episode(self, number: int, cameras: Sequence[str]) -> dict[str, Any]:
        vectors = {STATE: self.keys.state or [], ACTION: self.keys.action or []}
        extra = {name: [keys] if isinstance(keys, str) else keys for name, keys in (self.keys.extra or {}).items()}
        pictures = {IMAGES + camera: self._of_camera[camera] for camera in cameras}
        wanted = [*pictures.values(), *(key for keys in (*vectors.values(), *extra.values()) for key in keys)]
        plain = list(dict.fromkeys(split_part(key)[0] for key in wanted))
        if self.instruction is None and self.keys.task is not None:
            plain.append(self.keys.task)
        data = self.source.read(number, plain)
        _same_length(data)
        result: dict[str, Any] = {key: as_bytes(data[source], source) for key, source in pictures.items()}
        for key, keys in vectors.items():
            if keys:
                result[key] = _joined(data, keys).astype(np.float32)
        for key, keys in extra.items():
            only = data[split_part(keys[0])[0]] if len(keys) == 1 else None
            result[key] = only if only is not None and "[" not in keys[0] else _joined(data, keys)
        for key, values in result.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"'{key}' is not finite at step {int(np.argwhere(~np.isfinite(values))[0][0])}")
        result[TASK] = self.instruction or _one_text(data[str(self.keys.task)], str(self.keys.task))
        return result

    def _bounds(self) -> tuple[list[float], list[float]]:
        """Of all episodes that can be read, left out or not: leaving one out later does not change the embodiment."""
        progress = Progress(len(self), "episodes looked at for the bounds of actions", stream=self._stream)
        low: Any = np.inf
        high: Any = -np.inf
        for number in range(len(self)):
            try:
                actions = self.low_dimensional(number)[ACTION]
            except ValueError as error:
                if number not in self.numbers:
                    continue
                raise ValueError(f"{error} (leave_out=[{number}] goes on without it)") from None
            low, high = np.minimum(low, actions.min(0)), np.maximum(high, actions.max(0))
            progress.advance()
        return low.tolist(), high.tolist()


def split_part(key: str) -> tuple[str, slice]:
    """`state[2:5]` is components 2 to 4 of `state`."""
    match = re.fullmatch(r"(.+?)\[(\d*):(\d*)\]", key)
    if match is None:
        return key, slice(None)
    first, last = (int(text) if text else None for text in match.groups()[1:])
    return match.group(1), slice(first, last)


def as_bytes(images: np.ndarray, key: str) -> np.ndarray:
    """Images (N, H, W, 3) as uint8, exactly.

    Raises:
        ValueError: they aren't images, or hold numbers that a byte cannot.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"'{key}' is {images.shape[1:]} per step: an image is (height, width, 3)")
    if images.dtype == np.uint8:
        return images
    whole = images.astype(np.uint8) if np.isfinite(images).all() and images.min() >= 0 and images.max() <= 255 else None
    if whole is None or (whole != images).any():
        raise ValueError(f"'{key}' holds {images.dtype} that are not whole numbers from 0 to 255: not stored exactly")
    return whole


def _resolve(source: Source, told: Keys) -> Keys:
    habit, entries = source.habit(), source.entries
    keys = Keys(
        cameras=habit.cameras if told.cameras is None else told.cameras,
        state=habit.state if told.state is None else told.state,
        action=habit.action if told.action is None else told.action,
        task=habit.task if told.task is None else told.task,
        extra=habit.extra if told.extra is None else told.extra,
    )
    numbers = ", ".join(key for key, entry in entries.items() if entry.numeric)
    if not keys.action:
        raise ValueError(f"which keys of {source.root} make the action? Give keys.action=[...], of {numbers}")
    if keys.state is None:
        raise ValueError(
            f"which keys of {source.root} make the state? Give keys.state=[...] (may be empty), of {numbers}"
        )
    for column in keys.extra or {}:
        if column in (STATE, ACTION, TASK, *INDEX_FEATURES):
            raise ValueError(f"keys.extra cannot make '{column}', which is made otherwise: choose another name")
    extra = [key for value in (keys.extra or {}).values() for key in ([value] if isinstance(value, str) else value)]
    groups = {
        "cameras": [*(keys.cameras or {}).values()],
        "state": keys.state,
        "action": keys.action,
        "task": [keys.task] if keys.task else [],
        "extra": extra,
    }
    for name, group in groups.items():
        for key in group:
            plain = split_part(str(key))[0]
            if plain not in entries:
                raise ValueError(f"{source.root} has no '{plain}' (keys.{name}){nearest(plain, entries)}")
            entry = entries[plain]
            if name in ("state", "action") and entry.dtype == TEXT:
                raise ValueError(f"'{plain}' of {source.root} is text, and cannot be a part of keys.{name}")
            if name == "cameras" and not entry.image:
                raise ValueError(f"'{plain}' of {source.root} is {entry.dtype} {entry.shape} per step, not (H, W, 3)")
            if name == "task" and entry.dtype != TEXT:
                raise ValueError(f"'{plain}' of {source.root} is {entry.dtype}, and keys.task is text")
    return keys


def _features(source: Source, keys: Keys) -> dict[str, Feature]:
    features = {
        IMAGES + name: Feature("image", source.entries[key].shape, ["height", "width", "channels"])
        for name, key in (keys.cameras or {}).items()
    }
    for name, parts in {STATE: keys.state, ACTION: keys.action}.items():
        if parts:
            names = [component for key in parts for component in _component_names(source, key)]
            features[name] = Feature("float32", (len(names),), names)
    return features


def _component_names(source: Source, key: str) -> list[str]:
    plain, part = split_part(key)
    width = int(np.prod(source.entries[plain].shape, dtype=np.int64))
    leaf = plain.rsplit("/", 1)[-1]
    names = [leaf] if width == 1 else [f"{leaf}_{index}" for index in range(width)]
    if not names[part]:
        raise ValueError(f"'{key}' takes nothing: '{plain}' of {source.root} has {width} components")
    return names[part]


def _joined(data: Mapping[str, np.ndarray], keys: Sequence[str]) -> np.ndarray:
    """Several keys as one vector (N, D)."""
    parts = [(data[plain], part) for plain, part in map(split_part, keys)]
    return np.concatenate([values.reshape(len(values), -1)[:, part] for values, part in parts], axis=1)


def _same_length(data: Mapping[str, np.ndarray]) -> None:
    (first, values), *rest = data.items()
    if len(values) == 0:
        raise ValueError(f"'{first}' has no steps")
    for key, other in rest:
        if len(other) != len(values):
            raise ValueError(f"'{key}' has {len(other)} steps, but '{first}' has {len(values)}")


def _one_text(values: np.ndarray, key: str) -> str:
    different = set(values.tolist())
    if len(different) > 1:
        raise ValueError(
            f"'{key}' changes within the episode ({', '.join(sorted(different)[:2])}): give instruction=..."
        )
    text = different.pop().strip()
    if not text:
        raise ValueError(f"'{key}' is empty: give instruction='what the robot is told'")
    return text
