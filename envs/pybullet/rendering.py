"""Pictures of a PyBullet scene by TinyRenderer, its software renderer: it needs no OpenGL and no driver.

Shadows are never drawn. The cost is that of the robot's triangles: a picture of 96 x 96 takes 15 ms of a core.

TinyRenderer draws transparent things opaque: a scene whose goal is a transparent copy of its object shows two objects
that nobody could tell apart. Such a scene must give its goals a colour of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.building import nearest
from embodied.spec import Camera
from envs.perturbations import CameraShift, Light
from envs.pybullet.library import load

NEAR, FAR = 0.02, 5.0
"""Metres from the camera that are drawn."""
LIGHT = (0.4, -0.5, 1.0)
AMBIENT, DIFFUSE = 0.6, 0.35


@dataclass(frozen=True)
class View:
    """One camera and how its picture is taken.

    Attributes:
        name: the camera's.
        eye, at: where it is and what it looks at, metres; in the world, or in the frame of the link it is mounted on.
        fov: the angle that the picture's height spans, degrees.
        up: the direction that is up in the picture.
        link: the robot's link it is mounted on; None where it stands still.
        height, width: pixels.
    """

    name: str
    eye: tuple[float, float, float]
    at: tuple[float, float, float]
    fov: float
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    link: int | None = None
    height: int = 96
    width: int = 96

    def camera(self, scene: str) -> Camera:
        """The camera as a policy sees it; `scene` says what was changed in the scene for the eye."""
        eye, at = ("/".join(f"{x:g}" for x in place) for place in (self.eye, self.at))
        where = f"eye={eye},at={at}" if self.link is None else f"link={self.link},eye={eye},at={at}"
        return Camera(self.name, self.height, self.width, f"tinyrenderer:shadow=0,fov={self.fov:g},{where},{scene}")


def views_of(names: Sequence[str], known: Mapping[str, View], height: int, width: int) -> tuple[View, ...]:
    """The views that a config asks for.

    Raises:
        ValueError: a camera there is not or that is named twice, a size that makes no sense.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"no camera '{name}'{nearest(name, known)}")
    if len(set(names)) != len(names):
        raise ValueError(f"a camera is named twice in {', '.join(names)}")
    if not (8 <= height <= 4096 and 8 <= width <= 4096):
        raise ValueError(f"a picture of {height} x {width} pixels: height and width are 8 to 4096")
    made = []
    for name in names:
        view = known[name]
        made.append(View(name, view.eye, view.at, view.fov, view.up, view.link, height, width))
    return tuple(made)


class TinyRenderer:
    """Takes pictures of one simulation.

    Args:
        client: PyBullet's.
        robot: the body whose links may carry a camera.
    """

    def __init__(self, client: Any, robot: int) -> None:
        self._client, self._robot = client, robot
        self._bullet = load("pybullet")

    def draw(self, view: View, shift: CameraShift | None = None, light: Light | None = None) -> np.ndarray:
        """A picture, uint8 (H, W, 3), RGB.

        Args:
            view: the camera.
            shift: by how much it is off its place.
            light: another light than the usual one.
        """
        to_camera = self._to_camera(view, shift)
        aspect = view.width / view.height
        light = light or Light()
        direction = light.turn(np.array(LIGHT))
        _, _, pixels, _, _ = self._client.getCameraImage(
            view.width,
            view.height,
            viewMatrix=to_camera.T.ravel().tolist(),  # column by column
            projectionMatrix=self._client.computeProjectionMatrixFOV(view.fov, aspect, NEAR, FAR),
            lightDirection=direction.tolist(),
            lightColor=list(light.colour),
            lightAmbientCoeff=min(AMBIENT * light.brightness, 1.0),
            lightDiffuseCoeff=DIFFUSE * light.brightness,
            lightSpecularCoeff=0.05,
            shadow=0,
            renderer=self._bullet.ER_TINY_RENDERER,
            flags=self._bullet.ER_NO_SEGMENTATION_MASK,
        )
        return np.array(pixels, np.uint8).reshape(view.height, view.width, 4)[..., :3]

    def _to_camera(self, view: View, shift: CameraShift | None) -> np.ndarray:
        """World to camera, 4 x 4; the camera looks along its own -z and y is up."""
        eye, at, up = (np.array(x, float) for x in (view.eye, view.at, view.up))
        if view.link is not None:
            state = self._client.getLinkState(self._robot, view.link)
            turn = np.array(self._client.getMatrixFromQuaternion(state[5])).reshape(3, 3)
            eye, at, up = turn @ eye + state[4], turn @ at + state[4], turn @ up
        back = (eye - at) / np.linalg.norm(eye - at)
        right = np.cross(up, back)
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(back, right), back], axis=1)  # of the camera, in the world
        if shift is not None:
            eye, axes = eye + axes @ shift.offset, axes @ shift.rotation
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = axes.T, -axes.T @ eye
        return pose
