"""Files of a house: its own JSON, glTF, MJCF, and a picture to look at it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embodied.building import nearest
from embodied.files import atomic_file
from envs.house.generate import generate
from envs.house.scene import Scene, build_scene
from envs.house.spec import HouseSpec

SUFFIXES = {
    ".json": "the house itself, which house= reads",
    ".glb": "glTF 2.0, for viewers and habitat-sim",
    ".xml": "MJCF, for MuJoCo",
    ".png": "its plan and views of its rooms",
}


class HouseExporter:
    """Writes one file of one house; what `embodied-house` builds.

    Args:
        options: of `generate`, for a house made from a seed.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})

    def write(self, out: Path, seed: int, house: str | None, habitat: bool, size: int) -> dict[str, Any]:
        """Write `out`; what kind of file is said by its ending.

        Args:
            out: the file.
            seed: of the house, unless `house` names the JSON of one.
            habitat: with a .glb, also what habitat-sim needs beside it.
            size: pixels of the height of a .png.

        Returns:
            Counts of `rooms`, `objects` and `parts`, and the `files` written.

        Raises:
            ValueError: an unknown ending, an option that no house has, or a file that holds no house.
        """
        if out.suffix not in SUFFIXES:
            known = ", ".join(f"{suffix} ({what})" for suffix, what in SUFFIXES.items())
            raise ValueError(f"out={out}: the ending says what to write{nearest(out.suffix, SUFFIXES)}; {known}")
        if habitat and out.suffix != ".glb":
            raise ValueError(f"habitat=true is for a .glb, and out={out} is none")
        if not 64 <= size <= 4096:
            raise ValueError(f"size={size}: a picture is 64 to 4096 pixels high")
        spec = HouseSpec.load(house) if house else generate(seed, **self._checked())
        scene = build_scene(spec)
        out.parent.mkdir(parents=True, exist_ok=True)
        files = [out]
        if out.suffix == ".json":
            spec.save(out)
        elif out.suffix == ".xml":
            from envs.house.mjcf import write_mjcf

            write_mjcf(scene, out)
        elif out.suffix == ".png":
            from PIL import Image

            with atomic_file(out) as temporary:
                Image.fromarray(look(spec, scene, size)).save(temporary, "PNG")
        else:
            from envs.house.gltf import write_glb, write_habitat

            (write_habitat if habitat else write_glb)(scene, out)
            if habitat:
                files += [out.with_suffix(end) for end in (".stage_config.json", ".semantic.glb", ".semantic.txt")]
        counts = {"rooms": len(spec.rooms), "objects": len(spec.objects), "parts": scene.parts}
        return {**counts, "files": [str(file) for file in files]}

    def _checked(self) -> dict[str, Any]:
        known = ("width", "depth", "room_area", "agent_radius", "height", "attempts")
        for name in self.options:
            if name not in known:
                raise ValueError(f"a house has no option '{name}'{nearest(name, known)}")
        return {name: value for name, value in self.options.items() if value is not None}


def plan(spec: HouseSpec, scene: Scene, size: int) -> np.ndarray:
    """(size, W, 3) uint8: the house from above, north (high y) up, without ceilings and what hangs above 2 m."""
    x0, y0, x1, y1 = spec.bounds
    scale = size / (y1 - y0)
    width = max(1, round((x1 - x0) * scale))
    x = x0 + (np.arange(width) + 0.5) / scale
    y = y1 - (np.arange(size) + 0.5) / scale
    picture = np.full((size, width, 3), 255, np.uint8)
    colours = ((scene.colours[:, :3] + scene.colours[:, 3:]) / 2).astype(np.uint8)

    def paint(bounds: tuple[float, ...], colour: np.ndarray | tuple[int, ...], is_round: bool = False) -> None:
        a, b, c, d = bounds
        rows, columns = np.flatnonzero((y >= b) & (y < d)), np.flatnonzero((x >= a) & (x < c))
        if not len(rows) or not len(columns):
            return
        inside = np.ones((len(rows), len(columns)), bool)
        if is_round:
            inside = np.hypot(y[rows, None] - (b + d) / 2, x[None, columns] - (a + c) / 2) <= (c - a) / 2
        picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][inside] = colour

    for place, room in enumerate(spec.rooms):
        paint(room.bounds, colours[scene.parts + place])
    for row in np.argsort(scene.bounds[:, 5], kind="stable"):
        a, b, low, c, d, _ = scene.bounds[row]
        if low < 2.0:
            is_wall = scene.instances[scene.instance[row]].category == "wall"
            paint((a, b, c, d), (70, 70, 74) if is_wall else colours[row], bool(scene.round[row]))
    return picture


def look(spec: HouseSpec, scene: Scene, size: int) -> np.ndarray:
    """(size, W, 3) uint8: the plan, and beside it a view of each of the four largest rooms from one of its corners."""
    from envs.house.pathfinder import PathFinder
    from envs.house.renderer import Renderer

    finder, half = PathFinder(spec), size // 2
    cameras = []
    for room in sorted(spec.rooms, key=lambda room: -room.area)[:4]:
        x0, y0, x1, y1 = room.inside
        x, y = finder.snap(np.array([x0 + 0.3, y0 + 0.3]))
        cameras.append([x, y, 1.5, math.atan2((y0 + y1) / 2 - y, (x0 + x1) / 2 - x), math.radians(-12)])
    views = list(Renderer(scene, half, half, 90, ("rgb",)).render(np.array(cameras))["rgb"])
    views += [np.full((half, half, 3), 255, np.uint8)] * (4 - len(views))
    beside = np.concatenate([np.concatenate(views[:2], 1), np.concatenate(views[2:], 1)])
    above = plan(spec, scene, len(beside))
    gap = np.full((len(beside), max(1, size // 50), 3), 255, np.uint8)
    return np.concatenate([above, gap, beside], 1)
