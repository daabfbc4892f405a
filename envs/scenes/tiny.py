"""Pictures of scenes by PyBullet's software renderer, with shadows and a mask that says which pixel shows which thing.

A shape is loaded once for each size. A scene's bodies are made of the loaded shapes and removed when the next scene
comes: bodies that are merely transparent cost no time, but cast shadows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from envs.pybullet.library import load, quiet
from envs.scenes.meshes import Mesh, mesh_of
from envs.scenes.scene import Scene
from envs.scenes.vocabulary import COLOURS

NEAR, FAR = 0.05, 6.0
TABLE_HALF = 4.0
SPECULAR = 0.25
LIGHT_DISTANCE = 3.0
"""Nearer, the far edge of the table lies in a shadow that nothing casts; farther, shadows are coarse."""
TEXELS, DARK = 64, 0.4


class TinySceneRenderer:
    """Draws scenes, square.

    Args:
        size: pixels of a side.
        antialias: how many pixels of each row are drawn for one of the picture; 2 takes four times as long.

    Raises:
        ValueError: PyBullet is not installed.
    """

    name = "tiny"

    def __init__(self, size: int, antialias: int = 1) -> None:
        self.size, self.antialias = size, antialias
        self._bullet = load("pybullet")
        with quiet():
            self._client = self._bullet.connect(self._bullet.DIRECT)
        corners = TABLE_HALF * np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], float)
        flat = Mesh(corners, np.tile([0.0, 0.0, 1.0], (4, 1)), corners[:, :2], np.array([(0, 1, 2), (0, 2, 3)]))
        self._table = self._body(self._load(flat, 1.0))
        self._shapes: dict[tuple[str, str], int] = {}
        self._textures: dict[str, int] = {}
        self._bodies: list[int] = []

    def draw(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """A picture and its mask.

        Returns:
            RGB, uint8 (H, W, 3), and which thing each pixel shows, int16 (H, W); -1 where it shows none.
        """
        bullet, client, side = self._bullet, self._client, self.size * self.antialias
        self._place(scene)
        bullet.changeVisualShape(self._table, -1, rgbaColor=[*scene.table, 1.0], physicsClientId=client)
        camera, light = scene.camera, scene.light
        _, _, pixels, _, mask = bullet.getCameraImage(
            side,
            side,
            viewMatrix=bullet.computeViewMatrix(camera.eye, camera.at, (0.0, 0.0, 1.0)),
            projectionMatrix=bullet.computeProjectionMatrixFOV(camera.fov, 1.0, NEAR, FAR),
            lightDirection=[2 * x for x in light.towards],
            lightDistance=LIGHT_DISTANCE,
            lightColor=light.colour,
            lightAmbientCoeff=light.ambient,
            lightDiffuseCoeff=light.diffuse,
            lightSpecularCoeff=SPECULAR,
            shadow=1,
            renderer=bullet.ER_TINY_RENDERER,
            physicsClientId=client,
        )
        things = np.full(max([self._table, *self._bodies]) + 2, -1, np.int16)  # the last: nothing at all, -1
        for i, body in enumerate(self._bodies):
            things[body] = i
        middle = slice(self.antialias // 2, None, self.antialias)
        seen = np.array(mask, np.int64).reshape(side, side)[middle, middle]
        return self._reduced(np.array(pixels, np.uint8).reshape(side, side, 4)[..., :3]), things[seen]

    def close(self) -> None:
        """End the simulation."""
        self._bullet.disconnect(self._client)

    def _reduced(self, picture: np.ndarray) -> np.ndarray:
        if self.antialias == 1:
            return picture
        blocks = picture.reshape(self.size, self.antialias, self.size, self.antialias, 3)
        return (blocks.mean((1, 3)) + 0.5).astype(np.uint8)

    def _place(self, scene: Scene) -> None:
        """Remove the bodies of the scene before; make those of this one, in its order."""
        bullet, client = self._bullet, self._client
        for body in self._bodies:
            bullet.removeBody(body, physicsClientId=client)
        self._bodies = []
        for thing in scene.things:
            look = (thing.shape, thing.size)
            if look not in self._shapes:
                self._shapes[look] = self._load(mesh_of(thing.shape), thing.radius)
            rotation = (0.0, 0.0, float(np.sin(thing.turn / 2)), float(np.cos(thing.turn / 2)))
            body = self._body(self._shapes[look], thing.middle, rotation)
            if thing.texture != "plain":
                texture = self._texture(thing.texture)
                bullet.changeVisualShape(body, -1, textureUniqueId=texture, physicsClientId=client)
            bullet.changeVisualShape(body, -1, rgbaColor=[*COLOURS[thing.colour], 1.0], physicsClientId=client)
            self._bodies.append(body)

    def _load(self, mesh: Mesh, scale: float) -> int:
        return self._bullet.createVisualShape(
            self._bullet.GEOM_MESH,
            vertices=(mesh.vertices * scale).tolist(),
            indices=mesh.triangles.ravel().tolist(),
            normals=mesh.normals.tolist(),
            uvs=mesh.uvs.tolist(),
            physicsClientId=self._client,
        )

    def _body(self, shape: int, place: Sequence[float] = (0, 0, 0), rotation: Sequence[float] = (0, 0, 0, 1)) -> int:
        return self._bullet.createMultiBody(0, -1, shape, place, rotation, physicsClientId=self._client)

    def _texture(self, name: str) -> int:
        if name not in self._textures:
            with tempfile.TemporaryDirectory() as folder:  # PyBullet reads textures from files alone
                file = Path(folder) / f"{name}.png"
                Image.fromarray(pattern(name)).save(file)
                self._textures[name] = self._bullet.loadTexture(str(file), physicsClientId=self._client)
        return self._textures[name]


def pattern(texture: str) -> np.ndarray:
    """What a thing's colour is multiplied by: one period of a texture, uint8 (H, W, 3)."""
    row, column = np.mgrid[:TEXELS, :TEXELS] * 4 // TEXELS
    dark = row % 2 == 1 if texture == "striped" else (row + column) % 2 == 1
    grey = np.where(dark, round(255 * DARK), 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
