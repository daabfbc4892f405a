"""Frames per second of the house renderer beside PyBullet's TinyRenderer and MuJoCo's EGL, on the same house and poses.

    MUJOCO_GL=egl LP_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/house_render.py --seed 3 --sizes 128 256

All draw the same boxes and cylinders (flat colours in the others, patterns in ours) from the same level cameras. The
others are tuned: no shadows, no multisampling. PyBullet returns colour, depth and ids in one call; MuJoCo renders once
for each of colour, depth and segmentation. The turns alternate; CPU time of this process is what counts.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np

from envs.house.generate import generate
from envs.house.pathfinder import PathFinder
from envs.house.renderer import OUTPUTS, Renderer
from envs.house.scene import Scene

Frame = Callable[[np.ndarray], None]


def ours(scene: Scene, size: int, outputs: tuple[str, ...]) -> Frame:
    renderer = Renderer(scene, size, size, 90, outputs)
    return lambda cameras: renderer.render(cameras) and None  # type: ignore[func-returns-value]


def pybullet(scene: Scene, size: int) -> Frame:
    import pybullet as bullet

    world = bullet.connect(bullet.DIRECT)
    x1, y1 = np.array(scene.rooms.shape) / 10
    slabs = [(0, 0, -0.05, x1, y1, 0), (0, 0, scene.height, x1, y1, scene.height + 0.05)]
    for place, bounds in enumerate([*scene.bounds, *slabs]):
        low, high = np.array(bounds[:3], float), np.array(bounds[3:], float)
        half = (high - low) / 2
        color = [*(scene.colours[place, :3] / 255), 1] if place < scene.parts else [0.7, 0.7, 0.7, 1]
        if place < scene.parts and scene.round[place]:
            shape = bullet.createVisualShape(
                bullet.GEOM_CYLINDER, radius=half[0], length=2 * half[2], rgbaColor=color, physicsClientId=world
            )
        else:
            shape = bullet.createVisualShape(
                bullet.GEOM_BOX, halfExtents=half.tolist(), rgbaColor=color, physicsClientId=world
            )
        bullet.createMultiBody(0, -1, shape, ((low + high) / 2).tolist(), physicsClientId=world)
    projection = bullet.computeProjectionMatrixFOV(90, 1, 0.01, 30)

    def draw(cameras: np.ndarray) -> None:
        for x, y, z, heading, _ in cameras:
            ahead = [x + math.cos(heading), y + math.sin(heading), z]
            view = bullet.computeViewMatrix([x, y, z], ahead, [0, 0, 1])
            bullet.getCameraImage(
                size, size, view, projection, shadow=0, renderer=bullet.ER_TINY_RENDERER, physicsClientId=world
            )

    return draw


def mujoco(scene: Scene, size: int, outputs: tuple[str, ...]) -> Frame:
    import mujoco as mj

    spec = mj.MjSpec()
    spec.visual.global_.offwidth, spec.visual.global_.offheight = size, size
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.global_.fovy = 90
    spec.visual.map.znear = 0.001
    spec.worldbody.add_light(pos=[5, 5, 2.5])
    x1, y1 = np.array(scene.rooms.shape) / 10
    slabs = [(0, 0, -0.05, x1, y1, 0), (0, 0, scene.height, x1, y1, scene.height + 0.05)]
    for place, bounds in enumerate([*scene.bounds, *slabs]):
        low, high = np.array(bounds[:3], float), np.array(bounds[3:], float)
        half = (high - low) / 2
        color = [*(scene.colours[place, :3] / 255), 1] if place < scene.parts else [0.7, 0.7, 0.7, 1]
        is_round = place < scene.parts and scene.round[place]
        spec.worldbody.add_geom(
            type=mj.mjtGeom.mjGEOM_CYLINDER if is_round else mj.mjtGeom.mjGEOM_BOX,
            size=[half[0], half[2], 0] if is_round else half,
            pos=(low + high) / 2,
            rgba=color,
            contype=0,
            conaffinity=0,
        )
    model = spec.compile()
    data = mj.MjData(model)
    mj.mj_forward(model, data)
    renderer = mj.Renderer(model, size, size, max_geom=len(scene.bounds) + 100)
    camera = mj.MjvCamera()
    camera.type = mj.mjtCamera.mjCAMERA_FREE

    def draw(cameras: np.ndarray) -> None:
        for x, y, z, heading, _ in cameras:
            camera.distance, camera.elevation, camera.azimuth = 0.01, 0, math.degrees(heading)
            camera.lookat[:] = x + 0.01 * math.cos(heading), y + 0.01 * math.sin(heading), z
            renderer.update_scene(data, camera)
            renderer.scene.flags[mj.mjtRndFlag.mjRND_SHADOW] = 0
            renderer.scene.flags[mj.mjtRndFlag.mjRND_REFLECTION] = 0
            renderer.render()
            if "depth" in outputs:
                renderer.enable_depth_rendering()
                renderer.render()
                renderer.disable_depth_rendering()
            if "instance" in outputs:
                renderer.enable_segmentation_rendering()
                renderer.render()
                renderer.disable_segmentation_rendering()

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--without", nargs="*", default=[], choices=["pybullet", "mujoco"])
    options = parser.parse_args()
    started = time.process_time()
    house = generate(options.seed)
    print(f"house {options.seed} made in {1000 * (time.process_time() - started):.0f} ms")
    finder = PathFinder(house)
    scene = finder.scene
    rng = np.random.default_rng(0)
    cameras = np.array(
        [[*finder.random_point(rng), 1.25, rng.uniform(-math.pi, math.pi), 0.0] for _ in range(options.frames)]
    )
    print(f"{scene.parts} parts, {len(house.rooms)} rooms, {options.frames} cameras, {options.turns} turns")
    for size in options.sizes:
        rivals: dict[str, tuple[Frame, int]] = {
            "ours, rgb": (ours(scene, size, ("rgb",)), options.frames),
            "ours, rgb + depth + semantic + instance": (ours(scene, size, OUTPUTS), options.frames),
        }
        if "pybullet" not in options.without:
            rivals["PyBullet TinyRenderer, rgb + depth + ids"] = pybullet(scene, size), max(4, options.frames // 16)
        if "mujoco" not in options.without:
            few = max(4, options.frames // 8)
            rivals["MuJoCo EGL, rgb"] = mujoco(scene, size, ("rgb",)), few
            rivals["MuJoCo EGL, rgb + depth + ids"] = mujoco(scene, size, ("rgb", "depth", "instance")), few
        rates: dict[str, list[float]] = {name: [] for name in rivals}
        for draw, _ in rivals.values():
            draw(cameras[:2])
        for _ in range(options.turns):
            for name, (draw, frames) in rivals.items():
                started = time.process_time()
                draw(cameras[:frames])
                rates[name].append(frames / (time.process_time() - started))
        for name, rate in rates.items():
            print(
                f"{size} px  {name:42s} {statistics.median(rate):8.1f} frames/s  ({min(rate):.1f} to {max(rate):.1f})"
            )


if __name__ == "__main__":
    main()
