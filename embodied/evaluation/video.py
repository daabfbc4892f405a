"""A video of an episode that any browser plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embodied.files import atomic_file
from embodied.spec import IMAGES

CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "23", "preset": "veryfast"}),
    ("libopenh264", {}),
    ("libvpx-vp9", {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    ("mpeg4", {"qscale": "5"}),  # written everywhere, but few browsers play it: the last resort
)
SIDE, STRIP, BORDER, HOLD_S, MAX_FPS = 256, 28, 4, 0.8, 30
BACKGROUND, TEXT, MUTED = (22, 24, 29), (236, 238, 242), (150, 156, 168)
SUCCESS, FAILURE = (46, 160, 98), (208, 72, 72)


class EpisodeVideo:
    """Streams an episode into an mp4: cameras and maps side by side, the instruction and a step counter below.

    The file appears when the block ends well, and not at all otherwise. Pictures are enlarged by a whole factor,
    without smoothing, to at least 256 pixels in height, so that what the policy saw can be told pixel by pixel.
    Drawings are scaled smoothly to the height of the pictures.

        with EpisodeVideo(out / "videos/7.mp4", fps=20, instruction=observation["task"]) as video:
            video.add(observation)  # each step
            video.end(success=True)

    Args:
        path: the mp4.
        fps: steps per second; the embodiment's rate shows it in real time. Every step is a frame, and no more than 30
            are shown in a second, so that what was faster plays in slow motion.
        instruction: shown below the picture.
    """

    def __init__(self, path: str | Path, fps: float, instruction: str = "") -> None:
        self.path, self.instruction = Path(path), instruction
        self._fps = min(MAX_FPS, max(1, round(fps)))
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._last: Image.Image | None = None
        self._steps = 0

    def __enter__(self) -> EpisodeVideo:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._stack.enter_context(atomic_file(self.path))
        self._container = self._stack.enter_context(
            av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        )
        return self

    def add(self, images: Mapping[str, Any], drawings: Mapping[str, np.ndarray] | None = None) -> None:
        """One more step.

        Args:
            images: pictures (H, W, 3) uint8 by camera name, or a whole observation, of which the images are taken.
            drawings: what else to show, by name (`embodied.interaction.Drawings`).

        Raises:
            ValueError: there is no picture in either, or one is not (H, W, 3) uint8.
        """
        picture = self._picture({} if drawings and not images else cameras_of(images), drawings or {})
        self._write(self._captioned(picture, f"step {self._steps}", TEXT))
        self._last, self._steps = picture, self._steps + 1

    def end(self, success: bool) -> None:
        """Hold the last picture for a moment in a frame that says how it ended."""
        if self._last is None:
            return
        colour, word = (SUCCESS, "success") if success else (FAILURE, "failed")
        frame = self._captioned(self._last, f"{word}, {self._steps} steps", colour)
        ImageDraw.Draw(frame).rectangle((0, 0, frame.width - 1, frame.height - 1), outline=colour, width=BORDER)
        for _ in range(max(1, round(HOLD_S * self._fps))):
            self._write(frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._stream is None:
                    raise ValueError(f"{self.path}: a video needs at least one step")
                self._container.mux(self._stream.encode())
        except BaseException as problem:
            self._stack.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _write(self, frame: Image.Image) -> None:
        if self._stream is None:
            self._stream = _open_stream(self._container, self._fps, frame.width, frame.height)
        if (frame.width, frame.height) != (self._stream.width, self._stream.height):
            raise ValueError(f"{self.path}: pictures changed their size within the episode")
        for packet in self._stream.encode(av.VideoFrame.from_image(frame)):
            self._container.mux(packet)

    def _picture(self, cameras: Mapping[str, np.ndarray], drawings: Mapping[str, np.ndarray]) -> Image.Image:
        for name, pixels in (*cameras.items(), *drawings.items()):
            if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
                raise ValueError(
                    f"{self.path}: '{name}' is {pixels.dtype} {pixels.shape}, a picture is uint8 (H, W, 3)"
                )
        views = []
        for pixels in cameras.values():
            factor = -(-SIDE // pixels.shape[0])
            views.append(
                Image.fromarray(pixels).resize(
                    (pixels.shape[1] * factor, pixels.shape[0] * factor), Image.Resampling.NEAREST
                )
            )
        tallest = max((view.height for view in views), default=0) or max(len(pixels) for pixels in drawings.values())
        return _in_a_row([*views, *(_of_height(pixels, tallest) for pixels in drawings.values())])

    def _captioned(self, picture: Image.Image, note: str, colour: tuple[int, int, int]) -> Image.Image:
        # H.264 with yuv420p wants even sides
        frame = Image.new(
            "RGB", (picture.width + picture.width % 2, picture.height + picture.height % 2 + STRIP), BACKGROUND
        )
        frame.paste(picture, (0, 0))
        draw, font, baseline = ImageDraw.Draw(frame), ImageFont.load_default(13), frame.height - 10
        right = draw.textlength(note, font)
        draw.text((frame.width - 8 - right, baseline), note, fill=colour, font=font, anchor="ls")
        draw.text(
            (8, baseline),
            _fitted(draw, self.instruction, font, frame.width - 32 - right),
            fill=MUTED,
            font=font,
            anchor="ls",
        )
        return frame


def cameras_of(images: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The pictures of an observation by camera name; a plain mapping of pictures is taken as it is.

    Raises:
        ValueError: there are none.
    """
    found = {key.removeprefix(IMAGES): value for key, value in images.items() if key.startswith(IMAGES)}
    if not found:
        found = {key: value for key, value in images.items() if isinstance(value, np.ndarray) and value.ndim == 3}
    if not found:
        raise ValueError(f"no picture among {', '.join(images) or 'nothing'}: a video needs an observation with images")
    return found


def write_still(path: Path, drawings: Mapping[str, np.ndarray]) -> Path:
    """Write drawings side by side as a PNG, as high as the highest; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tallest = max(len(pixels) for pixels in drawings.values())
    with atomic_file(path) as temporary:
        _in_a_row([_of_height(pixels, tallest) for pixels in drawings.values()]).save(temporary, "PNG")
    return path


def _of_height(pixels: np.ndarray, height: int) -> Image.Image:
    drawn = Image.fromarray(pixels)
    return drawn.resize((max(1, round(drawn.width * height / drawn.height)), height), Image.Resampling.LANCZOS)


def _in_a_row(views: Sequence[Image.Image]) -> Image.Image:
    width, height = sum(view.width for view in views), max(view.height for view in views)
    picture, left = Image.new("RGB", (width, height), BACKGROUND), 0
    for view in views:
        picture.paste(view, (left, (height - view.height) // 2))
        left += view.width
    return picture


def _open_stream(container: Any, fps: int, width: int, height: int) -> Any:
    for name, options in CODECS:
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        stream = container.add_stream(name, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # encoding must not take the cores that rollouts use
        return stream
    raise ValueError("PyAV was built without any video encoder: install the wheel from PyPI (pip install av)")


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text.rstrip() + "…"
