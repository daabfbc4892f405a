"""Renders stretches of a data set's scenes and films and writes down what they show; lives in a worker process.

What a stretch holds depends on the settings and its numbers alone. Its record appears, whole, after its pictures: a
stretch with a record is never drawn again, and one without is drawn anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from embodied.files import write_text
from envs.scenes.film import draw_film, write_film, write_frames
from envs.scenes.scene import SceneDrawer
from envs.scenes.settings import Settings
from envs.scenes.tiny import TinySceneRenderer
from envs.scenes.visibility import look

PARTS = "parts"
IMAGES, VIDEOS = "images", "videos"
JPEG_QUALITY = 95


class Painter:
    """Draws the pictures of one data set.

    Args:
        out: the data set's folder.
        settings: the fields of `Settings`.

    Raises:
        ValueError: a setting that makes no sense; the renderer's packages are missing.
    """

    def __init__(self, out: str, settings: Mapping[str, Any]) -> None:
        self.out, self.settings = Path(out), Settings(**settings)
        self.drawer = SceneDrawer(self.settings.vocabulary(), self.settings.seed, *self.settings.things)
        self._renderer = TinySceneRenderer(self.settings.size, self.settings.antialias)

    def paint(self, kind: str, start: int, stop: int) -> int:
        """Draw the `images` or `videos` from number `start` to before `stop`, and their record; how many."""
        draw = self._image if kind == IMAGES else self._video
        rows = [draw(number) for number in range(start, stop)]
        write_text(record_of(self.out, kind, start), "".join(json.dumps(row) + "\n" for row in rows))
        return len(rows)

    def close(self) -> None:
        self._renderer.close()

    def _image(self, number: int) -> dict[str, Any]:
        split = self.settings.split_of(IMAGES, number)
        scene = self.drawer.draw(number, split)
        picture, mask = self._renderer.draw(scene)
        name = f"{IMAGES}/{number:06d}.{self.settings.image_format}"
        how: dict[str, Any] = {"quality": JPEG_QUALITY} if self.settings.image_format == "jpg" else {}
        Image.fromarray(picture).save(self.out / name, **how)
        facts = [fact.as_dict() for fact in look(scene, mask)]
        return {"number": number, "split": split, "image": name, "things": facts}

    def _video(self, number: int) -> dict[str, Any]:
        settings = self.settings
        split = settings.split_of(VIDEOS, number)
        film = draw_film(self.drawer, number, split, settings.frames)
        drawn = [(scene, *self._renderer.draw(scene)) for scene in map(film.frame, range(film.frames))]
        pictures = [picture for _, picture, _ in drawn]
        name = f"{VIDEOS}/{number:06d}"
        if settings.video_format == "mp4":
            name += ".mp4"
            write_film(self.out / name, pictures, settings.fps)
        else:
            write_frames(self.out / name, pictures)
        facts = [[fact.as_dict() for fact in look(scene, mask)] for scene, _, mask in (drawn[0], drawn[-1])]
        motions = [{"thing": m.thing, "kind": m.kind, "direction": m.direction} for m in film.motions]
        return {
            "number": number,
            "split": split,
            "video": name,
            "motions": motions,
            "things": facts[0],
            "things_at_the_end": facts[1],
        }


def record_of(out: Path, kind: str, start: int) -> Path:
    """The record of the stretch of `images` or `videos` that begins at a number."""
    return out / PARTS / f"{kind}-{start:06d}.jsonl"
