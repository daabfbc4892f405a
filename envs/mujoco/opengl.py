"""Find an OpenGL that draws without a screen, and say plainly what to do where there is none.

`MUJOCO_GL` names one of `BACKENDS`; unset, the first that works is taken: egl (Mesa's software driver or a GPU's),
osmesa, glfw (needs a display).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

BACKENDS = ("egl", "osmesa", "glfw")
OFF = ("disable", "disabled", "off", "false", "0")
UNSET = ("", "enable", "enabled", "on", "true", "1")
MEND = {
    "egl": "apt-get install libegl1 libgl1-mesa-dri",
    "osmesa": "apt-get install libosmesa6",
    "glfw": "set DISPLAY to a running X server",
}
"""What makes each backend work on Debian and Ubuntu."""


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
            raise ValueError("MuJoCo is not installed: pip install -e '.[mujoco]'") from None
        if wanted is None:
            raise
    except (ImportError, AttributeError, RuntimeError, OSError):
        if wanted is None:
            raise
    forget_opengl()
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        return importlib.import_module("mujoco")
    finally:
        os.environ["MUJOCO_GL"] = wanted


def open_context(width: int, height: int) -> Any:
    """An OpenGL context for offscreen drawing, made current.

    Raises:
        RenderingUnavailable: the backend that MUJOCO_GL names, or each of them, fails.
    """
    load_mujoco()
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in OFF:
        raise RenderingUnavailable(f"MUJOCO_GL={wanted} switches pictures off: unset it (state alone needs none)")
    if wanted not in (*UNSET, *BACKENDS):
        raise RenderingUnavailable(f"MUJOCO_GL={wanted} is not a backend; there is {', '.join(BACKENDS)}")
    candidates = (wanted,) if wanted in BACKENDS else BACKENDS if sys.platform == "linux" else ("glfw",)
    failures = []
    for backend in candidates:
        try:
            return _try_context(backend, width, height)
        except Exception as error:  # what a broken driver raises is any of a dozen types
            failures.append(f"{backend}: {_short(error)}")
            forget_opengl()
    raise unavailable(failures)


def unavailable(failures: Sequence[str]) -> RenderingUnavailable:
    """The error that says, in one line, what failed and what to do."""
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in BACKENDS:
        others = " or ".join(backend for backend in BACKENDS if backend != wanted)
        advice = f"{MEND[wanted]}, or set MUJOCO_GL to {others}"
    else:
        advice = f"{MEND['egl']}, or {MEND['osmesa']}"
    named = f" with MUJOCO_GL={wanted}" if wanted in BACKENDS else ""
    return RenderingUnavailable(
        f"cannot draw pictures{named} ({'; '.join(failures)}): {advice}; embodied-doctor shows what works"
    )


def forget_opengl() -> None:
    """PyOpenGL keeps the first platform it was asked for; let the next backend ask again."""
    os.environ.pop("PYOPENGL_PLATFORM", None)
    for name in list(sys.modules):
        if name.split(".")[0] == "OpenGL" or name.startswith(("mujoco.egl", "mujoco.osmesa")):
            del sys.modules[name]


def _try_context(backend: str, width: int, height: int) -> Any:
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if backend == "glfw" and sys.platform == "linux" and not screen:
        raise RuntimeError("there is no display")
    kind = importlib.import_module(f"mujoco.{backend}").GLContext
    context = kind.__new__(kind)
    context._context = None  # so that its clean-up does not complain where its constructor fails
    context.__init__(width, height)
    context.make_current()
    return context


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "NoneType" in text or "no attribute 'gl" in text or not text:
        return "no such library"
    return text if len(text) <= 90 else text[:87] + "..."
