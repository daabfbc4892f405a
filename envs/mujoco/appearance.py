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


def dress(
    model: Any, drawn: Drawn, cameras: Sequence[str], surroundings: Collection[str] = (), kept: Collection[str] = ()
) -> None:
    """Change a model's looks, which are to be as it was compiled (`envs.mujoco.scene.Pristine` puts them back).

    What the data holds of cameras' and lights' places is not computed again.

    Args:
        model: a `mujoco.MjModel`.
        drawn: what the episode wants.
        cameras: the names of those that are drawn.
        surroundings: materials, or bodies of geometries without a material, that are floor, table or wall.
        kept: bodies that keep their colours: those that an instruction names by it.
    """
    for name in cameras:
        _move(model, name, drawn)
    if "lighting" in drawn.levels:
        _light(model, drawn)
    if "colour" in drawn.levels:
        _paint(model, drawn, surroundings, kept)


def _move(model: Any, name: str, drawn: Drawn) -> None:
    shift = drawn.camera(name)
    if shift is None:
        return
    camera = model.camera(name)
    axes = Rotation.from_quat(np.roll(camera.quat, -1))  # MuJoCo's quaternions begin with w
    camera.pos = camera.pos + axes.apply(shift.offset)
    camera.quat = np.roll((axes * Rotation.from_matrix(shift.rotation)).as_quat(), 1)


def _light(model: Any, drawn: Drawn) -> None:
    light, head = drawn.light(), model.vis.headlight
    for i in range(model.nlight):
        model.light_pos[i], model.light_dir[i] = light.turn(model.light_pos[i]), light.turn(model.light_dir[i])
    tint = light.brightness * np.array(light.colour)
    lamps = (model.light_ambient, model.light_diffuse, model.light_specular)
    for array in (*lamps, head.ambient, head.diffuse, head.specular):
        array[...] = array * tint


def _paint(model: Any, drawn: Drawn, surroundings: Collection[str], kept: Collection[str]) -> None:
    for i in range(model.nmat):
        name = model.mat(i).name
        model.mat_rgba[i, :3] = drawn.colour(name, model.mat_rgba[i], name in surroundings)
    for i in range(model.ngeom):
        body = model.body(model.geom_bodyid[i]).name
        if body not in kept and (model.geom_matid[i] < 0 or tuple(model.geom_rgba[i]) != PLAIN):
            around = model.geom_matid[i] < 0 and body in surroundings
            model.geom_rgba[i, :3] = drawn.colour(_hue(model.geom_rgba[i]), model.geom_rgba[i], around)
    for i in range(model.nsite):
        model.site_rgba[i, :3] = drawn.colour(_hue(model.site_rgba[i]), model.site_rgba[i])


def _hue(rgba: np.ndarray) -> str:
    """A name for a colour, so that things of one colour keep one colour."""
    return "/".join(f"{x:.3f}" for x in rgba[:3])
