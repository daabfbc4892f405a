"""What an instruction asks for: the category of object that its words name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


class NamedGoals:
    """Finds the category that a text names, by a list of words for each.

    Args:
        words: by category, what people call it. Of names that overlap in a text the longest counts
            (`chest of drawers` is no chest), and of several the first.
        ids: by category, its number in semantic images.

    Raises:
        ValueError: a category without words or without a number, or one word for two categories.
    """

    def __init__(self, words: Mapping[str, Sequence[str]], ids: Mapping[str, int]) -> None:
        self.words: dict[str, str] = {}
        for category, names in words.items():
            if not names or category not in ids:
                raise ValueError(f"NamedGoals: {category} needs a list of words and a number under ids")
            for name in names:
                if self.words.setdefault(str(name).lower(), str(category)) != category:
                    raise ValueError(f"NamedGoals: '{name}' is a word for {self.words[name.lower()]} and {category}")
        if not self.words:
            raise ValueError("NamedGoals: there are no words")
        self.ids = {str(category): int(ids[category]) for category in words}
        longest = sorted(self.words, key=len, reverse=True)
        self._pattern = re.compile(r"\b(" + "|".join(re.escape(name) for name in longest) + r")s?\b")

    def find(self, text: str) -> str:
        """The category that a text names.

        Raises:
            ValueError: it names none.
        """
        found = self._pattern.search(text.lower())
        if found is None:
            known = ", ".join(self.ids)
            raise ValueError(f"the instruction '{text[:80]}' names no object to look for; there is {known}")
        return self.words[found.group(1)]
