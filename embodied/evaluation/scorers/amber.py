"""AMBER: what a description invents, and what yes-or-no questions are answered wrongly (Wang et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.evaluation.scorers.base import Metric, Record, Scorer, Scores, divide, wrong
from embodied.evaluation.scorers.words import singulars, words_of
from embodied.files import read_json

GENERATIVE = "generative"
PARTS = {
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-hallucination": ("existence",),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}
"""From a question's type to the parts of the benchmark it counts for."""

OFFSET = 0.001  # the official script starts every denominator there
SIMILAR = 0.8
MODEL = "en_core_web_lg"


class AMBER(Scorer):
    """AMBER's figures (github.com/junyangwang0410/AMBER), of whichever of its two tasks the answers are for.

    Yes-or-no questions: accuracy, and precision, recall and F1 of *no*, over all and per part. Only "Yes" and "No" are
    answers to the official script; here white space and a full stop after them are forgiven, and case, and everything
    else is wrong and counted. F1 carries the script's own small offsets and rounding, so that it agrees in the digit
    that is reported.

    Descriptions: CHAIR (invented among named objects), Cover (named among annotated objects), Hal (descriptions that
    invent) and Cog (invented ones that people tend to imagine too). The official script takes nouns by nltk's tagger
    and near-synonyms by spaCy's `en_core_web_lg`; here every listed word is taken, and synonyms by that model where it
    is installed, else only AMBER's own association list: the result says which.

    Args:
        association: AMBER's `data/relation.json`; needed for descriptions.
        safe_words: AMBER's `data/safe_words.txt`.

    References have `type` and `truth`: yes or no, or the list of what is there; descriptions also `hallu`.
    """

    needs = ("type", "truth")

    def __init__(self, association: str | None = None, safe_words: str | None = None) -> None:
        self.association: Mapping[str, list[str]] | None = read_json(association) if association else None
        if association and not isinstance(self.association, dict):
            raise ValueError(f"{association} is no association list: a dict from words to lists of words is needed")
        self.safe = set(Path(safe_words).read_text(encoding="utf-8").split("\n")) if safe_words else set()

    def score(self, records: Sequence[Record]) -> Scores:
        """`chair`, `cover`, `hal`, `cog` of descriptions; `f1` and its like of questions; `amber` of both."""
        self.check(records)
        described = [record for record in records if record.reference["type"] == GENERATIVE]
        asked = [record for record in records if record.reference["type"] != GENERATIVE]
        found = Scores({}, [])
        if asked:
            self._asked(asked, found)
        if described:
            self._described(described, found)
        if asked and described:
            value = (100 * (1 - found.metrics["chair"].value) + 100 * found.metrics["f1"].value) / 2
            amber = Metric(value, None, None, len(records), "number")
            found.metrics = {"amber": amber, **found.metrics}
        order = {record.id: place for place, record in enumerate(records)}
        found.samples.sort(key=lambda sample: order[sample["id"]])
        return found

    def _asked(self, records: Sequence[Record], found: Scores) -> None:
        rows, members, other = [], [], 0
        for record in records:
            truth, kind = record.reference["truth"], record.reference["type"]
            if truth not in ("yes", "no"):
                raise wrong(record, f"has the truth {truth!r}: yes or no is needed for a question")
            if kind not in PARTS:
                raise wrong(record, f"has the type {kind!r}: AMBER has {', '.join([GENERATIVE, *PARTS])}")
            read = record.prediction.strip().removesuffix(".").lower()
            other += read not in ("yes", "no")
            right = read == truth
            rows.append([right, read == "no" == truth, read == "no", truth == "no", 1])
            members.append(PARTS[kind])
            found.samples.append(
                {"id": record.id, "prediction": record.prediction, "truth": truth, "type": kind, "score": float(right)}
            )
        if other:
            found.notes.append(f"{other} answers are neither Yes nor No and count as wrong")
        table = np.array(rows, dtype=float)
        found.metrics |= self._figures(table, 0.0001)
        for part in sorted({part for parts in members for part in parts}):
            places = [i for i, parts in enumerate(members) if part in parts]
            found.groups[part] = self._figures(table[places], 0.001 if part == "existence" else 0.0001)

    def _figures(self, table: np.ndarray, small: float) -> dict[str, Metric]:
        """Accuracy, precision, recall and F1 of "no", from columns right, true no, said no, is no, one."""

        def f1(sums: np.ndarray) -> np.ndarray:
            precision = np.round(100 * sums[:, 1] / (sums[:, 2] + OFFSET), 1) / 100
            recall = np.round(100 * sums[:, 1] / (sums[:, 3] + OFFSET), 1) / 100
            return 2 * precision * recall / (precision + recall + small)

        right, true_no, said_no, is_no, n = (int(x) for x in table.sum(axis=0))
        return {
            "f1": self.ratio(table, f1),
            "accuracy": self._share(right, n),
            "precision": self._share(true_no, said_no),
            "recall": self._share(true_no, is_no),
        }

    def _share(self, part: int, whole: int) -> Metric:
        if not whole:
            return Metric(0.0, None, None, 0)
        return self.rate([True] * part + [False] * (whole - part))

    def _described(self, records: Sequence[Record], found: Scores) -> None:
        if self.association is None:
            raise ValueError(
                "descriptions of AMBER need its association list: add profile.scorer.association=data/relation.json"
            )
        listed = {word for name, others in self.association.items() for word in (name, *others)}
        singular, alike = singulars(listed), _likeness()
        rows = []
        for record in records:
            truth, hallu = record.reference["truth"], record.reference.get("hallu", [])
            if not isinstance(truth, list) or not isinstance(hallu, list) or not truth:
                raise wrong(record, "has no list of what is there as its truth, as descriptions need")
            unknown = [word for word in (*truth, *hallu) if word not in self.association]
            if unknown:
                raise wrong(record, f"has the word {unknown[0]!r}, which the association list lacks")
            said = [singular.get(word, word) for word in words_of(record.prediction)]
            named = [word for word in said if word in listed]
            invented, covered, imagined = self._compare(named, truth, hallu, alike)
            rows.append([len(invented), len(named), len(covered), len(truth), len(imagined), len(hallu)])
            found.samples.append(
                {"id": record.id, "prediction": record.prediction, "named": named, "hallucinated": invented}
                | {"type": GENERATIVE, "score": float(not invented)}
            )
        table = np.array(rows, dtype=float)
        shares = {"chair": (0, 1), "cover": (2, 3), "cog": (4, 5)}
        figures = {name: self.ratio(table, _quotient(*columns)) for name, columns in shares.items()}
        figures["hal"] = self.rate([bool(row[0]) for row in rows])
        found.metrics |= {name: figures[name] for name in ("chair", "cover", "hal", "cog")}
        found.tools["similarity"] = MODEL if alike else "association list only"
        if alike is None:
            found.notes.append(
                f"near-synonyms come from the association list alone: spaCy's {MODEL}, which the official script uses, "
                "is not installed, and CHAIR is higher without it"
            )

    def _compare(
        self, named: list[str], truth: list[str], hallu: list[str], alike: Callable[[str, str], bool] | None
    ) -> tuple[list[str], set[int], set[int]]:
        """Words that are invented, and the places in `truth` and `hallu` that are named."""
        assert self.association is not None
        there = [(w, i) for i, name in enumerate(truth) for w in self.association[name]]
        there += [(name, i) for i, name in enumerate(truth)]
        lure = [(w, i) for i, name in enumerate(hallu) for w in self.association[name]]
        lure += [(name, i) for i, name in enumerate(hallu)]
        invented, covered, imagined = [], set(), set()
        for word in named:
            if word in self.safe:
                continue
            exact = next((i for other, i in there if other == word), None)
            if exact is not None:
                covered.add(exact)
                continue
            imagined |= {next((i for other, i in lure if other == word), -1)} - {-1}
            if alike:
                imagined |= {next((i for other, i in lure if alike(word, other)), -1)} - {-1}
                near = next((i for other, i in there if alike(word, other)), None)
                if near is not None:
                    covered.add(near)
                    continue
            invented.append(word)
        return invented, covered, imagined


def _quotient(over: int, under: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: divide(sums[:, over], sums[:, under])


def _likeness() -> Callable[[str, str], bool] | None:
    """Whether two words are near-synonyms by spaCy's vectors; None where that model is not installed."""
    try:
        import spacy

        nlp: Any = spacy.load(MODEL)
    except (ImportError, OSError):
        return None
    known: dict[str, Any] = {}

    def alike(a: str, b: str) -> bool:
        for word in (a, b):
            if word not in known:
                known[word] = nlp(word)
        return bool(known[a].similarity(known[b]) > SIMILAR)

    return alike
