"""What the numbers of a dataset mean, where they come from somebody else.

A LeRobot dataset names the components of its actions and states, but says nothing of delta or absolute, of frames,
rotation or gripper sign. They are never guessed: datasets made here carry `meta/embodiment.json`, others need them
told, once:

    {"action": {"control": "absolute", "space": "joint", "rotation": "none", "frame": "none", "units": "rad"},
     "state": {"rotation": "none", "frame": "none", "units": "rad"},
     "renderer": "real"}

Names, sizes, rate and cameras are then taken from `info.json`, and bounds from the statistics unless `low` and `high`
are given. `units` is one word for all components or one each; `gripper` and `gripper_closed` are as in `ActionSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embodied.building import nearest
from embodied.data.lerobot.catalog import LEGACY_STATS, Catalog, json_lines
from embodied.data.lerobot.format import EMBODIMENT, STATS, Feature
from embodied.files import read_json
from embodied.spec import ACTION, STATE, ActionSpec, Camera, Embodiment, StateSpec

REQUIRED = {"action": ("control", "space", "rotation", "frame", "units"), "state": ("rotation", "frame", "units")}
ALLOWED = {
    "action": (*REQUIRED["action"], "low", "high", "gripper", "gripper_closed", "kind", "names"),
    "state": (*REQUIRED["state"], "names"),
}


def embodiment_of(
    catalog: Catalog, cameras: Mapping[str, Feature], given: Embodiment | Mapping[str, Any] | str | Path | None
) -> Embodiment:
    """The embodiment of a dataset: its own, or one made of `given`.

    Raises:
        ValueError: neither says; `given` is incomplete, or is an embodiment that differs from the dataset's own.
    """
    own = catalog.root / EMBODIMENT
    given = _read(given)
    if own.is_file():
        embodiment = Embodiment.from_dict(read_json(own))
        if given is not None and given != embodiment:
            raise ValueError(
                f"{own} already says what the numbers mean: leave out the conventions, or change that file"
            )
        return embodiment
    if isinstance(given, Embodiment):
        return given
    if given is None:
        raise ValueError(
            f"{catalog.root} has no {EMBODIMENT} to say what its actions mean, and conventions are not guessed: "
            "give control, space, rotation, frame and units of action and state, and the cameras' renderer"
        )
    return derive(catalog, cameras, given)


def _read(given: Embodiment | Mapping[str, Any] | str | Path | None) -> Embodiment | Mapping[str, Any] | None:
    if isinstance(given, str | Path):
        given = read_json(given)
    if isinstance(given, Mapping) and "name" in given:
        return Embodiment.from_dict(given)
    return given if given is None or isinstance(given, Embodiment | Mapping) else None


def derive(catalog: Catalog, cameras: Mapping[str, Feature], conventions: Mapping[str, Any]) -> Embodiment:
    """An embodiment from a dataset's features and the conventions that it does not tell (see the module).

    Raises:
        ValueError: a convention is missing or unknown.
    """
    _check(conventions, has_state=STATE in catalog.features, has_cameras=bool(cameras))
    if ACTION not in catalog.features:
        raise ValueError(f"{catalog.root} has no actions")
    action, state = dict(conventions["action"]), dict(conventions.get("state") or {})
    if not {"low", "high"} <= set(action):
        low, high = _bounds(catalog)
        action = {"low": low, "high": high, **action}
    return Embodiment(
        name=catalog.robot,
        action=ActionSpec(**_described(catalog.features[ACTION], action)),
        state=StateSpec(**_described(catalog.features[STATE], state)) if STATE in catalog.features else None,
        cameras=tuple(
            Camera(name, height=feature.shape[0], width=feature.shape[1], renderer=conventions["renderer"])
            for name, feature in cameras.items()
        ),
        rate=catalog.fps,
    )


def _bounds(catalog: Catalog) -> tuple[list[float], list[float]]:
    """The least and largest actions, by the statistics of the dataset or, in version 2.1, of its episodes."""
    stats, episodes = catalog.root / STATS, catalog.root / LEGACY_STATS
    rows: list[Any] = []
    if stats.is_file():
        rows = [read_json(stats)]
    elif episodes.is_file():
        rows = [row.get("stats", {}) for row in json_lines(episodes)]
    found = [row[ACTION] for row in rows if ACTION in row]
    if not found or len(found) < len(rows):
        raise ValueError(f"{catalog.root} has no statistics of its actions: give action.low and action.high")
    low = np.min([np.asarray(one["min"], np.float64) for one in found], axis=0)
    return low.tolist(), np.max([np.asarray(one["max"], np.float64) for one in found], axis=0).tolist()


def _check(conventions: Mapping[str, Any], has_state: bool, has_cameras: bool) -> None:
    wanted = {"action": True, "state": has_state}
    for key in conventions:
        if key not in ("action", "state", "renderer"):
            raise ValueError(f"conventions have no '{key}'{nearest(key, ('action', 'state', 'renderer'))}")
    missing = [
        f"{part}.{name}"
        for part, needed in wanted.items()
        if needed
        for name in REQUIRED[part]
        if name not in (conventions.get(part) or {})
    ]
    if has_cameras and "renderer" not in conventions:
        missing.append("renderer")
    if missing:
        raise ValueError(f"the conventions do not tell {', '.join(missing)}")
    for part in ("action", "state"):
        for name in conventions.get(part) or {}:
            if name not in ALLOWED[part]:
                raise ValueError(f"conventions have no '{part}.{name}'{nearest(name, ALLOWED[part])}")


def _described(feature: Feature, told: dict[str, Any]) -> dict[str, Any]:
    size = feature.shape[-1]
    names = told.pop("names", None) or _names(feature.names, size)
    units = told.pop("units")
    units = [units] * size if isinstance(units, str) else units
    bounds: dict[str, Any] = {key: tuple(told.pop(key)) for key in ("low", "high") if key in told}
    return {**told, **bounds, "names": tuple(names), "units": tuple(units)}


def _names(names: Any, size: int) -> list[str]:
    """LeRobot's names are a list, a dict of lists (`{"motors": [...]}`), a dict of positions, or nothing."""
    if isinstance(names, Mapping):
        values = list(names.values())
        names = values[0] if len(values) == 1 and isinstance(values[0], list) else list(names)
    if isinstance(names, list) and len(names) == size:
        return [str(name) for name in names]
    return [str(index) for index in range(size)]
