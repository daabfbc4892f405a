"""Many conversations in few rows: bins filled to the brim, in an order that the seed alone decides.

Best fit, longest first, within a window of samples: memory is bounded by the window, and each sample comes once.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

from embodied.lvlm.chat.pieces import Encoded


class Packer:
    """Groups of samples that fit into one row together.

    Args:
        capacity: tokens of a row.
        window: samples looked at together; more fill rows better and need more memory.
        seed: decides the order of rows within a window.

    Raises:
        ValueError: a size that is not positive.
    """

    def __init__(self, capacity: int, window: int = 1024, seed: int = 0) -> None:
        if capacity < 1 or window < 1:
            raise ValueError(f"Packer: capacity and window must be at least 1, got {capacity} and {window}")
        self.capacity, self.window, self.seed = capacity, window, seed

    def __call__(self, samples: Iterable[Encoded], epoch: int = 0) -> Iterator[list[Encoded]]:
        """Each sample exactly once, in groups of at most `capacity` tokens.

        Raises:
            ValueError: a sample longer than a row.
        """
        generator = random.Random(f"{self.seed}/{epoch}")
        held: list[Encoded] = []
        for sample in samples:
            held.append(sample)
            if len(held) == self.window:
                yield from self._window(held, generator)
                held = []
        yield from self._window(held, generator)

    def _window(self, held: Sequence[Encoded], generator: random.Random) -> Iterator[list[Encoded]]:
        groups = best_fit([len(sample) for sample in held], self.capacity)
        generator.shuffle(groups)
        for group in groups:
            yield [held[i] for i in group]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` in groups whose sum is at most `capacity`.

    Best fit decreasing: the longest first, each into the fullest group that still has room. It needs at most 11/9 of
    the fewest groups possible, plus one (Johnson 1973).

    Raises:
        ValueError: a length is beyond the capacity.
    """
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left in a group, and which; sorted
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] > capacity:
            raise ValueError(f"a sample of {lengths[i]} tokens does not fit into a row of {capacity}")
        at = bisect_left(room, (lengths[i], -1))
        if at == len(room):
            groups.append([])
            left, group = capacity, len(groups) - 1
        else:
            left, group = room.pop(at)
        groups[group].append(i)
        insort(room, (left - lengths[i], group))
    return groups
