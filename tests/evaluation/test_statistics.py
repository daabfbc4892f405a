"""Intervals and tests agree with independent implementations, and cover what they promise to cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from embodied.evaluation.statistics import (
    MIN_DISCORDANT,
    holm,
    mcnemar,
    mean_over_tasks,
    paired_bootstrap,
    pairs_needed,
    wilson,
)

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n, share, confidence):
    successes = round(share * n)
    theirs = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_reproduces_newcombes_published_examples():
    # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97])
def test_wilson_covers_the_truth_about_as_often_as_it_says(rate):
    n = 50
    covered = [low <= rate <= high for low, high in (wilson(k, n) for k in range(n + 1))]
    assert 0.92 <= float(np.dot(covered, binom.pmf(np.arange(n + 1), n, rate))) <= 0.99


@pytest.mark.parametrize("successes, n", [(1, 0), (-1, 5), (6, 5)])
def test_a_rate_of_nothing_is_refused(successes, n):
    with pytest.raises(ValueError, match="success rate"):
        wilson(successes, n)


@given(OUTCOMES)
def test_mcnemar_is_the_exact_binomial_test_of_the_pairs_that_differ(pairs):
    a, b = zip(*pairs, strict=True)
    test = mcnemar(a, b)
    wins, losses = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    assert (test.only_a, test.only_b, test.n) == (wins, losses, len(pairs))
    assert test.both + test.neither + test.discordant == test.n
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert test.p == pytest.approx(expected, rel=1e-9)
    assert test.difference == pytest.approx(np.mean(b) - np.mean(a))


def test_mcnemar_holds_for_many_pairs():
    a = [True] * 3000 + [False] * 2500
    assert mcnemar(a, [not x for x in a]).p == pytest.approx(binomtest(3000, 5500).pvalue, rel=1e-9)


def test_six_differing_pairs_are_the_fewest_that_can_decide():
    assert mcnemar([True] * MIN_DISCORDANT, [False] * MIN_DISCORDANT).p < 0.05
    assert mcnemar([True] * (MIN_DISCORDANT - 1), [False] * (MIN_DISCORDANT - 1)).p > 0.05


@pytest.mark.parametrize("function", [mcnemar, paired_bootstrap])
@pytest.mark.parametrize("a, b", [([True], [True, False]), ([], [])])
def test_unpaired_results_are_refused(function, a, b):
    with pytest.raises(ValueError, match="same number of episodes"):
        function(a, b)


def test_bootstrap_agrees_with_scipys():
    from scipy.stats import bootstrap

    draw = np.random.default_rng(0)
    a, b = draw.random(120) < 0.6, draw.random(120) < 0.75
    difference = b.astype(float) - a.astype(float)
    theirs = bootstrap((difference,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert paired_bootstrap(a, b) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_bootstrap_is_the_same_for_the_same_seed_only():
    draw = np.random.default_rng(0)
    a, b = draw.random(200), draw.random(200)
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)


def test_bootstrap_weighs_tasks_alike_and_keeps_their_differences_out_of_the_interval():
    # one task where B always wins, another, ten times larger, where nothing changes
    a = [False] * 10 + [True] * 100
    b = [True] * 110
    tasks = ["small"] * 10 + ["large"] * 100
    assert paired_bootstrap(a, b, tasks) == pytest.approx((0.5, 0.5))
    low, high = paired_bootstrap(a, b)
    assert low < 10 / 110 < high


def test_where_no_pair_differs_the_interval_still_has_a_width_that_shrinks():
    widths = [high - low for low, high in (paired_bootstrap([True] * n, [True] * n) for n in (5, 50, 500))]
    assert widths[0] > widths[1] > widths[2] > 0
    low, high = paired_bootstrap([False] * 20, [True] * 20)
    assert high == 1.0 and low < 1.0


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_mean_over_one_task_is_its_wilson_interval(outcomes):
    mean, interval = mean_over_tasks({"only": outcomes})
    assert mean == pytest.approx(np.mean(outcomes))
    assert interval == pytest.approx(wilson(sum(outcomes), len(outcomes)))


def test_a_mean_over_tasks_weighs_them_alike_and_covers_the_truth():
    mean, _ = mean_over_tasks({"a": [True] * 100, "b": [False]})
    assert mean == pytest.approx(0.5)
    draw, rates, hits = np.random.default_rng(0), [0.95, 0.5, 0.99, 0.1], 0
    for _ in range(1000):
        _, (low, high) = mean_over_tasks({i: draw.random(25) < rate for i, rate in enumerate(rates)})
        hits += low <= np.mean(rates) <= high
    assert 0.93 <= hits / 1000 <= 0.995
    with pytest.raises(ValueError, match="at least one task"):
        mean_over_tasks({})


def test_enough_pairs_are_enough():
    a, b = (
        [True] * 12 + [False] * 8 + [True] * 60 + [False] * 20,
        [False] * 12 + [True] * 8 + [True] * 60 + [False] * 20,
    )
    needed = pairs_needed(mcnemar(a, b))
    draw, shown = np.random.default_rng(0), 0
    for _ in range(200):
        kinds = draw.multinomial(needed, [0.12, 0.08, 0.8])
        shown += binomtest(kinds[0], kinds[0] + kinds[1]).pvalue < 0.05
    assert 0.65 <= shown / 200 <= 0.9  # the formula promises 0.8; the exact test is a little shyer
    assert pairs_needed(mcnemar([True, False], [False, True])) is None


def test_holms_adjustment_is_the_published_one():
    # Holm 1979 by hand: 4 * 0.01, 3 * 0.015, max(2 * 0.03, ...), 0.8
    assert holm([0.03, 0.01, 0.8, 0.015]) == pytest.approx([0.06, 0.04, 0.8, 0.045])
    assert holm([0.04, 0.04]) == pytest.approx([0.08, 0.08])
    assert holm([]) == []
