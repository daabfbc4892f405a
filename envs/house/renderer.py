"""Images of a house: colour, metric depth, category and instance ids in one pass, for many cameras at once."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from envs.house.scene import Scene, build_scene
from envs.house.spec import HouseSpec

OUTPUTS = ("rgb", "depth", "semantic", "instance")


class HouseRenderer(Protocol):
    """What both renderers do."""

    def render(self, cameras: np.ndarray) -> dict[str, np.ndarray]: ...


def check_camera(height: int, width: int, field_of_view: float, outputs: tuple[str, ...]) -> float:
    """The focal length in pixels.

    Raises:
        ValueError: a size, field of view or output that no camera has.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} by {width} pixels should have at least one")
    if not 1 <= field_of_view <= 170:
        raise ValueError(f"field_of_view {field_of_view} should be from 1 to 170 degrees")
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        raise ValueError(f"outputs {list(outputs)} should be some of {', '.join(OUTPUTS)}")
    return width / 2 / math.tan(math.radians(field_of_view) / 2)


def check_poses(cameras: np.ndarray) -> np.ndarray:
    """Cameras as (B, 5) float32.

    Raises:
        ValueError: another shape, a number that is not finite, or a pitch that looks past straight up or down.
    """
    cameras = np.ascontiguousarray(cameras, np.float32)
    if cameras.ndim != 2 or cameras.shape[1] != 5:
        raise ValueError(f"cameras of shape {cameras.shape} should be (B, 5): x, y, z, heading, pitch")
    if not np.isfinite(cameras).all():
        raise ValueError("cameras have a number that is not finite")
    if (np.abs(cameras[:, 4]) > math.pi / 2).any():
        raise ValueError("a camera's pitch should be between straight down, -pi / 2, and straight up, pi / 2")
    return cameras


class Renderer:
    """The compiled renderer of one house.

    Args:
        house: a house, or its scene.
        height, width: of the images in pixels.
        field_of_view: across the width, in degrees.
        outputs: which images to make; fewer is faster.
    """

    def __init__(
        self,
        house: HouseSpec | Scene,
        height: int = 128,
        width: int = 128,
        field_of_view: float = 90.0,
        outputs: tuple[str, ...] = OUTPUTS,
    ) -> None:
        self.scene = house if isinstance(house, Scene) else build_scene(house)
        self.focal = check_camera(height, width, field_of_view, tuple(outputs))
        self.height, self.width, self.outputs = height, width, tuple(outputs)

    def render(self, cameras: np.ndarray) -> dict[str, np.ndarray]:
        """Render B cameras.

        Args:
            cameras: (B, 5) x, y, z in metres, heading and pitch (up is positive) in radians.

        Returns:
            `rgb` (B, H, W, 3) uint8, `depth` (B, H, W) float32 metres along the optical axis, `semantic` (B, H, W)
            uint8 Matterport3D category ids, `instance` (B, H, W) uint16; those that were asked for.

        Raises:
            ValueError: see `check_poses`.
        """
        from envs.house.raycast import cast

        cameras = check_poses(cameras)
        scene = self.scene
        shape = (len(cameras), self.height, self.width)
        want_rgb = "rgb" in self.outputs
        want_ids = "semantic" in self.outputs or "instance" in self.outputs
        rgb = np.empty((*shape, 3) if want_rgb else (1, 1, 1, 3), np.uint8)
        depth = np.empty(shape, np.float32)
        semantic = np.empty(shape if want_ids else (1, 1, 1), np.uint8)
        instance = np.empty(shape if want_ids else (1, 1, 1), np.uint16)
        n_rooms = (len(scene.colours) - scene.parts) // 2
        cast(
            cameras, scene.bounds, scene.round, scene.walls, scene.colours, scene.pattern, scene.scale, scene.semantic,
            scene.instance, scene.rooms, n_rooms, np.float32(scene.height), np.float32(self.focal),
            rgb, depth, semantic, instance, want_rgb, want_ids,
        )  # fmt: skip
        made: dict[str, np.ndarray] = {"rgb": rgb, "depth": depth, "semantic": semantic, "instance": instance}
        return {name: made[name] for name in self.outputs}
