"""CHAIR: which objects a caption names that are not in the picture (Rohrbach et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied.evaluation.scorers.base import Metric, Record, Scorer, Scores, divide, wrong
from embodied.evaluation.scorers.coco import ANIMALS, COCO, PHRASES, VEHICLES
from embodied.evaluation.scorers.words import read_synonyms, singulars, table_of, words_of


class CHAIR(Scorer):
    """CHAIRi, the share of named objects that are not there, and CHAIRs, that of captions which name such a one.

    The rules are the official ones (github.com/LisaAnne/Hallucination): an object counts each time it is named, pairs
    like "hot dog" are one word, "baby elephant" and "passenger jet" are no person, the seat of a toilet is no chair,
    and what a picture's own captions name is there as well as what is segmented in it. Words and their singulars come
    from `words`, not from nltk and pattern.

    Args:
        synonyms: a file like the official `synonyms.txt`, one object per line with its other words; None takes a list
            of our own, whose figures compare only among themselves.

    References have `objects`, the names of what is in the picture, or `captions` that people gave it, or both.
    """

    needs = (("objects", "captions"),)

    def __init__(self, synonyms: str | None = None) -> None:
        self.source = synonyms or "built in"
        self.names = read_synonyms(synonyms) if synonyms else table_of(COCO)
        pairs = {phrase: phrase for phrase in (*PHRASES, *(name for name in self.names if name.count(" ") == 1))}
        pairs |= {f"{age} {animal}": animal for animal in ANIMALS for age in ("baby", "adult")}
        pairs |= {f"passenger {vehicle}": vehicle for vehicle in VEHICLES}
        pairs |= {"bow tie": "tie", "toilet seat": "toilet"}
        self._pairs = pairs
        listed = {*self.names, *ANIMALS, *(word for pair in pairs for word in pair.split())}
        self._singular = singulars(listed)

    def objects_in(self, caption: str) -> list[tuple[str, str]]:
        """The objects a caption names, in order and as often: the word used, and the object's name."""
        words = [self._singular.get(word, word) for word in words_of(caption)]
        merged, place = [], 0
        while place < len(words):
            pair = " ".join(words[place : place + 2])
            merged.append(self._pairs.get(pair, words[place]))
            place += 2 if pair in self._pairs else 1
        if "toilet" in merged and "seat" in merged:
            merged = [word for word in merged if word != "seat"]
        return [(word, self.names[word]) for word in merged if word in self.names]

    def score(self, records: Sequence[Record]) -> Scores:
        """`chair_i`, `chair_s` (less is better), and `objects_named` per caption."""
        self.check(records)
        rows, samples = [], []
        for record in records:
            there = self._there(record)
            named = self.objects_in(record.prediction)
            invented = [word for word, name in named if name not in there]
            rows.append([len(invented), len(named), bool(invented), 1])
            samples.append(
                {"id": record.id, "prediction": record.prediction, "named": [name for _, name in named]}
                | {"hallucinated": invented, "objects": sorted(there), "score": float(not invented)}
            )
        table = np.array(rows, dtype=float)
        silent = int((table[:, 1] == 0).sum())
        notes = [f"{silent} captions name no object at all"] if silent else []
        if self.source == "built in":
            notes.append("synonyms are the built-in list, not the official file: compare only with the same list")
        metrics: dict[str, Metric] = {
            "chair_i": self.ratio(table, lambda sums: divide(sums[:, 0], sums[:, 1])),
            "chair_s": self.rate([bool(row[2]) for row in rows]),
            "objects_named": self.mean([float(row[1]) for row in rows], "number"),
        }
        return Scores(metrics, samples, {}, notes, {"synonyms": self.source})

    def _there(self, record: Record) -> set[str]:
        """The objects that are in the picture, by segmentation and by what people wrote of it."""
        objects: Any = record.reference.get("objects") or []
        captions: Any = record.reference.get("captions") or []
        for name, value in {"objects": objects, "captions": captions}.items():
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise wrong(record, f"has {name} that are no list of texts")
        unknown = [name for name in objects if name.lower() not in self.names]
        if unknown:
            raise wrong(record, f"has the object {unknown[0]!r}, which the list of synonyms ({self.source}) lacks")
        there = {self.names[name.lower()] for name in objects}
        return there | {name for caption in captions for _, name in self.objects_in(caption)}
