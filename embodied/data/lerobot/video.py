"""Frames to MP4 and back by timestamp, through PyAV.

Every second frame is a key frame (as in LeRobot: g=2, crf=30), so that any frame is one or two decodes away from a
seek.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CODECS = {
    "libsvtav1": ("av1", {"preset": "8", "svtav1-params": "lp=1"}),
    # without macroblock trees, whose weights x264 takes from memory it never set: bytes would differ from run to run
    "libx264": ("h264", {"preset": "veryfast", "x264-params": "mbtree=0"}),
}
"""Encoder -> its name in a data set's `info.json`, and its options."""
TOLERANCE = 1e-4
"""How far, in seconds, a frame may be from the timestamp asked for; LeRobot's default."""


def available_codec() -> str:
    """The AV1 encoder where this build of FFmpeg has it, else H.264.

    Raises:
        ValueError: it has neither.
    """
    for codec in CODECS:
        if has_encoder(codec):
            return codec
    raise ValueError("this build of PyAV can encode neither AV1 nor H.264: reinstall it (pip install av)")


def has_encoder(codec: str) -> bool:
    """Whether this build of FFmpeg can encode with `codec`."""
    try:
        return av.codec.Codec(codec, "w").is_encoder
    except ValueError:
        return False


def encode_video(
    path: Path, frames: Iterable[np.ndarray], fps: float, codec: str | None = None, crf: int = 30, keyframes: int = 2
) -> int:
    """Write frames (H, W, 3) uint8 as MP4; returns how many there were. Lossy.

    Raises:
        ValueError: there are no frames, or their size is odd (both codecs halve the colour planes).
    """
    codec = codec or available_codec()
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(
            f"video frames have even height and width, got {height} x {width}: choose another size, or store images"
        )
    os.environ.setdefault("SVT_LOG", "1")  # else the AV1 encoder prints thirty lines per video
    rate = Fraction(fps).limit_denominator(1000)
    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"g": str(keyframes), "crf": str(crf), **CODECS.get(codec, ("", {}))[1]}
        for image in itertools.chain([first], frames):
            count += 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    return count


def video_info(path: Path) -> dict[str, Any]:
    """The `info` of a video feature, as LeRobot writes it."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": {"libdav1d": "av1"}.get(stream.codec_context.name, stream.codec_context.name),
            "video.pix_fmt": stream.codec_context.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": _number(stream.average_rate),
            "video.channels": 3,
            "has_audio": bool(container.streams.audio),
        }


def open_video(path: Path) -> Any:
    """An open PyAV container.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged or holds no video.
    """
    if not path.is_file():
        raise FileNotFoundError(2, "missing video", str(path))
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{path} is damaged or was cut short ({error})") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} holds no video")
    return container


def read_frames(path: Path, timestamps: Iterable[float], tolerance: float = TOLERANCE) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 at ascending `timestamps`, seconds from the start of the file, one at a time.

    Raises:
        ValueError: no frame is within `tolerance` of a timestamp, or the file is damaged.
    """
    wanted = list(timestamps)
    if not wanted:
        return
    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            container.seek(max(int((wanted[0] - tolerance) / stream.time_base), 0), stream=stream, backward=True)
            decoded = container.decode(stream)
            frame = next(decoded, None)
            for time in wanted:
                while frame is not None and frame.time < time - tolerance:
                    frame = next(decoded, None)
                if frame is None or frame.time > time + tolerance:
                    has = (
                        "it ends before: it was cut short, or the timestamps are wrong"
                        if frame is None
                        else f"the nearest is at {frame.time:.4f} s"
                    )
                    raise ValueError(f"{path} has no frame at {time:.4f} s ({has})")
                yield frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise ValueError(f"{path} is damaged or was cut short ({error})") from None


def _number(rate: Any) -> float | int:
    value = float(rate)
    return int(value) if value.is_integer() else value
