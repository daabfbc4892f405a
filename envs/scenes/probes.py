"""Probes of hallucination as POPE asks them (Li et al. 2023, arXiv 2305.10355): is there this object, or is there not?

What POPE calls an object is a pair of shape and colour here: a red cube. Each picture is asked as many questions about
objects that are there as about objects that are not, the same ones that are there in all three settings. Those that are
not there are drawn in the settings

- `random`: from all of the split,
- `popular`: the most frequent of the split,
- `adversarial`: those that most often accompany, in the split, what the picture does show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from envs.scenes.questions import Question
from envs.scenes.visibility import Fact
from envs.scenes.vocabulary import Pair, article

SETTINGS = ("random", "popular", "adversarial")
EACH = 3
"""POPE asks about three objects that are there and three that are not."""


class Probes:
    """Asks about the pictures of one split.

    Args:
        pairs: what the split can show.
        pictures: the facts of all its pictures.
    """

    def __init__(self, pairs: Sequence[Pair], pictures: Sequence[Sequence[Fact]]) -> None:
        self.pairs = list(pairs)
        self.frequency: Counter[Pair] = Counter()
        self.together: Counter[tuple[Pair, Pair]] = Counter()
        for facts in pictures:
            there = {fact.pair for fact in facts}
            self.frequency.update(there)
            self.together.update(pair for a, b in combinations(sorted(there), 2) for pair in ((a, b), (b, a)))

    def ask(self, random: np.random.Generator, facts: Sequence[Fact], setting: str) -> list[Question]:
        """The probes of a picture: yes and no in turn."""
        there = {fact.pair for fact in facts}
        present = sorted({fact.pair for fact in facts if fact.seen})
        absent = [pair for pair in self.pairs if pair not in there]
        count = min(EACH, len(present), len(absent))
        present = [present[i] for i in random.permutation(len(present))[:count]]
        missing = [absent[i] for i in random.permutation(len(absent))]
        missing = sorted(missing, key=lambda pair: -self._pull(pair, there, setting))[:count]
        asked = [one for pair in zip(present, missing, strict=True) for one in zip(pair, ("yes", "no"), strict=True)]
        return [
            Question("probe", setting, f"Is there {article(f'{colour} {shape}')} in the image?", answer)
            for (shape, colour), answer in asked
        ]

    def _pull(self, pair: Pair, there: set[Pair], setting: str) -> int:
        """How strongly a setting prefers to ask about a pair that is not there."""
        if setting == "popular":
            return self.frequency[pair]
        if setting == "adversarial":
            return sum(self.together[one, pair] for one in there)
        return 0
