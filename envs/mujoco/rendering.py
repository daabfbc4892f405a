"""Offscreen pictures of a MuJoCo scene: fast on a CPU, honest about what was left out, clear when OpenGL is missing.

MuJoCo picks its OpenGL when it is imported and fails obscurely where that is broken, even for physics alone. Here
`mujoco` itself always imports (`load_mujoco`), and OpenGL is looked for when the first picture is taken, in the process
that takes it (`envs.mujoco.opengl`).

Shadows, reflections and multisampling cost a CPU ten times the rest of the picture. They change pixels, so whether they
are drawn is part of a camera's `renderer`. What lies outside a camera's view costs as much as what lies inside; it is
skipped, which changes no pixel. The rest is the meshes' triangles: a picture of 64 x 64 costs nearly as much as one of
128 x 128.
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.building import nearest
from embodied.spec import Camera
from envs.mujoco.opengl import RenderingUnavailable, load_mujoco, open_context, unavailable

HIDDEN = 5
"""A geometry group that MuJoCo does not draw unless asked to."""


@dataclass(frozen=True)
class View:
    """One camera of a scene, and how its picture is taken.

    Attributes:
        name: the camera's name in the model.
        height, width: pixels.
        upside_down: the model mounts this camera upside down: turn the picture by 180 degrees.
        position: put the camera here instead, metres, in the frame of the body it is mounted on.
    """

    name: str
    height: int
    width: int
    upside_down: bool = False
    position: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Solid:
    """A thing that is drawn and is in no model.

    Attributes:
        shape: `box`, `ball` or `cylinder`, upright.
        size: half its extent in every direction, metres.
        colour: red, green and blue, 0 to 1.
        place: its centre in the world, metres.
    """

    shape: str
    size: float
    colour: tuple[float, float, float]
    place: tuple[float, float, float]


@dataclass(frozen=True)
class Quality:
    """What is drawn besides the bodies themselves.

    Attributes:
        shadows, reflections: whether to draw them.
        samples: samples per pixel against jagged edges; 0 for none.
    """

    shadows: bool = False
    reflections: bool = False
    samples: int = 0

    def camera(self, view: View) -> Camera:
        """The camera as a policy sees it, with all that changes its pixels."""
        parts = [f"shadow={self.shadows:d}", f"reflection={self.reflections:d}", f"offsamples={self.samples}"]
        if view.upside_down:
            parts.append("turned=180")
        if view.position is not None:
            parts.append("position=" + "/".join(f"{x:g}" for x in view.position))
        return Camera(view.name, view.height, view.width, "mujoco:" + ",".join(parts))


def views_of(
    names: Sequence[str],
    known: Sequence[str],
    height: int,
    width: int,
    upside_down: Sequence[str] = (),
    positions: Mapping[str, Sequence[float]] | None = None,
) -> tuple[View, ...]:
    """The views that a config asks for.

    Raises:
        ValueError: a camera the model lacks or that is named twice, a size or a position that makes no sense.
    """
    for name in [*names, *(positions or {})]:
        if name not in known:
            raise ValueError(f"no camera '{name}'{nearest(name, known)}")
    if len(set(names)) != len(names):
        raise ValueError(f"a camera is named twice in {', '.join(names)}")
    if not (8 <= height <= 4096 and 8 <= width <= 4096):
        raise ValueError(f"a picture of {height} x {width} pixels: height and width are 8 to 4096")
    views = []
    for name in names:
        at = (positions or {}).get(name)
        if at is not None and len(at) != 3:
            raise ValueError(f"the position of camera '{name}' is x, y, z in metres, got {list(at)}")
        position = None if at is None else (float(at[0]), float(at[1]), float(at[2]))
        views.append(View(name, height, width, name in upside_down, position))
    return tuple(views)


def place_cameras(model: Any, views: Sequence[View]) -> None:
    """Move the cameras whose view gives a position; once, right after the model was compiled."""
    for view in views:
        if view.position is not None:
            model.camera(view.name).pos = view.position


class Renderer:
    """Takes pictures of one or several models with one OpenGL context.

    Nothing is opened before the first picture. A process forked after that cannot draw (the driver's threads did not
    come along) and says so.

    Args:
        views: the cameras to draw.
        quality: what to draw.
        keep: for how many models geometry and textures stay loaded; the least recently drawn is dropped.
    """

    def __init__(self, views: Sequence[View], quality: Quality, keep: int = 1) -> None:
        self.views, self.quality, self.keep = tuple(views), quality, max(keep, 1)
        self._context: Any = None
        self._loaded: OrderedDict[int, _Loaded] = OrderedDict()

    def render(self, model: Any, data: Any, extras: Sequence[Solid] = ()) -> dict[str, np.ndarray]:
        """One picture per view, by camera name: uint8 (H, W, 3), RGB, the right way up.

        Args:
            model, data: the scene.
            extras: things to draw that the model does not have.

        Raises:
            RenderingUnavailable: no OpenGL works here.
        """
        if not self.views:
            return {}
        loaded = self._load(model)
        return {view.name: loaded.draw(data, view, extras) for view in self.views}

    def forget(self, model: Any) -> None:
        """Drop what was loaded for a model."""
        loaded = self._loaded.pop(id(model), None)
        if loaded is not None:
            self._context.make_current()
            loaded.free()

    def close(self) -> None:
        """Give the context back; the next picture opens a new one."""
        if self._context is not None and _opened_by == os.getpid():
            self._context.make_current()
            for loaded in self._loaded.values():
                loaded.free()
            self._context.free()
            self._context = None
            self._loaded.clear()

    def _load(self, model: Any) -> _Loaded:
        global _opened_by
        if _opened_by not in (None, os.getpid()):
            raise RenderingUnavailable(
                "this process was forked after its parent had drawn pictures, which breaks OpenGL: "
                "start it with multiprocessing's 'spawn' method"
            )
        if self._context is None:
            self._context = open_context(max(v.width for v in self.views), max(v.height for v in self.views))
            _opened_by = os.getpid()
            _open.add(self)
            atexit.register(_close_all)  # after MuJoCo's own clean-up was registered, so that it runs before
        self._context.make_current()
        if id(model) not in self._loaded:
            while len(self._loaded) >= self.keep:
                self._loaded.popitem(last=False)[1].free()
            self._loaded[id(model)] = _Loaded(model, self.views, self.quality)
        self._loaded.move_to_end(id(model))
        self._loaded[id(model)].select()
        return self._loaded[id(model)]


_opened_by: int | None = None
_open: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


class _Loaded:
    """A model's geometry and textures, loaded into the current OpenGL context."""

    def __init__(self, model: Any, views: Sequence[View], quality: Quality) -> None:
        self._mujoco = mujoco = load_mujoco()
        self.model = model
        visual = model.vis
        visual.global_.offwidth = max(view.width for view in views)
        visual.global_.offheight = max(view.height for view in views)
        visual.quality.offsamples = quality.samples
        if not quality.shadows:
            visual.quality.shadowsize = 0  # the default shadow map takes 64 MB and 0.2 s
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 200)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = quality.shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = quality.reflections
        self._option, self._perturb, self._camera = mujoco.MjvOption(), mujoco.MjvPerturb(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._cameras = {view: model.camera(view.name).id for view in views}
        self._groups, self._radius = model.geom_group.copy(), model.geom_rbound.copy()
        self._radius[self._radius == 0] = np.inf  # planes
        # A shadow, or a reflection, can be in the picture while its body is not.
        self._cull = not (quality.shadows or quality.reflections)
        try:
            self._gl = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except mujoco.FatalError as error:
            raise unavailable([str(error)]) from None

    def select(self) -> None:
        """Draw into this model's own buffer: MuJoCo would draw the first picture into that of the model before."""
        self._mujoco.mjr_setBuffer(self._mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._gl)

    def draw(self, data: Any, view: View, extras: Sequence[Solid]) -> np.ndarray:
        mujoco, model = self._mujoco, self.model
        self._camera.fixedcamid = self._cameras[view]
        if self._cull:
            model.geom_group[self._out_of_sight(data, view)] = HIDDEN
        mujoco.mjv_updateScene(
            model, data, self._option, self._perturb, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        model.geom_group[:] = self._groups
        for solid in extras:
            self._add(solid)
        rectangle = mujoco.MjrRect(0, 0, view.width, view.height)
        mujoco.mjr_render(rectangle, self._scene, self._gl)
        picture = np.empty((view.height, view.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, rectangle, self._gl)
        # OpenGL's rows run upwards. Turned by 180 degrees they are right, and the columns are wrong.
        return np.ascontiguousarray(picture[:, ::-1] if view.upside_down else picture[::-1])

    def _add(self, solid: Solid) -> None:
        mujoco, scene = self._mujoco, self._scene
        kinds = {"box": "mjGEOM_BOX", "ball": "mjGEOM_SPHERE", "cylinder": "mjGEOM_CYLINDER"}
        kind = getattr(mujoco.mjtGeom, kinds[solid.shape])
        size, colour = np.full(3, solid.size), np.array([*solid.colour, 1.0], np.float32)
        mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, size, np.array(solid.place), np.eye(3).ravel(), colour)
        scene.ngeom += 1

    def _out_of_sight(self, data: Any, view: View) -> np.ndarray:
        """Which bodies' bounding spheres lie wholly outside the camera's view, (geoms,), bool."""
        camera = self._cameras[view]
        rotation = data.cam_xmat[camera].reshape(3, 3)  # columns: right, up, backwards
        right, up, back = ((data.geom_xpos - data.cam_xpos[camera]) @ rotation).T
        tan_up = np.tan(np.radians(self.model.cam_fovy[camera]) / 2)
        tan_right = tan_up * view.width / view.height
        # distance to the two nearer side planes of the pyramid; positive is outside
        above = (np.abs(up) + back * tan_up) / np.hypot(1, tan_up)
        beside = (np.abs(right) + back * tan_right) / np.hypot(1, tan_right)
        return np.maximum(np.maximum(above, beside), back) > self._radius * 1.01

    def free(self) -> None:
        self._gl.free()
