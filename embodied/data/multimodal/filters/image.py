"""Filters by how many pictures a sample has and how large they are; only headers are read."""

from __future__ import annotations

from embodied.data.multimodal.filters.base import Filter, Opened


class ImageCount(Filter):
    """Keeps samples with a number of pictures within limits.

    Args:
        least, most: inclusive; None for no upper limit.

    Raises:
        ValueError: the limits leave nothing.
    """

    def __init__(self, least: int = 1, most: int | None = None) -> None:
        if most is not None and most < least:
            raise ValueError(f"ImageCount keeps nothing: least is {least} and most is {most}")
        self.least, self.most = least, most

    def refuse(self, opened: Opened) -> str | None:
        count = len(opened.sample.images())
        if count < self.least:
            return "no image" if count == 0 else "too few images"
        return "too many images" if self.most is not None and count > self.most else None


class ImageSize(Filter):
    """Keeps samples whose pictures are all neither too small nor too large.

    Args:
        min_side: least length of the shorter side, pixels (OBELICS: 150; COYO: 200; MMC4: 150).
        max_side: greatest length of the longer side, pixels (OBELICS: 20 000); None for any.
        max_pixels: greatest width x height; None for any.

    Raises:
        ValueError: the limits leave nothing.
    """

    def __init__(self, min_side: int = 150, max_side: int | None = 20_000, max_pixels: int | None = None) -> None:
        if min_side < 1 or (max_side is not None and max_side < min_side):
            raise ValueError(f"ImageSize keeps nothing: min_side is {min_side} and max_side is {max_side}")
        if max_pixels is not None and max_pixels < min_side**2:
            raise ValueError(f"ImageSize keeps nothing: max_pixels is {max_pixels} and min_side {min_side}")
        self.min_side, self.max_side, self.max_pixels = min_side, max_side, max_pixels

    def refuse(self, opened: Opened) -> str | None:
        for width, height in opened.sizes():
            if min(width, height) < self.min_side:
                return "image too small"
            if self.max_side is not None and max(width, height) > self.max_side:
                return "image too large"
            if self.max_pixels is not None and width * height > self.max_pixels:
                return "image too large"
        return None


class AspectRatio(Filter):
    """Keeps samples whose pictures are not too long and thin.

    Args:
        most: greatest ratio of the longer side to the shorter (OBELICS: 2; LAION and COYO: 3).

    Raises:
        ValueError: it is less than 1.
    """

    def __init__(self, most: float = 3.0) -> None:
        if most < 1:
            raise ValueError(f"AspectRatio: most is the longer side over the shorter, so at least 1, got {most}")
        self.most = most

    def refuse(self, opened: Opened) -> str | None:
        for width, height in opened.sizes():
            if max(width, height) > self.most * min(width, height):
                return "image too long and thin"
        return None
