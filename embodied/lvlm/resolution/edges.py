"""Idefics2: the picture's own aspect ratio between two bounds, and if wanted its four quarters besides."""

from __future__ import annotations

from PIL import Image

from embodied.lvlm.resolution.base import Layout
from embodied.lvlm.resolution.tiles import Size, ViewByView, checked, positive, resize


class BoundedEdges(ViewByView):
    """Laurençon et al. 2024, arXiv 2405.02246; as `Idefics2ImageProcessor` of transformers.

    The longer edge is at most `longest`, and then no edge is shorter than `shortest`. The encoder pads what it batches
    and masks patches of padding.

    Args:
        width: D of a token.
        shortest, longest: pixels.
        split: whether the four quarters, each resized alike, come before the whole picture.
        resample: PIL's filter.

    Raises:
        ValueError: bounds out of order.
    """

    def __init__(
        self, width: int, shortest: int = 378, longest: int = 980, split: bool = False, resample: str = "bilinear"
    ) -> None:
        super().__init__(width, resample)
        positive(self, shortest=shortest)
        if longest < shortest:
            raise ValueError(f"BoundedEdges: longest {longest} is less than shortest {shortest}")
        self.shortest, self.longest, self.split = shortest, longest, split

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        if not self.split:
            return Layout((height, width), (self._size(height, width),))
        if min(height, width) < 2:
            raise ValueError(f"BoundedEdges: a picture of {height} x {width} pixels cannot be split into quarters")
        boxes = _quarters(height, width)
        views = [self._size(bottom - top, right - left) for left, top, right, bottom in boxes]
        return Layout((height, width), (*views, self._size(height, width)), (2, 2), 4)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        parts = [picture.crop(box) for box in _quarters(picture.height, picture.width)] if self.split else []
        views = zip([*parts, picture], layout.views, strict=True)
        return [resize(part, size, self.resample) for part, size in views]

    def _size(self, height: int, width: int) -> Size:
        ratio = width / height
        if width >= height and width > self.longest:
            height, width = int(self.longest / ratio), self.longest
        elif height > width and height > self.longest:
            height, width = self.longest, int(self.longest * ratio)
        return max(height, self.shortest), max(width, self.shortest)


def _quarters(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each quarter, row by row."""
    x, y = width // 2, height // 2
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
