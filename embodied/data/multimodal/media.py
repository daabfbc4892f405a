"""From a reference in a sample to pixels: pictures by Pillow, frames of films by PyAV.

A reference is text, in one of three forms:

| form | example |
|---|---|
| a path | `train2017/000000000009.jpg` |
| a file within a tar archive | `shard-000.tar#1536+20480/000009.jpg`: first byte, number of bytes, name |
| the file itself, as a data URI | `data:image/png;base64,iVBORw0...` |
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
from PIL import Image, ImageOps

from embodied.data.multimodal.sample import BrokenSample

MAX_PIXELS = 100_000_000
"""The largest picture that is decoded unless told otherwise: a small file can unfold into any amount of memory."""

ORIENTATION = 0x0112
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, Image.DecompressionBombError)
"""What Pillow raises at damaged files."""

Spread = Literal["start", "ends", "middle"]
INSIDE = re.compile(r"^(?P<file>.+\.tar)#(?P<first>\d+)\+(?P<count>\d+)/(?P<name>.*)$", re.DOTALL)
DATA = re.compile(r"^data:(?P<kind>[\w/+.-]*);base64,")


def inside(file: str | Path, first: int, count: int, name: str) -> str:
    """The reference of `count` bytes of a tar file from byte `first` on, which its member `name` consists of."""
    return f"{file}#{first}+{count}/{name}"


def embedded(data: bytes, kind: str = "") -> str:
    """The reference of a file that is held in memory; `kind` is its MIME type, by its first bytes unless given."""
    return f"data:{kind or _kind_of(data)};base64,{base64.b64encode(data).decode('ascii')}"


def shown(reference: str) -> str:
    """A reference as messages name it."""
    return "an embedded file" if DATA.match(reference) else reference


def read_bytes(reference: str, what: str = "image") -> bytes:
    """The file that a reference stands for.

    Raises:
        BrokenSample: it is missing, or its archive is too short.
    """
    if packed := DATA.match(reference):
        try:
            return base64.b64decode(reference[packed.end() :], validate=True)
        except binascii.Error as error:
            raise BrokenSample(f"corrupt {what}", f"an embedded {what} is not base64 ({error})") from None
    try:
        if within := INSIDE.match(reference):
            with Path(within["file"]).open("rb") as archive:
                archive.seek(int(within["first"]))
                data = archive.read(int(within["count"]))
            if len(data) < int(within["count"]):
                raise BrokenSample(f"corrupt {what}", "the archive ends before it: it was cut short", file=reference)
            return data
        return Path(reference).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenSample):
            raise
        raise _missing(what, reference, error) from None


def reachable(reference: str, what: str = "image", sample: str = "") -> None:
    """Stop where the file that a reference stands for is not there; it is not opened.

    Raises:
        BrokenSample: it is missing, or its archive is too short.
    """
    if DATA.match(reference):
        return
    place = INSIDE.match(reference)
    file = Path(place["file"] if place else reference)
    if not file.is_file():
        raise _missing(what, reference).at(sample=sample)
    if place and file.stat().st_size < int(place["first"]) + int(place["count"]):
        raise BrokenSample(f"corrupt {what}", "the archive ends before it: it was cut short", reference, sample)


def load_image(
    reference: str | Image.Image, sample: str = "", longest: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The picture as RGB, upright (its EXIF orientation is applied).

    Args:
        reference: see the top of this file; a picture that is already open is taken too.
        sample: id of the sample, for messages.
        longest: scale larger pictures down until neither side is longer than this, pixels.
        max_pixels: larger ones are refused before they are decoded.

    Raises:
        BrokenSample: it is missing, no picture, damaged, cut short, or too large.
    """
    name = "a picture in memory" if isinstance(reference, Image.Image) else shown(reference)
    try:
        opened = reference if isinstance(reference, Image.Image) else Image.open(_source(reference, "image"))
        width, height = opened.size
        if width * height > max_pixels:
            raise BrokenSample(
                "image too large", f"the picture has {width} x {height} pixels, more than {max_pixels}", name
            )
        picture = _rgb(ImageOps.exif_transpose(opened))
    except BrokenSample as fault:
        raise fault.at(sample=sample) from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        IndexError,
        Image.DecompressionBombError,
    ) as error:
        raise BrokenSample(
            "corrupt image", f"the picture is damaged or was cut short ({_first_line(error)})", name, sample
        ) from None
    if longest is not None and max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return picture


def image_size(reference: str, sample: str = "") -> tuple[int, int]:
    """(width, height) of a picture as `load_image` gives it, in pixels; only its header is read.

    Raises:
        BrokenSample: it is missing or no picture.
    """
    try:
        with Image.open(_source(reference, "image")) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except BrokenSample as fault:
        raise fault.at(sample=sample) from None
    except BROKEN as error:
        raise _corrupt(error, reference, sample) from None
    return (height, width) if turned else (width, height)


@dataclass(frozen=True)
class Frames:
    """Some frames of a film.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        timestamps: (N,) float64, seconds from the film's first frame, ascending.
        duration: of the whole film, seconds.
    """

    images: np.ndarray
    timestamps: np.ndarray
    duration: float


