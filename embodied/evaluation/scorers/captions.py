"""Captions against people's captions: BLEU, ROUGE-L, CIDEr and METEOR, by the COCO caption evaluation."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Literal

import numpy as np

from embodied.evaluation.scorers.base import Metric, Record, Scorer, Scores, wrong

SIMPLE = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
ORDERS = 4
PACKAGE = "pycocoevalcap"


class Captions(Scorer):
    """CIDEr, BLEU-1 to 4, ROUGE-L and METEOR of `pycocoevalcap`, the code of the COCO captions server.

    Captions are first cut into words by the Penn Treebank tokenizer, as the server does. That and METEOR need Java;
    without it words are cut by a simple rule, METEOR is left out, and the notes say so: such figures compare only among
    themselves. SPICE is left out: it downloads 384 MB when first used.

    CIDEr weighs words by how rare they are among the references that are scored, so it means little for few pictures.
    Its interval draws pictures again with those weights held. BLEU is of the whole corpus, and so is its interval;
    METEOR's interval has the width of that of its sentences' mean.

    Args:
        tokenizer: `ptb`; `simple`; `auto` is ptb where there is Java.
        meteor: whether to compute METEOR, which takes a second per 100 captions.

    References have `captions`, a list of texts (or `answers`).
    """

    needs = (("captions", "answers", "answer"),)

    def __init__(self, tokenizer: Literal["auto", "ptb", "simple"] = "auto", meteor: bool = True) -> None:
        if tokenizer not in ("auto", "ptb", "simple"):
            raise ValueError(f"Captions: tokenizer is auto, ptb or simple; got {tokenizer!r}")
        if tokenizer == "ptb" and not shutil.which("java"):
            raise ValueError("Captions: tokenizer=ptb needs Java, and there is none: install it, or use tokenizer=auto")
        self.tokenizer, self.meteor = tokenizer, meteor

    def score(self, records: Sequence[Record]) -> Scores:
        """`cider` first, then `bleu_1` to `bleu_4`, `rouge_l` and `meteor`."""
        self.check(records)
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        java = shutil.which("java") is not None
        ptb = self.tokenizer != "simple" and java
        notes = [] if ptb else ["words were cut by a simple rule" + ("" if java else ", for there is no Java")]
        references = {str(i): _captions(record) for i, record in enumerate(records)}
        said = {str(i): [_one_line(record.prediction)] for i, record in enumerate(records)}
        words = _tokens([*references.values(), *said.values()], ptb)
        references = dict(zip(references, words, strict=False))
        said = dict(zip(said, words[len(records) :], strict=True))
        _, cider = Cider().compute_score(references, said)
        _, rouge = Rouge().compute_score(references, said)
        metrics: dict[str, Metric] = {"cider": self.mean([float(x) for x in cider], "number")}
        metrics |= self._bleu(references, said)
        metrics["rouge_l"] = self.mean([float(x) for x in rouge], "number")
        columns: dict[str, Any] = {"cider": cider, "rouge_l": rouge}
        if self.meteor and java:
            metrics["meteor"], columns["meteor"] = self._meteor(references, said)
        elif self.meteor:
            notes.append("METEOR was left out, for there is no Java")
        if len(records) < 100:
            notes.append(f"CIDEr weighs words by their rarity among the references: {len(records)} pictures are few")
        silent = sum(not texts[0] for texts in said.values())
        if silent:
            notes.append(f"{silent} captions hold no words")
        samples = [
            {"id": record.id, "prediction": record.prediction, "captions": _captions(record)}
            | {name: float(column[i]) for name, column in columns.items()}
            | {"score": float(cider[i])}
            for i, record in enumerate(records)
        ]
        tools = {PACKAGE: metadata.version(PACKAGE), "tokenizer": "ptb" if ptb else "simple"}
        return Scores(metrics, samples, {}, notes, tools)

    def _bleu(self, references: dict[str, list[str]], said: dict[str, list[str]]) -> dict[str, Metric]:
        """The package's BLEU; its interval from each sentence's counts of n-grams."""
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

        values, _ = Bleu(ORDERS).compute_score(references, said, verbose=0)
        rows = []
        for key, words in said.items():
            counts = cook_test(words[0], cook_refs(references[key]))
            nearest = min((abs(length - counts["testlen"]), length) for length in counts["reflen"])[1]
            rows.append([*counts["correct"], *counts["guess"], counts["testlen"], nearest])
        table = np.array(rows, dtype=float)

        def order(n: int) -> Any:
            def figure(sums: np.ndarray) -> np.ndarray:
                shares = (sums[:, :n] + 1e-15) / (sums[:, ORDERS : ORDERS + n] + 1e-9)
                length = (sums[:, -2] + 1e-15) / (sums[:, -1] + 1e-9)
                brevity = np.where(length < 1, np.exp(1 - 1 / np.maximum(length, 1e-300)), 1.0)
                return shares.prod(axis=1) ** (1 / n) * brevity

            return figure

        found = {}
        for n in range(1, ORDERS + 1):
            low, high = self.resampling.of(table, order(n))
            found[f"bleu_{n}"] = Metric(values[n - 1], low, high, len(rows), "number", self.resampling.name)
        return found

    def _meteor(self, references: dict[str, list[str]], said: dict[str, list[str]]) -> tuple[Metric, Sequence[float]]:
        from pycocoevalcap.meteor.meteor import Meteor

        value, sentences = Meteor().compute_score(references, said)
        mean = self.mean([float(x) for x in sentences], "number")
        shift = value - mean.value
        low, high = ((end or 0.0) + shift for end in (mean.low, mean.high))
        return Metric(value, low, high, len(sentences), "number", self.resampling.name), sentences


def _captions(record: Record) -> list[str]:
    found = next(record.reference[name] for name in ("captions", "answers", "answer") if record.reference.get(name))
    captions = [found] if isinstance(found, str) else found
    if not isinstance(captions, list) or not all(isinstance(text, str) and text.strip() for text in captions):
        raise wrong(record, "has captions that are no list of texts, or an empty one")
    return [_one_line(text) for text in captions]


def _one_line(text: str) -> str:
    """The tokenizer goes by lines: any other line break in a caption would shift all that follow."""
    return " ".join(text.split())


def _tokens(captions: list[list[str]], ptb: bool) -> list[list[str]]:
    """Each caption as its words with single spaces between; all in one go, for Java is slow to start."""
    if not ptb:
        return [[" ".join(SIMPLE.findall(text.lower())) for text in texts] for texts in captions]
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found = PTBTokenizer().tokenize({i: [{"caption": text} for text in texts] for i, texts in enumerate(captions)})
    return [found[i] for i in range(len(captions))]
