"""What a filter is: it says of each sample, in turn, whether it stays, and if not, why."""

from __future__ import annotations

from abc import ABC, abstractmethod

from PIL import Image

from embodied.data.multimodal.media import image_size, load_image
from embodied.data.multimodal.sample import Sample, text_of

SAID = ("answer", "all")


class Opened:
    """A sample whose pictures are opened at most once, whatever number of filters looks at them."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self._sizes: list[tuple[int, int]] | None = None
        self._images: list[Image.Image] | None = None

    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each picture as it is shown, from its header alone.

        Raises:
            BrokenSample: a picture is missing or damaged.
        """
        if self._sizes is None:
            self._sizes = [image_size(reference, self.sample.id) for reference in self.sample.images()]
        return self._sizes

    def images(self) -> list[Image.Image]:
        """The pictures, RGB.

        Raises:
            BrokenSample: a picture is missing or damaged.
        """
        if self._images is None:
            self._images = [load_image(reference, self.sample.id) for reference in self.sample.images()]
        return self._images

    def said(self, of: str) -> str:
        """All its text, or what the assistant says."""
        if of == "all":
            return self.sample.text()
        return text_of([one for one in self.sample.messages if one["role"] == "assistant"])


class Filter(ABC):
    """Decides over samples one by one, in their order.

    A filter that compares with earlier samples keeps what it needs of those in `remember`, which is called for the
    samples that every filter let through: what is left out for another reason makes no duplicate of a good one.
    """

    @abstractmethod
    def refuse(self, opened: Opened) -> str | None:
        """Why the sample goes, in few words and without figures that differ from sample to sample; None if it stays.

        Raises:
            BrokenSample: it cannot be looked at.
        """

    def remember(self, opened: Opened) -> None:  # noqa: B027 - most filters remember nothing
        """The sample stays."""


def check_said(of: str, where: str) -> str:
    """`of`, if it is one of `answer` (what the assistant says) and `all` (every text).

    Raises:
        ValueError: it is not.
    """
    if of not in SAID:
        raise ValueError(f"{where}: of is answer (what the assistant says) or all (every text), got {of!r}")
    return of
