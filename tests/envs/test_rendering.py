"""Pictures are those of MuJoCo's own renderer, the right way up; without OpenGL there is one clear line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from embodied.spec import Camera
from envs.mujoco.metaworld import CAMERAS, MetaWorld

pytestmark = pytest.mark.simulator("mujoco", "metaworld")

OPEN = "from envs.mujoco.opengl import open_context; print(type(open_context(64, 64)).__module__)"
WITHOUT = """
import ctypes, ctypes.util
load, find = ctypes.CDLL.__init__, ctypes.util.find_library
def missing(name): return any(library in str(name) for library in {libraries})
def init(self, name, *more, **named):
    if missing(name): raise OSError(f"{{name}}: cannot open shared object file: No such file or directory")
    load(self, name, *more, **named)
ctypes.CDLL.__init__ = init
ctypes.util.find_library = lambda name: None if missing(name) else find(name)
"""
CATCH = "\ntry:\n    {code}\nexcept ValueError as error:\n    print(error)\n"


def python(code, **environment):
    """Runs code in a new process without a display; what it printed."""
    dropped = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # in particular no complaints of destructors
    return done.stdout.strip()


def with_mujocos_own_renderer(env, name, monkeypatch):
    import mujoco

    monkeypatch.setattr(mujoco.gl_context, "GLContext", None, raising=False)  # in the context that is open already
    renderer = mujoco.Renderer(env._sim.model, 96, 96)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    renderer.update_scene(env._sim.data, name)
    picture = renderer.render()
    renderer.close()
    return np.rot90(picture, 2) if name.startswith("corner") else picture


def test_pictures_are_mujocos_own_although_what_is_out_of_sight_is_skipped(monkeypatch):
    env = MetaWorld(["door-open", "coffee-pull"], cameras=CAMERAS, camera_positions={"corner2": [0.75, 0.075, 0.7]})
    for task in env.tasks:
        env.reset(seed=1, options={"task": task})
        for _ in range(25):
            observation, *_ = env.step(np.array([1, 1, -0.5, 1]))
        for name in CAMERAS:
            picture = observation[f"observation.images.{name}"]
            expected = with_mujocos_own_renderer(env, name, monkeypatch)
            np.testing.assert_array_equal(picture, expected, err_msg=f"{task} {name}")
            assert picture.std() > 10
    env.close()


def test_the_corner_cameras_see_the_robot_upright():
    env = MetaWorld(["reach"], cameras=["corner2"], height=64, width=64)
    frames = []
    for direction in (-1, 1):  # the hand goes down, then up: what is red moves in the picture
        env.reset(seed=0)
        for _ in range(30):
            observation, *_ = env.step(np.array([0, 0, direction, -1]))
        frames.append(observation["observation.images.corner2"].astype(int))
    env.close()
    red = [(f[..., 0] > 90) & (f[..., 1] < 60) for f in frames]
    rows = [np.flatnonzero((mine & ~other).any(axis=1)).mean() for mine, other in (red, red[::-1])]
    assert rows[0] > rows[1]  # lower in the world is a larger row


def test_what_changes_pixels_is_in_the_cameras_identity():
    def camera(**settings):
        env = MetaWorld(["reach"], height=64, width=64, cameras=["corner2"], **settings)
        picture = env.reset(seed=0)[0]["observation.images.corner2"]
        env.close()
        return env.embodiment.cameras[0], picture

    plain, picture = camera()
    assert plain == Camera("corner2", 64, 64, "mujoco:shadow=0,reflection=0,offsamples=0,turned=180")
    changes = ({"shadows": True}, {"samples": 4}, {"camera_positions": {"corner2": [0.75, 0.075, 0.7]}})
    for settings in changes:
        other, changed = camera(**settings)
        assert other.renderer != plain.renderer
        assert not np.array_equal(changed, picture), settings


def test_several_environments_draw_in_turn():
    envs = [
        MetaWorld([task], height=size, width=64, cameras=["corner"]) for task, size in (("reach", 48), ("push", 64))
    ]
    first = [env.reset(seed=0)[0]["observation.images.corner"] for env in envs]
    again = [env.reset(seed=0)[0]["observation.images.corner"] for env in envs]
    envs[0].close()
    after = envs[1].reset(seed=0)[0]["observation.images.corner"]
    envs[1].close()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(after, first[1])


BROKEN = {
    "no library, nothing asked for": (["EGL", "OSMesa"], {}, ["egl: no such library", "libegl1", "libosmesa6"]),
    "no library, egl asked for": (
        ["EGL"],
        {"MUJOCO_GL": "egl"},
        ["with MUJOCO_GL=egl (egl: no such library)", "apt-get install libegl1 libgl1-mesa-dri", "osmesa or glfw"],
    ),
    "no library, osmesa asked for": (["OSMesa"], {"MUJOCO_GL": "osmesa"}, ["apt-get install libosmesa6"]),
    "a library without a driver": (
        [],
        {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_DIRS": "/nowhere"},
        ["with MUJOCO_GL=egl", "libgl1-mesa-dri"],
    ),
    "no display": ([], {"MUJOCO_GL": "glfw"}, ["there is no display", "set MUJOCO_GL to egl or osmesa"]),
    "no such backend": ([], {"MUJOCO_GL": "eglx"}, ["MUJOCO_GL=eglx is not a backend; there is egl, osmesa, glfw"]),
    "switched off": ([], {"MUJOCO_GL": "disabled"}, ["MUJOCO_GL=disabled switches pictures off"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_opengl_is_one_line_that_says_what_to_do(case):
    libraries, environment, says = BROKEN[case]
    line = python(WITHOUT.format(libraries=libraries) + CATCH.format(code=OPEN), **environment)
    assert "\n" not in line
    for words in says:
        assert words in line


def test_state_needs_no_opengl():
    code = (
        "from envs.mujoco.metaworld import MetaWorld;"
        "print(MetaWorld(['reach'], observe='state').reset(seed=0)[1]['task'])"
    )
    assert python(WITHOUT.format(libraries=["EGL", "OSMesa", "GL"]) + code, MUJOCO_GL="egl") == "reach"


def test_unset_it_takes_what_works_without_a_display():
    assert python(OPEN) in ("mujoco.egl", "mujoco.osmesa")


@pytest.mark.parametrize("observe, status", [("pixels", 2), ("state", 0)])
def test_a_command_ends_in_that_line(tmp_path, observe, status):
    script = WITHOUT.format(libraries=["EGL", "OSMesa"]) + (
        "import sys; from embodied.cli.app import command\n"
        "from embodied.building import build\n"
        "def work(config):\n"
        "    from omegaconf import OmegaConf\n"
        "    build(OmegaConf.to_container(config.env.make)).reset(seed=0)\n"
        "sys.argv = ['embodied-collect', 'env=metaworld/reach', *sys.argv[1:]]\n"
        "command('collect', work)()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"env.make.observe={observe}", f"out={tmp_path / 'data'}"],
        env=os.environ | {"MUJOCO_GL": "egl"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    if status:
        assert len(lines) == 1 and lines[0].startswith("embodied-collect: cannot draw pictures with MUJOCO_GL=egl")
    else:
        assert lines == []


def test_a_forked_process_says_that_it_cannot_draw_and_can_still_simulate():
    code = """
import json, os
from envs.mujoco.metaworld import MetaWorld
pixels, state = MetaWorld(["reach"]), MetaWorld(["reach"], observe="state")
before = state.reset(seed=0)[0]["observation.state"].tolist()
pixels.reset(seed=0)
reader, writer = os.pipe()
if os.fork() == 0:
    same = state.reset(seed=0)[0]["observation.state"].tolist() == before
    try:
        pixels.reset(seed=0)
        said = "it drew"
    except ValueError as error:
        said = str(error)
    os.write(writer, json.dumps([same, said]).encode())
    os._exit(0)
os.close(writer)
print(os.read(reader, 10000).decode())
"""
    same, said = json.loads(python(code))
    assert same and "forked" in said and "spawn" in said


def test_an_environment_left_open_ends_quietly():
    assert python("from envs.mujoco.metaworld import MetaWorld; env = MetaWorld(['reach']); env.reset(seed=0)") == ""
