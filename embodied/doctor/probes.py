"""The probes: each tries one thing and says what it found.

Each runs in a process of its own (`python -m embodied.doctor.probes <name> [argument]`), because what it tries can
crash, hang, or spoil a process for whatever comes after; and prints its findings as lines of JSON. Simulators are tried
by their own modules: this project's adapters are not needed to know whether one works here.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from embodied.doctor.finding import Finding

Findings = Iterator[Finding]

CORE, RENDERING, SIMULATORS = "Python and packages", "Pictures without a screen (MuJoCo)", "Simulators"
PROCESSOR, GPU, VIDEO, SPACE = "Processor", "GPU", "Video", "Space"
RENDERING_MEND = {
    "egl": "apt-get install libegl1 libgl1-mesa-dri",
    "osmesa": "apt-get install libosmesa6",
    "glfw": "works on machines with a screen only: set DISPLAY",
}
MODULES = {"hydra-core": "hydra", "pillow": "PIL", "pyopengl": "OpenGL", "pyyaml": "yaml"}
"""Packages whose module is not called as they are."""
ENCODERS = {"libsvtav1": "AV1: the smallest datasets", "libx264": "H.264: plays everywhere"}
NO_MUJOCO = "MuJoCo is not installed"
REINSTALL_AV = "pip install --force-reinstall av"
BALLS, TRIANGLES = 64, "60 000"
"""How many balls are in the test scene, and how many triangles they make: about as many as a robot arm's meshes."""
VENDOR = "drawn without the GPU: install libnvidia-gl; in a container, docker run --env NVIDIA_DRIVER_CAPABILITIES=all"


def packages() -> Findings:
    """Python, and each package the core depends on: installed in a version that fits, and importable."""
    version = sys.version.split()[0]
    fits = sys.version_info >= (3, 11)
    yield Finding(CORE, "python", "ok" if fits else "broken", version, "" if fits else "use Python 3.11 or newer", True)
    for line in requirements():
        name = re.match(r"[A-Za-z0-9_.-]+", line)
        assert name is not None, line
        yield package(name.group(), line)


def requirements() -> list[str]:
    """What the core depends on, as written in pyproject.toml."""
    try:
        lines = metadata.requires("embodied") or []
    except metadata.PackageNotFoundError:
        return ["torch", "transformers", "hydra-core", "gymnasium", "numpy", "safetensors", "av"]
    return [line for line in lines if "extra ==" not in line]


def package(name: str, requirement: str) -> Finding:
    """Whether one package is there, in a version that fits, and can be imported."""
    mend = f"pip install '{requirement.split(';')[0].strip()}'"
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(CORE, name, "missing", "not installed", mend, True)
    if not _fits(installed, requirement):
        return Finding(CORE, name, "broken", f"{installed} does not fit '{requirement}'", mend, True)
    try:
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except Exception as error:  # whatever an import may raise is what we are here to report
        return Finding(
            CORE,
            name,
            "broken",
            f"{installed} cannot be imported: {one_line(error)}",
            f"{mend} --force-reinstall",
            True,
        )
    return Finding(CORE, name, "ok", installed, core=True)


def _fits(installed: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return True
    return Requirement(requirement).specifier.contains(installed, prereleases=True)


def rendering(backend: str) -> Findings:
    """Draws a small scene with one of MuJoCo's backends, checks that the picture shows it, and times it."""
    try:
        mujoco = importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name == "mujoco":
            yield Finding(RENDERING, backend, "missing", NO_MUJOCO, "pip install -e '.[mujoco]'")
            return
        raise
    model = mujoco.MjModel.from_xml_string(_scene())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, 96, 96)
    driver = _driver()
    renderer.update_scene(data, "eye")
    picture = renderer.render()
    red = (picture[..., 0] > picture[..., 1].astype(int) + 60).mean()
    if not 0.02 < red < 0.6:
        text = f"draws, but not what it should ({driver})"
        yield Finding(RENDERING, backend, "broken", text, RENDERING_MEND[backend])
        return
    times: list[float] = []
    while len(times) < 200 and sum(times) < 1.0:
        start = time.perf_counter()
        renderer.update_scene(data, "eye")
        renderer.render()
        times.append(time.perf_counter() - start)
    renderer.close()
    idle = "llvmpipe" in driver and _quiet(["nvidia-smi", "-L"])
    text = f"{1 / median(times):.0f} pictures/s of {TRIANGLES} triangles at 96 x 96 ({driver})"
    yield Finding(RENDERING, backend, "ok", text, VENDOR if idle else "")


