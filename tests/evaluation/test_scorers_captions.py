"""Captions score what pycocoevalcap's own evaluation gives them, with intervals, and without Java say so."""

import math
import shutil
from collections import Counter

import numpy as np
import pytest

from embodied.evaluation.scorers.base import Record, Resampling
from embodied.evaluation.scorers.captions import Captions

pytest.importorskip("pycocoevalcap", reason="the extra 'score' is not installed")
needs_java = pytest.mark.skipif(not shutil.which("java"), reason="PTB words and METEOR need Java, and there is none")

PICTURES = {
    "1": ("a man rides a red horse", ["a man riding a horse", "a person on a red horse"]),
    "2": ("two dogs play on the grass", ["two dogs playing in the grass", "dogs on grass"]),
    "3": ("a plate of food", ["a plate with some food on a table", "a white plate of food"]),
    "4": ("a bus on the street", ["a large bus in a street", "a bus drives down the road"]),
}
RECORDS = [Record(name, said, {"captions": captions}) for name, (said, captions) in PICTURES.items()]


def bleu_by_hand(pairs, order):
    """Papineni et al. 2002 on words split by space: clipped n-grams of the corpus, brevity by the nearest length."""
    right, guessed = [0] * order, [0] * order
    said_length = wanted_length = 0
    for said, references in pairs:
        words = said.split()
        lengths = [len(reference.split()) for reference in references]
        said_length += len(words)
        wanted_length += min(lengths, key=lambda length: (abs(length - len(words)), length))
        for n in range(1, order + 1):
            grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
            most = Counter()
            for reference in references:
                parts = reference.split()
                most |= Counter(tuple(parts[i : i + n]) for i in range(len(parts) - n + 1))
            guessed[n - 1] += sum(grams.values())
            right[n - 1] += sum((grams & most).values())
    share = math.prod(a / b for a, b in zip(right, guessed, strict=True)) ** (1 / order)
    return share * min(1.0, math.exp(1 - wanted_length / said_length))


def test_bleu_is_bleu():
    metrics = Captions(tokenizer="simple", meteor=False).score(RECORDS).metrics
    for order in (1, 2, 3):
        assert metrics[f"bleu_{order}"].value == pytest.approx(bleu_by_hand(PICTURES.values(), order), abs=1e-6)
        assert metrics[f"bleu_{order}"].low <= metrics[f"bleu_{order}"].value <= metrics[f"bleu_{order}"].high


def test_rouge_is_the_longest_common_subsequence():
    metrics = (
        Captions(tokenizer="simple", meteor=False)
        .score([Record("1", "a b c d", {"captions": ["a c d e f"]}), Record("2", "x", {"captions": ["y"]})])
        .metrics
    )
    precision, recall, beta = 3 / 4, 3 / 5, 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert metrics["rouge_l"].value == pytest.approx(expected / 2)


def test_a_caption_that_repeats_its_only_reference_gets_the_best_cider_there_is():
    said = [f"a {word} thing" for word in ("red", "blue", "green", "small")]
    exact = Captions("simple", meteor=False).score([Record(t, t, {"captions": [t]}) for t in said])
    worse = Captions("simple", meteor=False).score(
        [Record(t, s, {"captions": [t]}) for t, s in zip(said, said[1:] + said[:1], strict=True)]
    )
    assert exact.headline[0] == "cider" and exact.headline[1].value > worse.headline[1].value
    assert "4 pictures are few" in exact.notes[-1]


def test_intervals_come_from_their_seed():
    scorer = Captions("simple", meteor=False)
    records = [Record(f"{r.id}{i}", r.prediction[i:], r.reference) for r in RECORDS for i in range(5)]
    first = scorer.score(records).metrics
    again = scorer.score(records).metrics
    scorer.resampling = Resampling(seed=1)
    other = scorer.score(records).metrics
    assert first == again
    assert first["cider"].value == other["cider"].value
    assert (first["cider"].low, first["cider"].high) != (other["cider"].low, other["cider"].high)
    assert "seed 0" in first["cider"].interval and "seed 1" in other["cider"].interval


@needs_java
def test_with_java_words_are_those_of_the_server_and_meteor_is_there():
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    said = {"1": "A man's dog, isn't it?", "2": "Two dogs -- playing", "3": "A plate of food!"}
    people = {"1": ["The man's dog."], "2": ["Two dogs play", "dogs"], "3": ["a plate of food"]}
    words = PTBTokenizer().tokenize({k: [{"caption": c} for c in [*people[k], said[k]]] for k in said})
    expected, _ = Cider().compute_score({k: v[:-1] for k, v in words.items()}, {k: v[-1:] for k, v in words.items()})
    assert words["1"][-1] == "a man 's dog is n't it"
    scores = Captions().score([Record(k, said[k], {"captions": people[k]}) for k in said])
    assert scores.metrics["cider"].value == pytest.approx(expected)
    assert scores.tools["tokenizer"] == "ptb"
    assert scores.samples[2]["meteor"] == 1.0 and 0 < scores.samples[0]["meteor"] < 1
    meteor = scores.metrics["meteor"]
    assert meteor.low < meteor.value < meteor.high


@needs_java
def test_line_breaks_in_a_caption_do_not_shift_the_captions_after_it():
    broken = [Record(r.id, r.prediction.replace(" ", "\r\n", 1) + "\u2028", r.reference) for r in RECORDS]
    assert Captions(meteor=False).score(broken).metrics == Captions("simple", meteor=False).score(RECORDS).metrics


def test_without_java_words_are_cut_simply_and_meteor_is_left_out(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    scores = Captions().score(RECORDS)
    assert "meteor" not in scores.metrics and scores.tools["tokenizer"] == "simple"
    assert any("no Java" in note for note in scores.notes) and any("METEOR was left out" in n for n in scores.notes)
    with pytest.raises(ValueError, match="tokenizer=ptb needs Java"):
        Captions(tokenizer="ptb")


def test_an_empty_caption_counts_nothing_and_is_counted():
    scores = Captions("simple", meteor=False).score([*RECORDS, Record("5", "...", {"captions": ["a cat"]})])
    assert scores.samples[-1]["score"] == 0 and "1 captions hold no words" in scores.notes
    assert np.isfinite([metric.value for metric in scores.metrics.values()]).all()


@pytest.mark.parametrize("captions", [[], [""], ["a", 3], 7])
def test_a_reference_without_captions_is_named(captions):
    with pytest.raises(ValueError, match="sample 1 has"):
        Captions("simple", meteor=False).score([Record("1", "a", {"captions": captions})])
