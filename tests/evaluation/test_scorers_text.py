"""Exact match, relaxed accuracy and ANLS, on cases worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.text import ANLS, ExactMatch, RelaxedAccuracy, anls, levenshtein, relaxed_match


def test_exact_match_is_of_characters_and_the_lenient_figure_stands_beside_it():
    said = ["yes", "Yes", "yes.", " yes", "yes, it is"]
    records = [Record(str(i), text, {"answer": "yes", "question_type": "verify"}) for i, text in enumerate(said)]
    scores = ExactMatch().score(records)
    assert [metric.value for metric in scores.metrics.values()] == [0.2, 0.8]
    assert list(scores.metrics) == ["exact_match", "exact_match_lenient"]
    assert list(ExactMatch(lenient=True).score(records).metrics) == ["exact_match_lenient", "exact_match"]
    assert scores.groups["question_type: verify"]["exact_match"].n == 5


@pytest.mark.parametrize(
    "said, wanted, right",
    [
        ("105", "100", True),  # exactly 5 %
        ("105.1", "100", False),
        ("95", "100", True),
        ("-100", "100", False),
        ("12%", "0.12", True),
        ("12", "12%", False),
        ("0", "0", True),  # a reference of 0 is compared as text
        ("0.0", "0", False),
        ("0.01", "0", False),
        ("1,000", "1000", False),  # no number to the script
        ("1,000", "1,000", True),
        ("Blue", "blue", True),
        ("blue ", "blue", False),
        ("2019", "2020", True),  # years within 5 % count, as in every table of ChartQA
        ("nan", "5", False),
        ("12 %", "12%", True),  # float() ignores the space
        ("1e2", "100", True),
    ],
)
def test_numbers_may_be_off_by_five_percent(said, wanted, right):
    assert relaxed_match(said, wanted) is right


def test_the_best_of_several_references_counts():
    scores = RelaxedAccuracy().score([Record("1", "5", {"answers": ["7", "5.1"]}), Record("2", "a", {"answer": "b"})])
    assert scores.headline[1].value == 0.5 and scores.headline[1].interval == "wilson"


@pytest.mark.parametrize(
    "said, answers, value",
    [
        ("hello", ["hello"], 1.0),
        ("Hello", ["hELLO"], 1.0),
        ("helo", ["hello"], 0.8),
        ("hello  world", ["hello world"], 1.0),
        ("ab", ["ad"], 0.5),  # exactly the threshold: DocVQA's server keeps it, the paper would not
        ("abc", ["axy"], 0.0),  # 1/3
        ("abcd   ", ["abxd"], 1 - 1 / 7),  # the length is that of the text before spaces are made single
        ("nothing", ["something", "nothin"], 1 - 1 / 7),  # the best of several
        ("", ["abc"], 0.0),
    ],
)
def test_anls_is_that_of_the_server(said, answers, value):
    assert anls(said, answers) == pytest.approx(value)


def test_anls_is_a_mean_with_a_bootstrap_interval():
    scores = ANLS().score([Record(str(i), "helo" if i % 2 else "hello", {"answers": ["hello"]}) for i in range(20)])
    metric = scores.headline[1]
    assert metric.value == pytest.approx(0.9) and 0.8 < metric.low < 0.9 < metric.high < 1
    assert ANLS(threshold=0.9).score([Record("1", "helo", {"answer": "hello"})]).headline[1].value == 0


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_the_edit_distance_is_a_distance(a, b, c):
    assert levenshtein(a, b) == levenshtein(b, a)
    assert (levenshtein(a, b) == 0) == (a == b)
    assert levenshtein(a, c) <= levenshtein(a, b) + levenshtein(b, c)
    assert abs(len(a) - len(b)) <= levenshtein(a, b) <= max(len(a), len(b))


@pytest.mark.parametrize(
    "make, says",
    [(lambda: ANLS(threshold=2), "threshold is a fraction"), (lambda: RelaxedAccuracy(-1), "tolerance is a fraction")],
)
def test_a_mistake_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
