"""Short films: a scene in which up to two things move, one after the other, enter the picture or leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from envs.scenes.scene import FILM, GAP, Scene, SceneDrawer, Thing, fits

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "away from the camera": (0, 1), "towards the camera": (0, -1)}
"""Direction -> along the camera's (right, away) on the table."""
MOST_THINGS = 4
SHORT, LONG = 0.15, 0.26
"""Metres that things move within the picture."""
TRIES, PLACES = 25, 9
CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    # without macroblock trees, whose weights x264 takes from memory it never set: the same film had several forms
    ("libx264", {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}),
    ("libopenh264", {}),
    ("mpeg4", {"qscale": "3"}),
)


@dataclass(frozen=True)
class Motion:
    """One thing moves along a straight line.

    Attributes:
        thing: its index in the scene.
        kind: `move`, `enter` or `leave`.
        direction: of `DIRECTIONS`.
        start, end: x, y before and after, metres.
        first, last: frames between which it moves.
    """

    thing: int
    kind: str
    direction: str
    start: tuple[float, float]
    end: tuple[float, float]
    first: int
    last: int

    def place(self, frame: int) -> tuple[float, float]:
        """Where the thing is in a frame."""
        part = min(1.0, max(0.0, (frame - self.first) / (self.last - self.first)))
        return tuple(float(a + part * (b - a)) for a, b in zip(self.start, self.end, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Film:
    """A scene and what moves in it, in the order in which it happens."""

    scene: Scene
    motions: tuple[Motion, ...]
    frames: int

    def frame(self, number: int) -> Scene:
        """The scene as it stands in a frame."""
        things = list(self.scene.things)
        for motion in self.motions:
            things[motion.thing] = things[motion.thing].at(motion.place(number))
        return Scene(tuple(things), self.scene.camera, self.scene.light, self.scene.table)


def draw_film(drawer: SceneDrawer, number: int, split: str, frames: int) -> Film:
    """The film of that number."""
    scene = drawer.draw(number, split, FILM, MOST_THINGS)
    random = np.random.default_rng([drawer.seed, 3, number])
    count = int(random.choice(3, p=(0.15, 0.35, 0.5)))
    motions: list[Motion] = []
    for i in range(count):
        first, last = [(0, frames - 1), (round(0.5 * frames), frames - 1)][i] if count > 1 else (1, frames - 2)
        if count > 1 and i == 0:
            last = round(0.5 * frames) - 1
        kinds = ["move", "move", *({"enter", "leave"} - {motion.kind for motion in motions})]
        kind = sorted(kinds)[random.integers(len(kinds))]
        moved = {motion.thing for motion in motions}
        for _ in range(TRIES):
            thing = int(random.integers(len(scene.things)))
            if thing in moved:
                continue
            motion = _motion(random, scene, motions, thing, kind, first, last)
            if motion is not None:
                motions.append(motion)
                break
    return Film(scene, tuple(motions), frames)


def _motion(
    random: np.random.Generator, scene: Scene, before: Sequence[Motion], index: int, kind: str, first: int, last: int
) -> Motion | None:
    """A motion of that kind that hits nothing and stays, or leaves, as it should; None where this try does not."""
    thing = scene.things[index]
    ways = list(DIRECTIONS)[:2] if kind != "move" else list(DIRECTIONS)
    direction = ways[random.integers(len(ways))]
    way = np.array(DIRECTIONS[direction]) @ scene.camera.ground()
    if kind == "move":
        step = random.uniform(SHORT, LONG) * way
    else:
        step = _out_of_the_picture(scene, thing, -way if kind == "enter" else way) * way
    here = np.array(thing.place)
    start, end = (here - step, here) if kind == "enter" else (here, here + step)
    # what moved before may stand where it began or where it ended: keep clear of both
    others = [other for i, other in enumerate(scene.things) if i != index]
    others += [scene.things[m.thing].at(place) for m in before for place in (m.start, m.end)]
    for part in np.linspace(0, 1, PLACES):
        x, y = start + part * (end - start)
        if not _apart(thing.at((float(x), float(y))), others):
            return None
    goal = thing.at((float(end[0]), float(end[1])))
    if kind == "move" and not fits(goal, others, scene.camera):
        return None
    places = [(float(x), float(y)) for x, y in (start, end)]
    return Motion(index, kind, direction, places[0], places[1], first, last)


def _out_of_the_picture(scene: Scene, thing: Thing, way: np.ndarray) -> float:
    """How far, metres, a thing has to go that way until no part of it is in the picture."""
    far = 0.0
    while True:
        far += 0.05
        place = np.array(thing.place) + far * way
        columns = scene.camera.project(thing.at((float(place[0]), float(place[1]))).corners())[:, 0]
        if columns.max() < -0.02 or columns.min() > 1.02:
            return far


def _apart(thing: Thing, others: Sequence[Thing]) -> bool:
    return all(
        np.hypot(thing.place[0] - other.place[0], thing.place[1] - other.place[1])
        > 1.1 * (thing.radius + other.radius) + GAP
        for other in others
    )


def write_film(path: Path, pictures: Sequence[np.ndarray], fps: int) -> None:
    """Write pictures, uint8 (H, W, 3) with even sides, as an mp4; the same pictures give the same bytes."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = _stream(container, fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # several threads would be several ways to write the same film
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_frames(folder: Path, pictures: Sequence[np.ndarray]) -> None:
    """Write pictures as `000.png`, `001.png`, ... of a folder."""
    folder.mkdir(exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:03d}.png")


def _stream(container: Any, fps: int) -> Any:
    for name, options in CODECS:
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return container.add_stream(name, rate=fps, options=options)
    raise ValueError("PyAV was built without a video encoder: video_format=frames writes folders of pictures instead")
