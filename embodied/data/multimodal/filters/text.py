"""Filters by what is said: length, repetition, kinds of characters, flagged words.

The measures are those of ROOTS and OBELICS (Laurençon et al. 2022, 2023), which Data-Juicer took over; thresholds are
the user's, and the defaults are loose.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from embodied.data.multimodal.filters.base import Filter, Opened, check_said

WORD = re.compile(r"\w+", re.UNICODE)


def words_of(text: str) -> list[str]:
    """Its words, in lower case; text without spaces between words (Chinese, Thai) counts as few long ones."""
    return WORD.findall(text.lower())


class TextLength(Filter):
    """Keeps samples whose text is neither too short nor too long.

    Args:
        min_words, max_words: inclusive; None for no limit.
        min_characters, max_characters: likewise.
        of: what is counted: the assistant's `answer`s, or `all` text.

    Raises:
        ValueError: the limits leave nothing.
    """

    def __init__(
        self,
        min_words: int | None = 3,
        max_words: int | None = 1000,
        min_characters: int | None = None,
        max_characters: int | None = None,
        of: str = "answer",
    ) -> None:
        for least, most, unit in ((min_words, max_words, "words"), (min_characters, max_characters, "characters")):
            if least is not None and most is not None and most < least:
                raise ValueError(f"TextLength keeps nothing: min_{unit} is {least} and max_{unit} is {most}")
        self.words, self.characters = (min_words, max_words), (min_characters, max_characters)
        self.of = check_said(of, "TextLength")

    def refuse(self, opened: Opened) -> str | None:
        text = opened.said(self.of)
        counts = (
            (len(words_of(text)) if any(limit is not None for limit in self.words) else 0, self.words),
            (len(text), self.characters),
        )
        for count, (least, most) in counts:
            if least is not None and count < least:
                return "text too short"
            if most is not None and count > most:
                return "text too long"
        return None


class WordRepetition(Filter):
    """Leaves out texts that say the same over and over.

    Measured is the share of runs of `length` words that occur more than once, of all such runs.

    Args:
        length: words in a run.
        most: the greatest share (OBELICS: 0.1 for runs of 10 in documents).
        of: see `TextLength`.

    Raises:
        ValueError: the length is not positive or the share is none.
    """

    def __init__(self, length: int = 5, most: float = 0.2, of: str = "answer") -> None:
        if length < 1:
            raise ValueError(f"WordRepetition: length is at least 1, got {length}")
        self.length, self.most, self.of = length, _share(most, "WordRepetition: most"), check_said(of, "WordRepetition")

    def refuse(self, opened: Opened) -> str | None:
        words = words_of(opened.said(self.of))
        runs = Counter(tuple(words[i : i + self.length]) for i in range(len(words) - self.length + 1))
        again = sum(count for count in runs.values() if count > 1)
        return "words repeat" if runs and again > self.most * runs.total() else None


class CharacterRatio(Filter):
    """Leaves out texts with too few letters, or too many digits or signs, by share of characters other than spaces.

    Args:
        min_letters: letters and marks of any script.
        max_digits: numerals.
        max_signs: all other characters.
        of: see `TextLength`.

    Raises:
        ValueError: a share is not between 0 and 1.
    """

    def __init__(
        self, min_letters: float = 0.5, max_digits: float = 1.0, max_signs: float = 0.3, of: str = "answer"
    ) -> None:
        self.min_letters = _share(min_letters, "CharacterRatio: min_letters")
        self.max_digits = _share(max_digits, "CharacterRatio: max_digits")
        self.max_signs = _share(max_signs, "CharacterRatio: max_signs")
        self.of = check_said(of, "CharacterRatio")

    def refuse(self, opened: Opened) -> str | None:
        kinds = Counter(unicodedata.category(c)[0] for c in opened.said(self.of) if not c.isspace())
        letters, digits, total = kinds["L"] + kinds["M"], kinds["N"], kinds.total()
        if letters < self.min_letters * total:
            return "too few letters"
        if digits > self.max_digits * total:
            return "too many digits"
        return "too many signs" if total - letters - digits > self.max_signs * total else None


class Script(Filter):
    """Leaves out texts in other scripts: the part of language filtering that needs no model.

    Args:
        scripts: names of scripts that are wanted, as Unicode has them (`LATIN`, `CYRILLIC`, `CJK`, `HIRAGANA`).
        least: the least share of letters in them.
        of: see `TextLength`.

    Raises:
        ValueError: the share is not between 0 and 1, or there are no scripts.
    """

    def __init__(self, scripts: Sequence[str] = ("LATIN",), least: float = 0.8, of: str = "answer") -> None:
        if isinstance(scripts, str) or not scripts:
            raise ValueError(f"Script: scripts is a list of names such as LATIN, got {scripts!r}")
        self.scripts, self.least = frozenset(name.upper() for name in scripts), _share(least, "Script: least")
        self.of = check_said(of, "Script")

    def refuse(self, opened: Opened) -> str | None:
        letters = [c for c in opened.said(self.of) if c.isalpha()]
        wanted = sum(_script(letter) in self.scripts for letter in letters)
        return "another script" if wanted < self.least * len(letters) else None


class FlaggedWords(Filter):
    """Leaves out texts in which too many words are flagged.

    Args:
        words: flagged words or phrases; letter case does not matter.
        file: a text file with one such per line, added to them.
        most: the greatest share of the text's words that may belong to one; 0 for none at all.
        of: see `TextLength`.

    Raises:
        ValueError: nothing is flagged, or the file is missing.
    """

    def __init__(
        self, words: Sequence[str] = (), file: str | Path | None = None, most: float = 0.0, of: str = "all"
    ) -> None:
        flagged = list(words)
        if file is not None:
            if not Path(file).is_file():
                raise ValueError(f"FlaggedWords: {file} does not exist")
            flagged += Path(file).read_text(encoding="utf-8").splitlines()
        self.phrases = {tuple(words_of(phrase)) for phrase in flagged} - {()}
        if not self.phrases:
            raise ValueError("FlaggedWords: give words, or a file with one per line")
        self.longest = max(map(len, self.phrases))
        self.most, self.of = _share(most, "FlaggedWords: most"), check_said(of, "FlaggedWords")

    def refuse(self, opened: Opened) -> str | None:
        words = words_of(opened.said(self.of))
        flagged: set[int] = set()
        for start in range(len(words)):
            for length in range(1, self.longest + 1):
                if tuple(words[start : start + length]) in self.phrases:
                    flagged.update(range(start, start + length))
        return "flagged words" if len(flagged) > self.most * len(words) else None


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0]


def _share(value: float, what: str) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{what} is a share, from 0 to 1, got {value}")
    return value
