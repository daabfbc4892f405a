"""Offscreen pictures of a MuJoCo scene: fast on a CPU, honest about what was left out, clear when OpenGL is missing.

MuJoCo picks its OpenGL when it is imported and fails obscurely where that is broken, even for physics alone. Here `mujoco`
itself always imports (`load_mujoco`), and OpenGL is looked for when the first picture is taken, in the process that takes
it: what `MUJOCO_GL` names, or else the first of egl, osmesa, glfw that works.

Shadows, reflections and multisampling cost a CPU ten times the rest of the picture. They change pixels, so whether they are
drawn is part of a camera's `renderer`. Bodies outside a camera's view cost as much as those inside; they are skipped, which
changes no pixel.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from embodied.building import nearest
from embodied.spec import Camera

BACKENDS = ("egl", "osmesa", "glfw")
OFF = ("disable", "disabled", "off", "false", "0")
MEND = "apt-get install libegl1 libgl1-mesa-dri (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa); embodied-doctor shows what works"


class RenderingUnavailable(ValueError):
    """No OpenGL works here; the message says what to install or to set."""


def load_mujoco() -> ModuleType:
    """`import mujoco`, which must not fail because OpenGL is missing: physics needs none.

    Raises:
        ValueError: MuJoCo is not installed.
    """
    wanted = os.environ.get("MUJOCO_GL")
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name == "mujoco":
            raise ValueError("MuJoCo is not installed: pip install 'embodied[mujoco]'") from None
        failure: Exception = error
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        failure = error
    if wanted is None or wanted.lower().strip() in OFF:
        raise failure
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        return importlib.import_module("mujoco")
    finally:
        os.environ["MUJOCO_GL"] = wanted


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


def place_cameras(model: Any, views: Sequence[View]) -> None:
    """Move the cameras whose view gives a position; once, right after the model was compiled."""
    for view in views:
        if view.position is not None:
            model.camera(view.name).pos = view.position


class Renderer:
    """Takes pictures of one or several models with one OpenGL context.

    Nothing is opened before the first picture, and a copy in a forked process opens its own.

    Args:
        views: the cameras to draw.
        quality: what to draw.
        keep: for how many models geometry and textures stay loaded; the least recently drawn is dropped.
    """

    def __init__(self, views: Sequence[View], quality: Quality, keep: int = 1) -> None:
        self.views, self.quality, self.keep = tuple(views), quality, max(keep, 1)
        self._context: Any = None
        self._process = 0
        self._loaded: OrderedDict[int, _Loaded] = OrderedDict()

    def render(self, model: Any, data: Any) -> dict[str, np.ndarray]:
        """One picture per view, by camera name: uint8 (H, W, 3), RGB, the right way up.

        Raises:
            RenderingUnavailable: no OpenGL works here.
        """
        if not self.views:
            return {}
        loaded = self._load(model)
        return {view.name: loaded.draw(data, view) for view in self.views}

    def forget(self, model: Any) -> None:
        """Drop what was loaded for a model."""
        loaded = self._loaded.pop(id(model), None)
        if loaded is not None and self._process == os.getpid():
            self._context.make_current()
            loaded.free()

    def close(self) -> None:
        """Give the context back; the next picture opens a new one."""
        if self._process == os.getpid() and self._context is not None:
            self._context.make_current()
            for loaded in self._loaded.values():
                loaded.free()
            self._context.free()
        self._context, self._process = None, 0
        self._loaded.clear()

    def _load(self, model: Any) -> _Loaded:
        if self._process != os.getpid():  # never opened, or by the parent of this process: an inherited context is unusable
            self._loaded.clear()
            self._context = open_context(max(v.width for v in self.views), max(v.height for v in self.views))
            self._process = os.getpid()
        self._context.make_current()
        if id(model) not in self._loaded:
            while len(self._loaded) >= self.keep:
                self._loaded.popitem(last=False)[1].free()
            self._loaded[id(model)] = _Loaded(model, self.views, self.quality)
        self._loaded.move_to_end(id(model))
        return self._loaded[id(model)]


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
            visual.quality.shadowsize = 0
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 200)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = quality.shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = quality.reflections
        self._option, self._perturb, self._camera = mujoco.MjvOption(), mujoco.MjvPerturb(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._gl = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._gl)

    def draw(self, data: Any, view: View) -> np.ndarray:
        mujoco = self._mujoco
        self._camera.fixedcamid = self.model.camera(view.name).id
        mujoco.mjv_updateScene(
            self.model, data, self._option, self._perturb, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        rectangle = mujoco.MjrRect(0, 0, view.width, view.height)
        mujoco.mjr_render(rectangle, self._scene, self._gl)
        picture = np.empty((view.height, view.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, rectangle, self._gl)
        # OpenGL's rows run upwards. Turned by 180 degrees they are right, and the columns are wrong.
        return np.ascontiguousarray(picture[:, ::-1] if view.upside_down else picture[::-1])

    def free(self) -> None:
        self._gl.free()


def open_context(width: int, height: int) -> Any:
    """An OpenGL context for offscreen drawing, not yet current.

    Raises:
        RenderingUnavailable: the backend that MUJOCO_GL names, or each of them, fails.
    """
    load_mujoco()
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in OFF:
        raise RenderingUnavailable(f"MUJOCO_GL={wanted} switches pictures off: unset it, or observe=state needs none")
    if wanted in ("", "enable", "enabled", "on", "true", "1"):
        candidates = BACKENDS if sys.platform == "linux" else ("glfw",)
    elif wanted in BACKENDS:
        candidates = (wanted,)
    else:
        raise RenderingUnavailable(f"MUJOCO_GL={wanted} is not a backend: use one of {', '.join(BACKENDS)}")
    failures = []
    for backend in candidates:
        try:
            return _try_context(backend, width, height)
        except Exception as error:  # what a broken driver raises is any of a dozen types
            failures.append(f"{backend}: {_short(error)}")
            _forget_opengl()
    named = f"with MUJOCO_GL={wanted} " if wanted in BACKENDS else ""
    raise RenderingUnavailable(f"cannot draw pictures {named}({'; '.join(failures)}): {MEND}")


def _try_context(backend: str, width: int, height: int) -> Any:
    if backend == "glfw" and sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeError("there is no display")
    context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
    context.make_current()
    return context


def _forget_opengl() -> None:
    """PyOpenGL keeps the first platform it was asked for; let the next backend ask again."""
    os.environ.pop("PYOPENGL_PLATFORM", None)
    for name in list(sys.modules):
        if name.split(".")[0] == "OpenGL" or name in ("mujoco.egl", "mujoco.egl.egl_ext", "mujoco.osmesa"):
            del sys.modules[name]


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "NoneType" in text or not text:
        return "no such library"
    return text if len(text) <= 80 else text[:77] + "..."


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
