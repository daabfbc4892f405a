"""POPE and MME read answers by their own rules, and count what their scripts count."""

from dataclasses import replace

import pytest
from scipy.stats import binomtest

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.yes_no import COGNITION, MME, PERCEPTION, POPE, read_mme, read_pope


@pytest.mark.parametrize(
    "said, pope, mme",
    [
        ("yes", "yes", "yes"),
        ("No", "no", "no"),
        ("No.", "no", "no"),
        ("Yes, there is no dog", "no", "yes"),  # POPE denies wherever the word stands, MME reads the start
        ("There is not a dog in the image.", "no", "other"),
        ("It is there. No doubt.", "yes", "other"),  # only the first sentence
        ("no, sir", "no", "no"),
        ("NO", "yes", "no"),  # POPE knows No, no and not
        ("No!", "yes", "no"),
        ("nothing", "yes", "no"),
        ("I know", "yes", "other"),
        ("", "yes", "other"),
        ("   yes", "yes", "other"),  # MME's four characters count spaces
    ],
)
def test_each_benchmark_reads_an_answer_its_own_way(said, pope, mme):
    assert (read_pope(said), read_mme(said)) == (pope, mme)


def test_popes_figures_are_of_yes():
    # 3 true yes, 1 false yes, 4 true no, 2 false no
    pairs = [("yes", "yes")] * 3 + [("yes", "no")] + [("no", "no")] * 4 + [("no", "yes")] * 2
    records = [Record(str(i), said, {"label": label, "category": "popular"}) for i, (said, label) in enumerate(pairs)]
    scores = POPE().score(records)
    values = {name: metric.value for name, metric in scores.metrics.items()}
    assert values["accuracy"] == 0.7 and values["precision"] == 3 / 4 and values["recall"] == 3 / 5
    assert values["f1"] == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)) and values["yes_ratio"] == 0.4
    assert next(iter(scores.metrics)) == "f1"
    expected = binomtest(7, 10).proportion_ci(method="wilson")
    assert (scores.metrics["accuracy"].low, scores.metrics["accuracy"].high) == pytest.approx(tuple(expected))
    assert scores.metrics["precision"].n == 4 and scores.metrics["recall"].n == 5
    assert scores.groups["category: popular"]["f1"].value == values["f1"]


def test_a_model_that_always_denies_has_no_precision_and_does_not_divide_by_zero():
    metrics = POPE().score([Record("1", "no", {"label": "yes"}), Record("2", "no", {"label": "no"})]).metrics
    assert metrics["f1"].value == metrics["precision"].value == 0 and metrics["precision"].low is None
    assert metrics["accuracy"].value == 0.5


def test_answers_that_say_neither_are_yes_to_pope_and_counted():
    scores = POPE().score([Record("1", "a dog", {"label": "yes"}), Record("2", "Yes", {"label": "yes"})])
    assert scores.metrics["recall"].value == 1
    assert "1 answers say neither yes nor no" in scores.notes[0]


def pictures(category, outcomes):
    """One picture per pair of outcomes: of the question whose answer is yes, and of the other."""
    for number, pair in enumerate(outcomes):
        for label, right in zip(("yes", "no"), pair, strict=True):
            said = label if right else {"yes": "no", "no": "yes"}[label]
            reference = {"label": label, "category": category, "image": f"{number}.jpg"}
            yield Record(f"{category}/{number}/{label}", said.capitalize(), reference)


def test_mme_adds_accuracy_and_accuracy_of_pairs():
    records = [*pictures("existence", [(True, True), (True, False), (False, False), (True, True)])]
    records += [*pictures("code_reasoning", [(True, True), (True, False)])]
    scores = MME().score(records)
    # existence: 5 of 8 and 2 of 4; code: 3 of 4 and 1 of 2
    assert scores.metrics["perception"].value == pytest.approx(62.5 + 50)
    assert scores.metrics["cognition"].value == pytest.approx(75 + 50)
    assert scores.metrics["score"].value == pytest.approx(112.5 + 125)
    assert scores.metrics["accuracy"].value == pytest.approx(8 / 12)
    assert scores.metrics["accuracy_plus"].value == 0.5 and scores.metrics["accuracy_plus"].n == 6
    assert scores.groups["existence"]["score"].value == pytest.approx(112.5)
    assert "perception lacks 9 of its 10 categories" in scores.notes[0]


def test_a_perfect_mme_is_2800():
    records = [record for category in (*PERCEPTION, *COGNITION) for record in pictures(category, [(True, True)] * 3)]
    metrics = MME().score(records).metrics
    assert (metrics["perception"].value, metrics["cognition"].value, metrics["score"].value) == (2000, 800, 2800)
    assert metrics["score"].low == metrics["score"].high == 2800


def test_an_unread_answer_is_wrong_to_mme():
    yes, no = pictures("count", [(True, True)])
    scores = MME().score([yes, replace(no, prediction="maybe")])
    assert scores.metrics["accuracy"].value == 0.5 and "1 answers say neither" in scores.notes[0]


def test_a_picture_that_is_not_asked_twice_is_named():
    with pytest.raises(ValueError, match=r"sample count/0/yes is one of 1 questions on 0\.jpg in count"):
        MME().score([*pictures("count", [(True, True)])][:1])


def test_a_label_that_is_no_label_is_named():
    with pytest.raises(ValueError, match=r"p\.json: row 0: sample 1 has the label 'maybe'"):
        POPE().score([Record("1", "yes", {"label": "maybe"}, "p.json: row 0")])
