"""Where scenes lie on the disk, and the names of what is in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path("data/scene_datasets")
"""Where habitat-lab keeps scenes."""
_LINE = re.compile(r'(\d+),([0-9A-Fa-f]{6}),"(.*)",(-?\d+)\s*')


def find(scene: str, root: str | Path = ROOT) -> Path:
    """The file of an episode's `scene_id`.

    Args:
        scene: as episode files have it: `mp3d/17DRP5sb8fy/17DRP5sb8fy.glb`, with or without habitat-lab's own
            `data/scene_datasets/` before it.
        root: the folder that has `mp3d`, `hm3d`, ... in it.

    Raises:
        ValueError: it is not there.
    """
    root = Path(root)
    inner = scene.removeprefix(f"{ROOT.as_posix()}/")
    for file in (root / inner, Path(scene)):
        if file.is_file():
            return file
    raise ValueError(
        f"there is no scene {inner} in {root}: its owners give it to those who ask, and scenes= says where"
    )


def read_semantics(path: str | Path) -> dict[int, tuple[str, int]]:
    """The category and the region of each instance, from HM3D's `.semantic.txt`, which exported houses have too.

    Raises:
        ValueError: it is no such file, or a line of it is malformed.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    if not lines or "HM3D Semantic Annotations" not in lines[0]:
        raise ValueError(f"{path} has no semantic annotations as HM3D writes them")
    found = {}
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            parts = _LINE.fullmatch(line)
            if parts is None:
                raise ValueError(f'{path}, line {number} should be: number,colour,"category",region; got {line[:60]}')
            found[int(parts[1])] = (parts[3], int(parts[4]))
    return found
