"""Benchmarks' files of instructions and episodes, and what agents did, as records.

What an agent did in a graph of viewpoints is a list: each step is a viewpoint, or `[viewpoint, heading, elevation]` as
Matterport3DSimulator writes it, or a list of viewpoints passed in one action as DUET's family writes it.

What an agent did in a continuous world is where it was, (x, y, z) in metres, at the start and after every action, how
far it was from the goal each time along the shortest way, as the simulator that it walked in measured it, and whether
it called stop: `{"episode_id": ..., "positions": [[x, y, z], ...], "distances": [...], "stop": true}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.evaluation.scorers.reading import References, Skipped, Unfit, read_predictions

IDS = ("instr_id", "inst_idx", "episode_id")
"""What official scorers call a prediction's id."""


class Instructions(References):
    """Paths of which each has several instructions; an agent is asked one at a time.

    Args:
        rows, id, fields, only: as of `References`; `id` names a path.
        instructions: the key of a path's list of instructions. Instruction k of path p is sample `p_k`; null: a row is
            one sample, under its own id.
        per_path: how many of a path's instructions count: Room-to-Room's scorer asks for three of each, though 14
            paths of its training split have a fourth. null: all.
        keep: other keys of a prediction's row that the scorer needs, where they are there.
    """

    def __init__(
        self,
        rows: str | None = None,
        id: str | Sequence[str] | None = "path_id",
        fields: Mapping[str, str | Sequence[str]] | None = None,
        only: Mapping[str, Any] | None = None,
        instructions: str | None = "instructions",
        per_path: int | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        super().__init__(rows, id, fields, (), (), only)
        self.instructions, self.per_path, self.keep = instructions, per_path, tuple(keep)

    def read(self, path: str | Path, skipped: Skipped) -> dict[str, tuple[str, dict[str, Any]]]:
        paths = super().read(path, skipped)
        if self.instructions is None:
            return paths
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for name, (where, reference) in paths.items():
            said = reference.get(self.instructions)
            if not isinstance(said, list) or len(said) < (self.per_path or 1):
                wanted = f"{self.per_path} " if self.per_path else ""
                skipped.add(f"{where} (path {name}) has no list of {wanted}'{self.instructions}'")
                continue
            for place, instruction in enumerate(said[: self.per_path]):
                one = {key: value for key, value in reference.items() if key != self.instructions}
                found[f"{name}_{place}"] = (where, {**one, "instruction": instruction})
        if not found:
            raise ValueError(f"{path} holds no instructions")
        return found

    def predictions(self, path: str | Path, skipped: Skipped) -> dict[str, tuple[str, Any]]:
        return read_predictions(path, IDS, skipped, self.prediction)

    def prediction(self, where: str, row: Any, name: str) -> dict[str, Any]:
        """`path`: the viewpoints in order; and what is to be kept of the row."""
        steps = row.get("trajectory", row.get("path")) if isinstance(row, dict) else row
        kept = {key: row[key] for key in self.keep if key in row} if isinstance(row, dict) else {}
        if isinstance(steps, dict):  # SOON's: the path with where the object is seen
            kept |= {key: steps[key] for key in self.keep if key in steps}
            steps = steps.get("path")
        path = viewpoints(steps)
        if not path:
            raise Unfit(
                f"{where}: sample {name} has no trajectory: a list of viewpoints, or of [viewpoint, heading, "
                "elevation], is needed"
            )
        return {"path": path, **kept}


class Episodes(References):
    """Episodes in habitat-lab's format: `{"episodes": [...]}`, gzipped or not.

    Args:
        rows, id, fields, only: as of `References`.
        keep: other keys of a prediction's row that the scorer needs; each has to be there.
    """

    def __init__(
        self,
        rows: str | None = "episodes",
        id: str | Sequence[str] | None = "episode_id",
        fields: Mapping[str, str | Sequence[str]] | None = None,
        only: Mapping[str, Any] | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        super().__init__(rows, id, fields, (), (), only)
        self.keep = tuple(keep)

    def predictions(self, path: str | Path, skipped: Skipped) -> dict[str, tuple[str, Any]]:
        return read_predictions(path, IDS, skipped, self.prediction)

    def prediction(self, where: str, row: Any, name: str) -> dict[str, Any]:
        """`positions` (t, 3) and `distances` (t) as arrays, `stop`; and what is to be kept of the row."""
        if not isinstance(row, dict):
            raise Unfit(f"{where}: episode {name} is no row with positions and distances")
        positions = numbers(row.get("positions"), 3)
        if positions is None:
            raise Unfit(f"{where}: episode {name} has no 'positions': a list of [x, y, z] in metres is needed")
        found: dict[str, Any] = {"positions": positions}
        for key in self.keep:
            if key not in row:
                raise Unfit(f"{where}: episode {name} has no '{key}'")
            found[key] = row[key]
        if "distances" in found:
            distances = numbers(found["distances"], None)
            if distances is None or len(distances) != len(positions) or (distances < 0).any():
                raise Unfit(
                    f"{where}: episode {name} needs 'distances' to the goal, finite, in metres, one for each of its "
                    f"{len(positions)} positions"
                )
            found["distances"] = distances
        if "stop" in found and not isinstance(found["stop"], bool):
            raise Unfit(f"{where}: episode {name} has 'stop' {found['stop']!r}: true or false is needed")
        return found


def viewpoints(steps: Any) -> list[str] | None:
    """The viewpoints of a trajectory in order; None where it is none."""
    found: list[str] = []
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, str):
            found.append(step)
        elif isinstance(step, list) and step and all(isinstance(part, str) for part in step):
            found += step
        elif isinstance(step, list) and len(step) == 3 and isinstance(step[0], str) and _is_number(*step[1:]):
            found.append(step[0])
        else:
            return None
    return found or None


def numbers(values: Any, width: int | None) -> np.ndarray | None:
    """A list of finite numbers (width None), or of rows of them, as an array; None where it is none or empty."""
    if not isinstance(values, list) or not values:
        return None
    rows = [values] if width is None else values
    if not all(isinstance(row, list) and (width is None or len(row) == width) and _is_number(*row) for row in rows):
        return None
    return np.array(values, dtype=float)


def _is_number(*values: Any) -> bool:
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