def _scene() -> str:
    """A red box before a wall of grey balls."""
    places = [(0.2 * (i % 8) - 0.7, 0.2 * (i // 8) + 0.1) for i in range(BALLS)]
    balls = "".join(f'<geom type="sphere" size=".09" pos="{x} 1 {z}" rgba=".6 .6 .6 1"/>' for x, z in places)
    return (
        '<mujoco><visual><quality shadowsize="0" offsamples="0"/></visual><worldbody><light pos="0 -3 3" dir="0 1 -1"/>'
        f'{balls}<geom type="box" size=".3 .3 .3" pos="0 0 .7" rgba=".9 .1 .1 1"/>'
        '<camera name="eye" pos="0 -3 .7" xyaxes="1 0 0 0 0 1"/></worldbody></mujoco>'
    )


def _driver() -> str:
    try:
        from OpenGL import GL

        name = GL.glGetString(GL.GL_RENDERER)
        return name.decode() if name else "unknown driver"
    except Exception:  # only for the report
        return "unknown driver"


def metaworld() -> Findings:
    """Makes one task, which also tells a MuJoCo that is too new for it."""
    tasks = importlib.import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS
    tasks["reach-v3"]().close()
    versions = f"{metadata.version('metaworld')} with MuJoCo {metadata.version('mujoco')}"
    yield Finding(SIMULATORS, "metaworld", "ok", f"{versions}, {len(tasks)} tasks")


def pybullet() -> Findings:
    """A simulation without a window, and panda-gym, whose tasks run in it."""
    bullet = importlib.import_module("pybullet")
    bullet.disconnect(bullet.connect(bullet.DIRECT))
    importlib.import_module("panda_gym")
    versions = f"{metadata.version('pybullet')} with panda-gym {metadata.version('panda-gym')}"
    yield Finding(SIMULATORS, "pybullet", "ok", versions)


def habitat_sim() -> Findings:
    module = importlib.import_module("habitat_sim")
    yield Finding(SIMULATORS, "habitat_sim", "ok", str(getattr(module, "__version__", "installed")))


def miniwob() -> Findings:
    """MiniWoB++ and the browser it drives."""
    importlib.import_module("miniwob")
    mend = "apt-get install chromium chromium-driver"
    browsers = [os.environ.get("MINIWOB_CHROME_BINARY"), "chromium", "chromium-browser", "google-chrome"]
    browser = next((path for name in browsers if name and (path := shutil.which(name))), None)
    driver = shutil.which(os.environ.get("MINIWOB_CHROMEDRIVER") or "chromedriver")
    if browser is None or driver is None:
        what = "chromium" if browser is None else "chromedriver"
        yield Finding(SIMULATORS, "miniwob", "missing", f"{metadata.version('miniwob')}, but no {what}", mend)
        return
    done = subprocess.run([browser, "--version"], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        yield Finding(SIMULATORS, "miniwob", "broken", f"{browser} does not start: {done.stderr.strip()[-80:]}", mend)
        return
    yield Finding(SIMULATORS, "miniwob", "ok", f"{metadata.version('miniwob')} with {done.stdout.strip()}")


INSTALL = {
    "metaworld": "pip install -e '.[mujoco]'",
    "pybullet": "pip install -e '.[pybullet]'",
    "habitat_sim": "conda install habitat-sim -c conda-forge -c aihabitat (it is not on PyPI)",
    "miniwob": "pip install -e '.[gui]' && apt-get install chromium chromium-driver",
}


def processor() -> Findings:
    """Cores, the threads torch uses, and whether bfloat16 is faster than float32."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = _physical_cores()
    quota = _quota()
    text = f"{usable} usable" + (f", {physical} physical" if physical else "") + (f", quota {quota:g}" if quota else "")
    yield Finding(PROCESSOR, "cores", "note", text)
    threads, best = torch.get_num_threads(), max(1, min(usable, physical or usable, int(quota or usable)))
    fits = threads <= best
    mend = "" if fits else f"export OMP_NUM_THREADS={best} (more threads than cores slow each other down)"
    if fits and threads < best and "OMP_NUM_THREADS" in os.environ:
        mend = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} leaves cores idle: unset it or set it to {best}"
    yield Finding(PROCESSOR, "threads", "ok" if fits else "broken", f"torch uses {threads}", mend)
    speed = {kind: _gemm(torch, getattr(torch, kind)) for kind in ("float32", "bfloat16")}
    ratio = speed["bfloat16"] / speed["float32"]
    figures = f"float32 {speed['float32']:.0f}, bfloat16 {speed['bfloat16']:.0f} GFLOP/s ({ratio:.2g} x)"
    advice = "bfloat16 pays for wide models" if ratio > 1.2 else "train in float32"
    yield Finding(PROCESSOR, "bfloat16", "note", f"{figures}: {advice}; trainer.precision=auto measures your model")


def _gemm(torch: Any, kind: Any, size: int = 1024) -> float:
    """GFLOP/s of a square product."""
    a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and sum(times) < 0.5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / median(times[1:]) / 1e9


def _physical_cores() -> int | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    cores = set()
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(physical id|core id)\s*: (\d+)$", block, re.MULTILINE))
        if "core id" in fields:
            cores.add((fields.get("physical id"), fields["core id"]))
    return len(cores) or None


def _quota() -> float | None:
    """The cores that a container's limit leaves, where there is one."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)


def gpu() -> Findings:
    """What torch can compute on besides the processor, by computing on it."""
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            x = torch.ones(256, 256, device=f"cuda:{i}")
            right = bool(((x @ x) == 256).all())
            text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
            mend = "" if right else "it computes wrongly: check its driver"
            yield Finding(GPU, f"cuda:{i}", "ok" if right else "broken", text, mend)
    elif shutil.which("nvidia-smi") and _quiet(["nvidia-smi", "-L"]):
        why = (
            "built without CUDA"
            if torch.version.cuda is None
            else f"built for CUDA {torch.version.cuda}, which the driver refuses"
        )
        mend = "pip install torch from the index that https://pytorch.org/get-started names for your driver"
        yield Finding(GPU, "cuda", "broken", f"there is a GPU, but this torch is {why}", mend)
    elif torch.backends.mps.is_available():
        yield Finding(GPU, "mps", "ok", "Apple GPU")
    else:
        yield Finding(GPU, "gpu", "note", "none; everything runs on the processor")


def _quiet(words: list[str]) -> bool:
    try:
        return bool(subprocess.run(words, capture_output=True, timeout=30, check=True).stdout.strip())
    except (OSError, subprocess.SubprocessError):
        return False


def video() -> Findings:
    """Encodes a short film with each codec and reads it back."""
    import av
    import numpy as np

    for codec, what in ENCODERS.items():
        try:
            av.codec.Codec(codec, "w")
        except Exception:
            yield Finding(
                VIDEO, codec, "missing", "not in this FFmpeg", "pip install --force-reinstall av (its wheels have it)"
            )
            continue
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream: Any = container.add_stream(codec, rate=30)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * i, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        file.seek(0)
        with av.open(file, "r") as written:
            frames = [frame.to_ndarray(format="rgb24").mean() for frame in written.decode(video=0)]
        right = len(frames) == 10 and all(abs(mean - 20 * i) < 12 for i, mean in enumerate(frames))
        text = what if right else "what it writes does not read back"
        yield Finding(
            VIDEO, codec, "ok" if right else "broken", text, "" if right else "pip install --force-reinstall av"
        )
    yield Finding(VIDEO, "av", "note", f"PyAV {av.__version__} with FFmpeg {_ffmpeg(av)}")


def _ffmpeg(av: Any) -> str:
    return str(getattr(av, "ffmpeg_version_info", "")) or "of its own"


def space() -> Findings:
    """Disk, shared memory, memory."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    mend = "" if free >= 5 else "free some: a dataset of 50 episodes takes 0.1 GB, a decoded cache and checkpoints more"
    yield Finding(SPACE, "disk", "ok" if free >= 5 else "broken", f"{free:.0f} GB free in {Path.cwd()}", mend)
    if Path("/dev/shm").is_dir():
        size = shutil.disk_usage("/dev/shm").total / 1e9
        mend = "" if size >= 0.5 else "docker run --shm-size=2g; data workers of other libraries need it"
        yield Finding(SPACE, "/dev/shm", "ok" if size >= 0.5 else "broken", f"{size:.1f} GB", mend)
    memory = _memory()
    if memory is not None:
        yield Finding(SPACE, "memory", "note", f"{memory:.1f} GB available")


def _memory() -> float | None:
    """What this process may still take, GB: the machine's, or the container's limit where that is less."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        available = int(text.split("MemAvailable:")[1].split()[0]) / 1e6
    except (OSError, IndexError, ValueError):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return available
    return min(available, limit / 1e9)


PROBES: dict[str, Callable[..., Findings]] = {
    "packages": packages,
    "rendering": rendering,
    "metaworld": metaworld,
    "pybullet": pybullet,
    "habitat_sim": habitat_sim,
    "miniwob": miniwob,
    "processor": processor,
    "gpu": gpu,
    "video": video,
    "space": space,
}


def one_line(error: BaseException, limit: int = 110) -> str:
    """An exception as one short line."""
    text = " ".join(f"{error}".split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


if __name__ == "__main__":
    probe, *arguments = sys.argv[1:]
    try:
        for finding in PROBES[probe](*arguments):
            print(json.dumps(finding.to_dict()), flush=True)
    except Exception as problem:  # whatever it is, it is the finding
        missing = problem.name or "" if isinstance(problem, ModuleNotFoundError) else ""
        print(json.dumps({"error": f"{type(problem).__name__}: {one_line(problem)}", "module": missing}), flush=True)
