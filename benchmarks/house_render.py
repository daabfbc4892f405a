"""Frames per second of the house renderer beside PyBullet's TinyRenderer and MuJoCo's EGL, on the same house and poses.

    MUJOCO_GL=egl LP_NUM_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.house_render --seed 3 --sizes 128 256

All draw the same boxes and cylinders (`envs.house.mjcf`; flat colours in the others, patterns in ours) from the same
level cameras, and give the same three pictures: colour, metric depth, and which thing each pixel shows. First their
depths and things are compared with ours, away from edges; then they take turns in one process, and its CPU time counts.

The others are tuned. PyBullet: no shadows, all in one call. MuJoCo: no shadows, reflections or multisampling; colour
and depth are read from one pass, things from a second.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from envs.house.generate import generate
from envs.house.mjcf import mjcf, pybullet_bodies
from envs.house.pathfinder import PathFinder
from envs.house.renderer import OUTPUTS, Renderer
from envs.house.scene import Scene

ALL, COLOUR = "RGB + depth + segmentation", "RGB"
CENTIMETRES = 0.02
Pictures = dict[str, np.ndarray]
Draw = Callable[[np.ndarray], list[Pictures]]
"""From (B, 5) cameras to what was drawn from each: `depth` (H, W) metres and `instance` (H, W), where they are made."""


def ours(scene: Scene, size: int, outputs: tuple[str, ...]) -> Draw:
    renderer = Renderer(scene, size, size, 90, outputs)

    def draw(cameras: np.ndarray) -> list[Pictures]:
        made = renderer.render(cameras)
        return [{name: pictures[place] for name, pictures in made.items()} for place in range(len(cameras))]

    return draw


def pybullet(scene: Scene, size: int, everything: bool) -> Draw:
    import pybullet as bullet

    world = bullet.connect(bullet.DIRECT)
    bodies = pybullet_bodies(scene, bullet, world)
    instance = np.zeros(max(bodies) + 2, int)
    for body, number in bodies.items():
        instance[body] = number
    near, far = 0.01, 30.0
    projection = bullet.computeProjectionMatrixFOV(90, 1, near, far)
    flags = 0 if everything else bullet.ER_NO_SEGMENTATION_MASK

    def draw(cameras: np.ndarray) -> list[Pictures]:
        found = []
        for x, y, z, heading, _ in cameras:
            view = bullet.computeViewMatrix([x, y, z], [x + math.cos(heading), y + math.sin(heading), z], [0, 0, 1])
            *_, depth, body = bullet.getCameraImage(
                size, size, view, projection,
                shadow=0, flags=flags, renderer=bullet.ER_TINY_RENDERER, physicsClientId=world,
            )  # fmt: skip
            if everything:
                metres = far * near / (far - (far - near) * np.asarray(depth, np.float32).reshape(size, size))
                found.append({"depth": metres, "instance": instance[np.asarray(body).reshape(size, size)]})
        return found

    return draw


def mujoco(scene: Scene, size: int, everything: bool) -> Draw:
    import mujoco as mj

    model = mj.MjModel.from_xml_string(mjcf(scene))
    model.vis.global_.fovy = 90
    data = mj.MjData(model)
    mj.mj_forward(model, data)
    window = mj.GLContext(size, size)
    drawn, box, option, camera = mj.MjvScene(model, 2000), mj.MjrRect(0, 0, size, size), mj.MjvOption(), mj.MjvCamera()
    window.make_current()
    context = mj.MjrContext(model, mj.mjtFontScale.mjFONTSCALE_100)
    mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, context)
    near, far = model.stat.extent * model.vis.map.znear, model.stat.extent * model.vis.map.zfar
    colour, ids, depth = (
        np.empty((size, size, 3), np.uint8),
        np.empty((size, size, 3), np.uint8),
        np.empty((size, size), "f4"),
    )
    thing = np.append(model.geom_user[:, 1].astype(int), 0)

    def draw(cameras: np.ndarray) -> list[Pictures]:
        window.make_current()
        found = []
        for x, y, z, heading, _ in cameras:
            camera.distance, camera.elevation, camera.azimuth = 0.01, 0, math.degrees(heading)
            camera.lookat[:] = x + 0.01 * math.cos(heading), y + 0.01 * math.sin(heading), z
            mj.mjv_updateScene(model, data, option, None, camera, mj.mjtCatBit.mjCAT_ALL, drawn)
            drawn.flags[mj.mjtRndFlag.mjRND_SHADOW] = drawn.flags[mj.mjtRndFlag.mjRND_REFLECTION] = 0
            drawn.flags[mj.mjtRndFlag.mjRND_SEGMENT] = drawn.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = 0
            mj.mjr_render(box, drawn, context)
            mj.mjr_readPixels(colour, depth if everything else None, box, context)
            if everything:
                drawn.flags[mj.mjtRndFlag.mjRND_SEGMENT] = drawn.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = 1
                mj.mjr_render(box, drawn, context)
                mj.mjr_readPixels(ids, None, box, context)
                number = ids[..., 0].astype(np.int32) + 256 * ids[..., 1].astype(np.int32) - 1
                metres = near / (1 - depth * (1 - near / far))
                found.append({"depth": metres[::-1], "instance": thing[number][::-1]})  # OpenGL begins at the bottom
        return found

    return draw


def agreement(mine: Sequence[Pictures], theirs: Sequence[Pictures]) -> tuple[float, float, float]:
    """Of pixels away from edges: how many have our depth within 2 cm, how many our instance; and how many are away."""
    near, same, away, total = 0, 0, 0, 0
    for a, b in zip(mine, theirs, strict=True):
        depth, ids = a["depth"], a["instance"]
        inner = np.zeros(ids.shape, bool)
        inner[2:-2, 2:-2] = True
        for axis in (0, 1):
            for shift in (-2, -1, 1, 2):
                inner &= np.roll(ids, shift, axis) == ids
            inner &= np.abs(np.roll(depth, 1, axis) + np.roll(depth, -1, axis) - 2 * depth) < 0.01 + 0.02 * depth
        near += int((np.abs(depth - b["depth"]) < CENTIMETRES)[inner].sum())
        same += int((ids == b["instance"])[inner].sum())
        away, total = away + int(inner.sum()), total + inner.size
    return near / away, same / away, away / total


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
    poses = [[*finder.random_point(rng), 1.25, rng.uniform(-math.pi, math.pi), 0.0] for _ in range(options.frames)]
    cameras = np.array(poses)
    print(f"{scene.parts} parts, {len(house.rooms)} rooms, {options.frames} cameras, {options.turns} turns\n")
    rows: dict[str, list[str]] = {}
    for size in options.sizes:
        few = max(4, options.frames // 8)
        rivals: dict[str, tuple[Draw, int]] = {f"ours, {ALL}": (ours(scene, size, OUTPUTS), options.frames)}
        if "pybullet" not in options.without:
            rivals[f"PyBullet TinyRenderer, {ALL}"] = pybullet(scene, size, True), few
        if "mujoco" not in options.without:
            rivals[f"MuJoCo EGL, {ALL}"] = mujoco(scene, size, True), few
        rivals[f"ours, {COLOUR}"] = ours(scene, size, ("rgb",)), options.frames
        if "pybullet" not in options.without:
            rivals[f"PyBullet TinyRenderer, {COLOUR}"] = pybullet(scene, size, False), few
        if "mujoco" not in options.without:
            rivals[f"MuJoCo EGL, {COLOUR}"] = mujoco(scene, size, False), few
        mine = rivals[f"ours, {ALL}"][0](cameras[:few])
        for name, (draw, _) in rivals.items():
            theirs = draw(cameras[:few])  # the first call also warms up
            if name.endswith(ALL) and not name.startswith("ours"):
                near, same, away = agreement(mine, theirs)
                print(
                    f"{size} px, {name.split(',')[0]}: of the {away:.1%} of pixels away from edges {near:.2%} have our "
                    f"depth within 2 cm, {same:.2%} our instance"
                )
        rates: dict[str, list[float]] = {name: [] for name in rivals}
        for _ in range(options.turns):
            for name, (draw, frames) in rivals.items():
                started = time.process_time()
                draw(cameras[:frames])
                rates[name].append(frames / (time.process_time() - started))
        for name, rate in rates.items():
            reference = statistics.median(rates[f"ours, {name.split(', ')[1]}"])
            median = statistics.median(rate)
            times = "" if name.startswith("ours") else f"; ours is {reference / median:.1f}x"
            rows.setdefault(name, []).append(f"{median:.0f} ({min(rate):.0f} to {max(rate):.0f}){times}")
    print("\n| renderer, frames/s of one core | " + " | ".join(f"{size} px" for size in options.sizes) + " |")
    print("|---" * (len(options.sizes) + 1) + "|")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
