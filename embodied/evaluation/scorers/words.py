"""Objects in a caption: words, their singular, and what a list of synonyms makes of them.

The official scripts of CHAIR and AMBER take nltk's tokenizer and an inflection library for this. Only words that their
lists hold can count, so it is enough, and exact for those, to know the plurals of the listed words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

WORD = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")
IRREGULAR = {
    "person": ("people", "persons"),
    "man": ("men",),
    "woman": ("women",),
    "child": ("children",),
    "knife": ("knives",),
    "mouse": ("mice", "mouses"),
    "goose": ("geese",),
    "foot": ("feet",),
    "tooth": ("teeth",),
    "ox": ("oxen",),
    "calf": ("calves",),
    "shelf": ("shelves",),
    "leaf": ("leaves",),
    "loaf": ("loaves",),
    "wolf": ("wolves",),
    "thief": ("thieves",),
    "scarf": ("scarves", "scarfs"),
}
PERSON = {"man", "woman", "child"}


def words_of(caption: str) -> list[str]:
    """A caption's words in lower case, without punctuation and possessive endings."""
    return [word.removesuffix("'s") for word in WORD.findall(caption.lower().replace("’", "'"))]


def plurals(word: str) -> list[str]:
    """How a word, or the last word of a phrase, is written in the plural."""
    head, space, last = word.rpartition(" ")
    if last in IRREGULAR:
        forms = list(IRREGULAR[last])
    elif last.endswith(("man", "woman", "child")) and last not in PERSON and not last.endswith("human"):
        forms = [last[:-2] + "en"] if last.endswith("man") else [last + "ren"]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        forms = [last + "es"]
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        forms = [last[:-1] + "ies"]
    elif last.endswith("o") and last[-2:-1] not in "aeiou":
        forms = [last + "s", last + "es"]
    else:
        forms = [last + "s"]
    return [head + space + form for form in forms]


def singulars(vocabulary: Iterable[str]) -> dict[str, str]:
    """From each plural of the vocabulary's words to the word; plurals that are listed themselves stay as they are."""
    listed = set(vocabulary)
    return {plural: word for word in sorted(listed) for plural in plurals(word) if plural not in listed}


def read_synonyms(path: str | Path) -> dict[str, str]:
    """From each word of a synonyms file to the object it names: one object per line, its name first, commas between.

    Raises:
        ValueError: the file has no such line.
    """
    table: dict[str, str] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        names = [name.strip().lower() for name in line.split(",") if name.strip()]
        for name in names:
            table[name] = names[0]  # a word listed twice belongs to the last, as in the official script
    if not table:
        raise ValueError(f"{path} holds no synonyms: one object per line is needed, its name first, commas between")
    return table


def table_of(objects: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The same table from names to their synonyms."""
    return {word: name for name, others in objects.items() for word in (name, *others)}
