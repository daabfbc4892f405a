"""What a data set of scenes is to be, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from envs.scenes.vocabulary import NUMBERS, UNSEEN, Vocabulary

SPLITS = ("train", "val", "test", UNSEEN)
FORMATS = {"image_format": ("png", "jpg"), "video_format": ("mp4", "frames")}


@dataclass(frozen=True)
class Settings:
    """All that decides what is in a data set, byte by byte.

    Args:
        scenes: how many pictures.
        videos: how many films.
        size: pixels of a side of both.
        seed: 0 or more.
        splits: split -> its part of the scenes and of the videos; together 1.
        things: least and most things in a scene.
        antialias: see `TinySceneRenderer`.
        shapes, colours, sizes, textures: see `Vocabulary`.
        questions: how many of each kind are asked about a picture at most, before answers are balanced.
        frames, fps: how many frames a film has and how many a second.
        image_format: `png` or `jpg`.
        video_format: `mp4`, or `frames` for a folder of pictures.

    Raises:
        ValueError: one of them makes no sense.
    """

    scenes: int
    videos: int = 0
    size: int = 128
    seed: int = 0
    splits: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "val": 0.05, "test": 0.1, UNSEEN: 0.05})
    things: Sequence[int] = (2, 6)
    antialias: int = 1
    shapes: Sequence[str] | None = None
    colours: Sequence[str] | None = None
    sizes: Sequence[str] | None = None
    textures: Sequence[str] | None = None
    questions: int = 2
    frames: int = 12
    fps: int = 4
    image_format: str = "png"
    video_format: str = "mp4"

    def __post_init__(self) -> None:
        self._whole("scenes", 1, 999_999)
        self._whole("videos", 0, 999_999)
        self._whole("size", 48, 2048)
        self._whole("seed", 0, 2**31)
        self._whole("antialias", 1, 4)
        self._whole("questions", 1, 20)
        self._whole("frames", 6, 200)
        self._whole("fps", 1, 60)
        for name, known in FORMATS.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {' or '.join(known)}, got {getattr(self, name)!r}")
        if not (
            isinstance(self.things, list | tuple) and len(self.things) == 2 and all(_whole(n) for n in self.things)
        ):
            raise ValueError(f"things is [least, most] of a scene, got {self.things!r}")
        if not 2 <= self.things[0] <= self.things[1] <= len(NUMBERS) - 1:
            raise ValueError(f"a scene has 2 to {len(NUMBERS) - 1} things, got things={list(self.things)}")
        if self.videos and self.video_format == "mp4" and self.size % 2:
            raise ValueError(f"the sides of a film in mp4 are even, got size={self.size}: or use video_format=frames")
        self._check_splits()
        self.vocabulary()

    def vocabulary(self) -> Vocabulary:
        """The words that are used."""
        return Vocabulary(self.shapes, self.colours, self.sizes, self.textures)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, the same for equal settings."""
        return asdict(self) | {"things": list(self.things)}

    def ranges(self, kind: str) -> dict[str, range]:
        """Split -> the numbers of its `images` or `videos`; every split with a part has at least one, if any has."""
        total = self.scenes if kind == "images" else self.videos
        wanted = [name for name in SPLITS if self.splits.get(name, 0) > 0]
        if total < len(wanted):
            return {name: range(total if i == 0 else 0) for i, name in enumerate(wanted)}
        counts = [max(1, int(total * self.splits[name] + 1e-9)) for name in wanted]
        largest = max(range(len(wanted)), key=lambda i: counts[i])
        counts[largest] += total - sum(counts)
        found, start = {}, 0
        for name, count in zip(wanted, counts, strict=True):
            found[name] = range(start, start + count)
            start += count
        return found

    def split_of(self, kind: str, number: int) -> str:
        """The split that an image or a video belongs to."""
        return next(name for name, numbers in self.ranges(kind).items() if number in numbers)

    def _whole(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if not _whole(value) or not least <= value <= most:
            raise ValueError(f"{name} is a whole number from {least} to {most}, got {value!r}")

    def _check_splits(self) -> None:
        if not isinstance(self.splits, dict) or not set(self.splits) <= set(SPLITS):
            raise ValueError(f"splits is a fraction for each of {', '.join(SPLITS)}, got {self.splits!r}")
        parts = list(self.splits.values())
        if not all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in parts):
            raise ValueError(f"the fractions of splits are from 0 to 1, got {self.splits!r}")
        if abs(sum(parts) - 1) > 1e-6:
            raise ValueError(f"the fractions of splits make 1 together, got {sum(parts):g}")
        if self.scenes < len([x for x in parts if x > 0]):
            raise ValueError(f"scenes={self.scenes} are too few for {len(parts)} splits: each needs one")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
