"""robomimic's HDF5: one group per demonstration (Mandlekar et al. 2021, `robomimic/docs/datasets/overview.md`).

    data                       attribute env_args: JSON of env_name, env_kwargs (control_freq, ...)
    data/demo_3                attribute num_samples
    data/demo_3/actions        (N, A)
    data/demo_3/obs/<key>      (N, ...), images (N, H, W, 3) uint8
    data/demo_3/rewards, dones, states
    mask/<name>                names of the demonstrations of a subset (train, valid, 20_percent, ...)

LIBERO's files are of the same form and add `problem_info` with the instruction. Keys are paths inside a demonstration.

An HDF5 file can point at other files (external and soft links, external and virtual storage). None of those are
followed: a dataset that came from elsewhere must not read what lies beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embodied.building import nearest
from embodied.data.formats.base import TEXT, Entry, Keys, Source, affordable, cameras_of, first_present, present

PROPRIOCEPTION = (
    ("obs/robot0_eef_pos", "obs/robot0_eef_quat", "obs/robot0_gripper_qpos"),
    ("obs/ee_states", "obs/gripper_states"),
)
EXTRA = {"next.reward": "rewards", "next.done": "dones", "observation.environment_state": "obs/object"}


class Robomimic(Source):
    """A robomimic file.

    Args:
        root: the `.hdf5` file.
        subset: a name in `mask`; all demonstrations, unless given.

    Raises:
        ValueError: it is no such file, is damaged, points outside itself, or has no such subset.
        FileNotFoundError: it is missing.
    """

    format = "robomimic"

    def __init__(self, root: str | Path, subset: str | None = None) -> None:
        self.root = Path(root)
        self.files = [self.root]
        if not self.root.is_file():
            raise FileNotFoundError(2, "missing robomimic file", str(self.root))
        try:
            self._file = h5py.File(self.root, "r")
        except OSError as error:
            raise ValueError(f"{self.root} is not an HDF5 file, or was cut short ({_line(error)})") from None
        data = self._group("data")
        self.names = sorted((name for name in data if re.fullmatch(r"demo_\d+", name)), key=lambda n: int(n[5:]))
        if not self.names:
            raise ValueError(f"{self.root}: 'data' holds no demonstrations (demo_0, demo_1, ...): not a robomimic file")
        if subset is not None:
            self.names = self._subset(subset)
        self.entries = self._described(self.names[0])
        environment, problem = self._json(data, "env_args"), self._json(data, "problem_info")
        self.robot = _robot(environment)
        rate = (environment.get("env_kwargs") or {}).get("control_freq")
        self.fps = float(rate) if isinstance(rate, int | float) and rate > 0 else None
        told = problem.get("language_instruction")
        self.instruction = " ".join(map(str, told)) if isinstance(told, list) else told

    def habit(self) -> Keys:
        """Every image; end effector and gripper as state; `actions`; rewards, dones and object poses beside them."""
        images = cameras_of({key: entry for key, entry in self.entries.items() if key.startswith("obs/")})
        return Keys(
            cameras=images,
            state=first_present(self.entries, PROPRIOCEPTION),
            action=first_present(self.entries, [["actions"]]),
            extra=present(self.entries, EXTRA),
        )

    def read(self, number: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Arrays of a demonstration; errors as `Source.read`."""
        group = self._group(f"data/{self.names[number]}")
        count = group.attrs.get("num_samples")
        result = {}
        for key in keys:
            stored = self._dataset(group, key)
            affordable(stored.shape, stored.dtype, f"'{key}'")
            if count is not None and (not stored.shape or stored.shape[0] != int(count)):
                raise ValueError(f"'{key}' has {stored.shape[:1]} steps, but num_samples says {int(count)}")
            try:
                result[key] = stored[()]
            except OSError as error:
                raise ValueError(f"'{key}' is damaged ({_line(error)})") from None
        return result

    def record(self, number: int) -> dict[str, Any]:
        """The demonstration's name in the file."""
        return {"demonstration": self.names[number]}

    def _described(self, name: str) -> dict[str, Entry]:
        """What a demonstration holds, from its first; `next_obs` is `obs` one step later."""
        entries: dict[str, Entry] = {}
        demonstration = self._group(f"data/{name}")
        for key in demonstration:
            if key == "next_obs":
                continue
            found = self._child(demonstration, key)
            inner = {f"{key}/{one}": self._child(found, one) for one in found} if isinstance(found, h5py.Group) else {}
            for path, stored in (inner or {key: found}).items():
                if isinstance(stored, h5py.Dataset) and stored.ndim and stored.dtype.kind in "fiub":
                    entries[path] = Entry(stored.shape[1:], stored.dtype.name)
                elif isinstance(stored, h5py.Dataset) and h5py.check_string_dtype(stored.dtype):
                    entries[path] = Entry((), TEXT)
        return entries

    def _subset(self, subset: str) -> list[str]:
        masks = self._group("mask") if "mask" in self._file else {}
        if subset not in masks:
            raise ValueError(f"{self.root} has no subset '{subset}'{nearest(subset, list(masks))}")
        stored = self._child(masks, subset)
        chosen = [name.decode() if isinstance(name, bytes) else str(name) for name in stored[()]]
        unknown = [name for name in chosen if name not in self.names]
        if unknown or not chosen:
            raise ValueError(
                f"{self.root}: mask '{subset}' names {unknown[0] if unknown else 'no demonstration'}, absent"
            )
        return sorted(set(chosen), key=lambda name: int(name[5:]))

    def _group(self, path: str) -> h5py.Group:
        place: Any = self._file
        for part in path.split("/"):
            place = self._child(place, part)
            if not isinstance(place, h5py.Group):
                raise ValueError(f"{self.root}: '{path}' is no group: not a robomimic file")
        return place

    def _dataset(self, group: h5py.Group, key: str) -> h5py.Dataset:
        place: Any = group
        for part in key.split("/"):
            if not isinstance(place, h5py.Group) or part not in place:
                raise ValueError(f"there is no '{key}'{nearest(key, self.entries)}")
            place = self._child(place, part)
        entry = self.entries[key]
        if not isinstance(place, h5py.Dataset) or (entry.dtype != TEXT and place.dtype.kind not in "fiub"):
            raise ValueError(f"'{key}' is not an array of numbers")
        if place.external or place.is_virtual:
            raise ValueError(f"'{key}' is stored in another file, which is not followed")
        if place.shape[1:] != entry.shape:
            raise ValueError(f"'{key}' is {place.shape[1:]} per step, but {entry.shape} in {self.names[0]}")
        return place.asstr() if entry.dtype == TEXT else place

    def _child(self, group: Any, name: str) -> Any:
        """A member of a group, only where it lies in this file under this name."""
        link = group.get(name, getlink=True)
        if link is None:
            raise ValueError(f"{self.root} has no '{name}' in '{group.name}': not a robomimic file, or cut short")
        if not isinstance(link, h5py.HardLink):
            kind = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
            raise ValueError(f"{self.root}: '{group.name}/{name}' is a link to {kind} ({link.path}): not followed")
        try:
            return group[name]
        except (KeyError, OSError) as error:
            raise ValueError(f"{self.root}: '{group.name}/{name}' is damaged ({_line(error)})") from None

    def _json(self, group: h5py.Group, name: str) -> dict[str, Any]:
        text = group.attrs.get(name)
        if text is None:
            return {}
        try:
            found = json.loads(text)
        except (TypeError, ValueError):
            raise ValueError(f"{self.root}: attribute {name} of 'data' is not valid JSON") from None
        return found if isinstance(found, dict) else {}


def _robot(environment: Mapping[str, Any]) -> str:
    robots = (environment.get("env_kwargs") or {}).get("robots") or environment.get("env_name") or "unknown"
    return "+".join(map(str, robots)) if isinstance(robots, list) else str(robots)


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
