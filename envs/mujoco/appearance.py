"""How a MuJoCo scene looks in a perturbed episode (`envs.perturbations`): cameras, lights, colours.

Nothing that is changed here takes part in the physics. Distractors are not in the model at all: the renderer draws them
into the picture (`rendering.Renderer.render`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from envs.perturbations import Drawn

PLAIN = (0.5, 0.5, 0.5, 1.0)
"""The colour of a geometry that was given none: its material's is drawn."""
ARRAYS = (
    *("cam_pos", "cam_quat", "light_pos", "light_dir", "light_ambient", "light_diffuse", "light_specular"),
    *("mat_rgba", "geom_rgba", "site_rgba"),
)


class Appearance:
    """The looks of one compiled model.

    Args:
        model: as it was compiled.
        surroundings: materials, or bodies of geometries without a material, that are floor, table or wall.
    """

    def __init__(self, model: Any, surroundings: Collection[str] = ()) -> None:
        self._model, self._surroundings = model, frozenset(surroundings)
        headlight = model.vis.headlight
        self._headlight = [headlight.ambient, headlight.diffuse, headlight.specular]
        arrays = [getattr(model, name) for name in ARRAYS] + self._headlight
        self._usual = [(array, array.copy()) for array in arrays]

    def apply(self, drawn: Drawn, cameras: Sequence[str]) -> None:
        """Look as the episode wants it, whatever was applied before. What depends on positions is computed later."""
        for array, content in self._usual:
            array[...] = content
        for name in cameras:
            self._move(name, drawn)
        if "lighting" in drawn.levels:
            self._light(drawn)
        if "colour" in drawn.levels:
            self._paint(drawn)

    def _move(self, name: str, drawn: Drawn) -> None:
        shift = drawn.camera(name)
        if shift is None:
            return
        camera = self._model.camera(name)
        axes = Rotation.from_quat(np.roll(camera.quat, -1))  # MuJoCo's quaternions begin with w
        camera.pos = camera.pos + axes.apply(shift.offset)
        camera.quat = np.roll((axes * Rotation.from_matrix(shift.rotation)).as_quat(), 1)

    def _light(self, drawn: Drawn) -> None:
        light, model = drawn.light(), self._model
        for i in range(model.nlight):
            model.light_pos[i], model.light_dir[i] = light.turn(model.light_pos[i]), light.turn(model.light_dir[i])
        tint = light.brightness * np.array(light.colour)
        for array in (model.light_ambient, model.light_diffuse, model.light_specular, *self._headlight):
            array[...] = array * tint

    def _paint(self, drawn: Drawn) -> None:
        model = self._model
        for i in range(model.nmat):
            name = model.mat(i).name
            model.mat_rgba[i, :3] = drawn.colour(name, model.mat_rgba[i], name in self._surroundings)
        for i in range(model.ngeom):
            if model.geom_matid[i] < 0 or tuple(model.geom_rgba[i]) != PLAIN:
                around = model.geom_matid[i] < 0 and model.body(model.geom_bodyid[i]).name in self._surroundings
                model.geom_rgba[i, :3] = drawn.colour(_hue(model.geom_rgba[i]), model.geom_rgba[i], around)
        for i in range(model.nsite):
            model.site_rgba[i, :3] = drawn.colour(_hue(model.site_rgba[i]), model.site_rgba[i])


def _hue(rgba: np.ndarray) -> str:
    """A name for a colour, so that things of one colour keep one colour."""
    return "/".join(f"{x:.3f}" for x in rgba[:3])
