"""Which frames of a film are looked at: a setting that is part of a model, like the size of its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from PIL import Image

from embodied.building import nearest
from embodied.data.multimodal.media import Spread, load_frames


@dataclass(frozen=True)
class FilmSampling:
    """How a film becomes frames.

    Attributes:
        frames: how many, evenly over the film; a shorter film gives all it has. Either this or `fps`.
        fps: as many as make this many per second of film.
        max_frames: never more than this, still over the whole film.
        spread: `start`, `ends` or `middle`, see `embodied.data.multimodal.media.frame_indices`.
        longest: larger frames are scaled down until neither side is longer, pixels; None: they keep their size.

    Raises:
        ValueError: not exactly one of `frames` and `fps` is given; a number is not positive; an unknown spread.
    """

    frames: int | None = 8
    fps: float | None = None
    max_frames: int = 64
    spread: Spread = "start"
    longest: int | None = None

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.fps is None):
            raise ValueError("video: give either frames or fps, and null for the other")
        for name in ("frames", "fps", "max_frames", "longest"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"video.{name} must be positive, got {value}")
        if self.spread not in get_args(Spread):
            raise ValueError(f"video.spread is one of {', '.join(get_args(Spread))}, got {self.spread!r}")

    @classmethod
    def from_dict(cls, node: Mapping[str, Any] | None) -> FilmSampling:
        """From a config's node; None: 8 frames.

        Raises:
            ValueError: an unknown key, or see the class.
        """
        known = [each.name for each in fields(cls)]
        for key in node or {}:
            if key not in known:
                raise ValueError(f"video has no '{key}'{nearest(str(key), known)}")
        return cls(**dict(node or {}))

    def to_dict(self) -> dict[str, Any]:
        """Inverse of `from_dict`."""
        return asdict(self)

    def load(self, reference: str, sample: str = "") -> tuple[list[Image.Image], list[float]]:
        """The frames, RGB, and when each is seen, seconds from the film's first.

        Raises:
            BrokenSample: the film is missing, damaged, or holds no pictures.
        """
        read = load_frames(reference, self.frames, self.fps, self.max_frames, self.spread, self.longest, sample)
        return [Image.fromarray(frame) for frame in read.images], read.timestamps.tolist()