def load_frames(
    reference: str,
    count: int | None = None,
    fps: float | None = None,
    max_frames: int = 64,
    spread: Spread = "start",
    longest: int | None = None,
    sample: str = "",
) -> Frames:
    """Frames of a film, evenly over its whole length.

    Args:
        reference: of the film.
        count: how many frames; a shorter film gives all it has. Either this or `fps`.
        fps: as many as make this many per second of film.
        max_frames: never more than this, still over the whole length.
        spread: see `frame_indices`.
        longest: scale larger frames down until neither side is longer than this, pixels.
        sample: id of the sample, for messages.

    Raises:
        BrokenSample: it is missing, damaged, or holds no pictures.
        ValueError: not exactly one of `count` and `fps` is given, or one is not positive.
    """
    if (count is None) == (fps is None):
        raise ValueError("give either count or fps, to say how many frames of a film are wanted")
    name = shown(reference)
    try:
        with av.open(_source(reference, "video")) as container:
            if not container.streams.video:
                raise BrokenSample("corrupt video", "it holds no pictures", name)
            stamps, keys = _packets(container)
            if not stamps:
                raise BrokenSample("corrupt video", "it holds no pictures", name)
            stream = container.streams.video[0]
            duration = _duration(stamps, stream)
            wanted = len(stamps) if count is None else count
            if fps is not None:
                if not fps > 0:
                    raise ValueError(f"fps must be positive, got {fps}")
                wanted = max(int(duration * fps + 1e-6), 1)
            picked = frame_indices(len(stamps), min(wanted, max_frames), spread)
            images = _decode(container, [stamps[i] for i in picked], keys, longest)
            times = np.array([float((stamps[i] - stamps[0]) * stream.time_base) for i in picked])
    except BrokenSample as fault:
        raise fault.at(sample=sample) from None
    except (av.FFmpegError, EOFError) as error:
        raise BrokenSample(
            "corrupt video", f"the film is damaged or was cut short ({_first_line(error)})", name, sample
        ) from None
    except OSError as error:
        raise _missing("video", name, error).at(sample=sample) from None
    return Frames(np.stack(images), times, duration)


def frame_indices(total: int, count: int, spread: Spread = "start") -> np.ndarray:
    """Which of `total` frames make `count` evenly spaced ones, (min(count, total),) int64 ascending.

    Args:
        total: frames there are.
        count: frames wanted.
        spread: with s = total / count, frame i is at floor(i s) for `start` (`sample_frames` of transformers' video
            processors), at floor(i (total - 1) / (count - 1)) for `ends` (LLaVA-NeXT-Video: the first and the last are
            among them), at floor((i + 1/2) s) for `middle` (Video-LLaMA, InternVL: the middle of each segment).

    Raises:
        ValueError: a count that is not positive, or an unknown spread.
    """
    if count < 1 or total < 1:
        raise ValueError(f"at least 1 frame of at least 1 can be taken, not {count} of {total}")
    if spread not in get_args(Spread):
        raise ValueError(f"spread is one of {', '.join(get_args(Spread))}, got {spread!r}")
    count = min(count, total)
    i = np.arange(count, dtype=np.int64)
    if spread == "start":
        return i * total // count
    if spread == "ends":
        return i * (total - 1) // max(count - 1, 1)
    return (2 * i + 1) * total // (2 * count)


def _source(reference: str, what: str) -> Any:
    if DATA.match(reference) or INSIDE.match(reference):
        return io.BytesIO(read_bytes(reference, what))
    if not Path(reference).is_file():
        raise _missing(what, reference)
    return str(reference)


def _missing(what: str, reference: str, error: Exception | None = None) -> BrokenSample:
    if error is None or isinstance(error, FileNotFoundError):
        return BrokenSample(f"missing {what}", f"the {what} is missing", reference)
    return BrokenSample(f"missing {what}", f"the {what} cannot be read ({_first_line(error)})", reference)


def _corrupt(error: Exception, reference: str, sample: str) -> BrokenSample:
    detail = f"the picture is damaged or was cut short ({_first_line(error)})"
    return BrokenSample("corrupt image", detail, shown(reference), sample)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8, which makes most of them white
        return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")


def _packets(container: Any) -> tuple[list[int], list[int]]:
    """Times of all frames and of those that decoding can begin at, in units of the stream's time base, ascending."""
    stream = container.streams.video[0]
    stamps, keys = [], []
    for packet in container.demux(stream):
        if packet.pts is not None and packet.size and not packet.is_discard:
            stamps.append(packet.pts)
            keys += [packet.pts] if packet.is_keyframe else []
    return sorted(stamps), sorted(keys)


def _duration(stamps: list[int], stream: Any) -> float:
    between = (stamps[-1] - stamps[0]) / (len(stamps) - 1) if len(stamps) > 1 else 0
    if not between:
        return float(1 / stream.average_rate) if stream.average_rate else 0.0
    return float((stamps[-1] - stamps[0] + between) * stream.time_base)


def _decode(container: Any, wanted: list[int], keys: list[int], longest: int | None) -> list[np.ndarray]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    images: list[np.ndarray] = []
    begun: int | None = None  # the key frame that decoding began at
    frames, frame = iter(()), None
    for stamp in wanted:
        key = keys[max(int(np.searchsorted(keys, stamp, side="right")) - 1, 0)] if keys else None
        if begun is None or (key is not None and key > (frame.pts if frame is not None else begun)):
            container.seek(key if key is not None else 0, stream=stream, backward=True)
            frames, frame, begun = container.decode(stream), None, key if key is not None else 0
        while frame is None or frame.pts is None or frame.pts < stamp:
            following = next(frames, None)
            if following is None:
                break
            frame = following
        if frame is None:
            raise BrokenSample("corrupt video", "none of its frames can be decoded", container.name)
        images.append(_small(frame, longest))
    return images


def _small(frame: Any, longest: int | None) -> np.ndarray:
    picture = frame.to_ndarray(format="rgb24")
    if longest is None or max(picture.shape[:2]) <= longest:
        return picture
    scaled = Image.fromarray(picture)
    scaled.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return np.asarray(scaled)


def _kind_of(data: bytes) -> str:
    for start, kind in ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG", "image/png"), (b"GIF8", "image/gif")):
        if data.startswith(start):
            return kind
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else "application/octet-stream"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
