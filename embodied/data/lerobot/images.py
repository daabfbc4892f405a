"""PNG in and out: lossless, 8-bit RGB."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError


def encode_png(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 as PNG; the fastest compression level, as LeRobot's."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes, where: str) -> np.ndarray:
    """A fresh image (H, W, 3) uint8 from PNG (or JPEG) bytes; `where` names it in the error.

    Raises:
        ValueError: the bytes are damaged, with `where`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{where}: the image is damaged ({error})") from None
