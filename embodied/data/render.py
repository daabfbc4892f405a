"""An episode as a film: its cameras side by side, the instruction above, actions and state as curves below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embodied.data.lerobot.reader import LeRobotDataset
from embodied.data.lerobot.video import CODECS, available_codec, encode_video, has_encoder
from embodied.files import atomic_file
from embodied.spec import ACTION, STATE, TASK

BACKGROUND, TEXT, CURSOR, RULE = (18, 20, 24), (232, 234, 237), (255, 255, 255), (70, 74, 82)
COLOURS = [
    (99, 162, 255),
    (255, 146, 84),
    (108, 205, 129),
    (240, 98, 120),
    (186, 146, 255),
    (236, 200, 92),
    (94, 206, 210),
    (200, 200, 200),
]
VIEW, STRIP, TITLE, MARGIN = 320, 90, 30, 8


def render(dataset: LeRobotDataset, number: int, out: Path, cameras: Sequence[str] | None = None) -> Path:
    """Write episode `number` as an MP4 at its own rate; H.264 where available, since every player shows it.

    Raises:
        ValueError: no such episode or camera, or a damaged file.
        OSError: it cannot be written.
    """
    cameras = tuple(dataset.cameras if cameras is None else cameras)
    numbers = dataset.low_dimensional(number)
    sources = [dataset.images(number, camera) for camera in cameras]
    for camera in cameras:
        dataset.camera_feature(camera)
    codec = "libx264" if has_encoder("libx264") else available_codec()
    assert codec in CODECS
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as temporary:
        encode_video(
            temporary, _film(dataset, number, numbers, cameras, sources), dataset.fps, codec, crf=20, keyframes=30
        )
    return out


def _film(
    dataset: LeRobotDataset,
    number: int,
    numbers: dict[str, np.ndarray],
    cameras: Sequence[str],
    sources: list[Iterator[np.ndarray]],
) -> Iterator[np.ndarray]:
    length = dataset.episodes[number].length
    strips = {
        key: numbers[key].reshape(length, -1)
        for key in (ACTION, STATE)
        if key in numbers and numbers[key].dtype.kind in "fiub"
    }
    widths = [_scaled(dataset.camera_feature(camera).shape) for camera in cameras]
    width = _even(max(sum(widths) + MARGIN * (len(cameras) + 1), 480))
    height = _even(TITLE + (VIEW + TITLE if cameras else 0) + len(strips) * (STRIP + TITLE) + MARGIN)
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    task = int(numbers["task_index"][0]) if "task_index" in numbers else 0
    instruction = dataset.tasks[task] if task < len(dataset.tasks) else ""
    draw.text((MARGIN, 7), _fitting(instruction or TASK, width - 150), fill=TEXT, font=_font(15))
    tops = {}
    top = TITLE + (VIEW + TITLE if cameras else 0)
    for key, values in strips.items():
        names = _names(dataset, key, values.shape[1])
        _curves(draw, key, names, values, top, width)
        tops[key] = top + TITLE
        top += STRIP + TITLE
    for frame in range(length):
        picture = canvas.copy()
        pen = ImageDraw.Draw(picture)
        clock = f"episode {number}   {frame / dataset.fps:6.2f} s"
        pen.text((width - MARGIN - pen.textlength(clock, font=_font(13)), 8), clock, fill=TEXT, font=_font(13))
        left = MARGIN
        for camera, source, view in zip(cameras, sources, widths, strict=True):
            pen.text((left, TITLE + VIEW + 6), camera, fill=TEXT, font=_font(13))
            picture.paste(Image.fromarray(next(source)).resize((view, VIEW), Image.Resampling.LANCZOS), (left, TITLE))
            left += view + MARGIN
        for above in tops.values():
            x = _x(frame, length, width)
            pen.line([(x, above), (x, above + STRIP - MARGIN)], fill=CURSOR)
        yield np.asarray(picture)


def _curves(draw: Any, key: str, names: Sequence[str], values: np.ndarray, top: int, width: int) -> None:
    """Draw each column of values (N, D) over time, all to one scale, with its name in its colour."""
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    draw.line([(MARGIN, top), (width - MARGIN, top)], fill=RULE)
    label = f"{key}  {low:.3g} to {high:.3g}"
    draw.text((MARGIN, top + 6), label, fill=TEXT, font=_font(13))
    left = MARGIN + draw.textlength(label, font=_font(13)) + 16
    bottom = top + TITLE + STRIP - MARGIN
    for column, name in enumerate(names):
        colour = COLOURS[column % len(COLOURS)]
        heights = bottom - (values[:, column] - low) / span * (STRIP - MARGIN)
        points = [(_x(frame, len(values), width), float(y)) for frame, y in enumerate(heights)]
        draw.line(points if len(points) > 1 else points * 2, fill=colour, width=2)
        size = draw.textlength(name, font=_font(13))
        if left + size < width - MARGIN:
            draw.text((left, top + 6), name, fill=colour, font=_font(13))
            left += size + 12


def _names(dataset: LeRobotDataset, key: str, size: int) -> list[str]:
    names = dataset.features[key].names
    return (
        [str(name) for name in names]
        if isinstance(names, list) and len(names) == size
        else [str(i) for i in range(size)]
    )


def _scaled(shape: tuple[int, ...]) -> int:
    return _even(round(shape[1] * VIEW / shape[0]))


def _x(frame: int, length: int, width: int) -> float:
    return MARGIN + frame / max(length - 1, 1) * (width - 2 * MARGIN)


def _even(size: int) -> int:
    return size + size % 2


def _fitting(text: str, width: int) -> str:
    font = _font(15)
    while len(text) > 4 and font.getlength(text) > width:
        text = text[:-4] + "..."
    return text


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
