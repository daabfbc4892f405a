"""VQA accuracy is the official script's, surprises included; values were worked out by hand from its rules."""

import pytest

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.vqa import CONTRACTIONS, VQAAccuracy, normalise, vqa_accuracy


def ten(*counted):
    """`ten(("red", 3), ("blue", 7))`: ten humans' answers."""
    answers = [answer for answer, times in counted for _ in range(times)]
    assert len(answers) == 10
    return answers


@pytest.mark.parametrize(
    "said, answers, accuracy",
    [
        ("red", ten(("red", 10)), 1.0),
        ("red", ten(("blue", 10)), 0.0),
        # k of ten agree: k times the other k - 1 of nine, 10 - k times all k, each over 3 and at most 1
        ("red", ten(("red", 1), ("blue", 9)), (1 * 0 + 9 * 1 / 3) / 10),
        ("red", ten(("red", 2), ("blue", 8)), (2 * 1 / 3 + 8 * 2 / 3) / 10),
        ("red", ten(("red", 3), ("blue", 7)), (3 * 2 / 3 + 7 * 1) / 10),
        ("red", ten(("red", 4), ("blue", 6)), 1.0),
    ],
)
def test_an_answer_counts_a_third_for_each_human_but_one_who_gave_it(said, answers, accuracy):
    assert vqa_accuracy(said, answers)[0] == pytest.approx(accuracy)


def test_where_all_humans_agree_nothing_is_normalised():
    assert vqa_accuracy("Yes", ten(("yes", 10)))[0] == 0
    assert vqa_accuracy("Yes", ten(("yes", 9), ("no", 1)))[0] == 1
    assert vqa_accuracy(" yes\n", ten(("yes", 10)))[0] == 1  # line breaks and ends always go
    assert vqa_accuracy("a red ball", ten(("red ball", 10)))[0] == 0
    assert vqa_accuracy("a red ball", ten(("the red ball", 5), ("red ball", 5)))[0] == 1


@pytest.mark.parametrize(
    "text, becomes",
    [
        ("The Red Ball", "red ball"),
        ("an apple and a pear", "apple and pear"),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("hot-dog", "hot dog"),  # punctuation inside a word becomes a space
        ("hot -dog", "hot dog"),  # beside a space it goes
        ("hot- dog t-shirt", "hot dog tshirt"),  # and then everywhere
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),  # a comma between digits removes all punctuation
        ("red,blue", "red blue"),
        ("red, blue", "red blue"),
        ("3.5", "3.5"),
        ("u.s.a.", "usa"),
        ("no.", "no"),
        ("5.", "5"),
        ("." * 33 + "x", ".x"),  # only the first 32 full stops go
        ("5:30", "5:30"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),  # two apostrophes away from the whole is not known
        ("somebody'd", "somebodyd"),
        ("shes", "shes"),
        ("Im", "im"),  # the script's entry has a capital, which lower case never meets
        ("what?!", "what"),
    ],
)
def test_answers_are_normalised_as_the_script_does(text, becomes):
    assert normalise(text) == becomes


def test_the_contractions_are_those_of_the_script():
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["yall'd've"] == CONTRACTIONS["y'alld've"] == CONTRACTIONS["y'all'dve"] == "y'all'd've"
    assert CONTRACTIONS["ow's'at"] == CONTRACTIONS["'ows'at"] == "'ow's'at"


def test_accuracy_is_a_mean_with_parts_and_every_sample():
    answers = ten(("red", 2), ("blue", 8))
    records = [
        Record("1", "red", {"answers": answers, "answer_type": "other"}),
        Record("2", "blue", {"answers": answers, "answer_type": "other"}),
        Record("3", "yes", {"answers": ten(("yes", 10)), "answer_type": "yes/no"}),
    ]
    scores = VQAAccuracy().score(records)
    name, metric = scores.headline
    assert name == "vqa_accuracy" and metric.value == pytest.approx((0.6 + 1 + 1) / 3) and metric.n == 3
    assert metric.interval.startswith("bootstrap") and metric.low < metric.value < metric.high
    assert scores.groups["answer_type: other"]["vqa_accuracy"].value == pytest.approx(0.8)
    assert scores.groups["answer_type: yes/no"]["vqa_accuracy"].value == 1
    assert [sample["score"] for sample in scores.samples] == pytest.approx([0.6, 1, 1])


def test_one_true_answer_stands_for_ten_people_who_agree():
    scores = VQAAccuracy().score([Record("1", "red", {"answer": "red"}), Record("2", "Red", {"answers": ["red"]})])
    assert [sample["score"] for sample in scores.samples] == [1, 0]
    assert "2 questions have one answer" in scores.notes[0]


@pytest.mark.parametrize("reference", [{}, {"answers": []}, {"answers": [True]}, {"answers": ["", " "]}])
def test_a_reference_without_answers_is_named(reference):
    with pytest.raises(ValueError, match=r"f\.json: row 3: sample 7 has"):
        VQAAccuracy().score([Record("7", "x", reference, "f.json: row 3")])
