"""Several datasets in one stream: exact shares, own epochs, a function of seed and step."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied.data.mixture import Mixture, MixtureStream


class Numbers:
    """n samples that are their own numbers, of a kind with its own key."""

    def __init__(self, n, key="number"):
        self.n, self.key = n, key

    def __len__(self):
        return self.n

    def batch(self, indices):
        return {self.key: torch.as_tensor(indices)}


def a_stream(sizes, weights, batch=8, seed=0):
    names = [f"s{i}" for i in range(len(sizes))]
    mixture = Mixture({name: Numbers(n) for name, n in zip(names, sizes, strict=True)})
    return MixtureStream(mixture, dict(zip(names, weights, strict=True)), batch, seed)


mixtures = st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 100)), min_size=1, max_size=5)


@given(mixtures, st.integers(1, 40), st.integers(1, 60))
def test_each_source_has_its_share_after_any_number_of_steps(parts, batch, steps):
    sizes, weights = zip(*parts, strict=True)
    stream = a_stream(sizes, weights, batch)
    counts = np.bincount(np.concatenate([stream.dealt(step)[0] for step in range(steps)]), minlength=len(sizes))
    expected = steps * batch * np.array(weights) / sum(weights)
    assert np.abs(counts - expected).max() < len(sizes) + 0.01


@given(mixtures, st.integers(1, 40), st.integers(0, 2**40))
def test_a_step_does_not_depend_on_the_steps_before(parts, batch, late):
    used = a_stream(*zip(*parts, strict=True), batch)
    for step in (0, 1, 2, late, 3):
        used.indices(step)
    for step in (2, late, late + 1):
        np.testing.assert_array_equal(used.indices(step), a_stream(*zip(*parts, strict=True), batch).indices(step))


@given(mixtures, st.integers(1, 40), st.integers(2, 4))
def test_the_batch_size_cuts_the_same_order(parts, batch, factor):
    sizes, weights = zip(*parts, strict=True)
    small, large = a_stream(sizes, weights, batch), a_stream(sizes, weights, batch * factor)
    whole = np.concatenate([small.indices(step) for step in range(factor)])
    np.testing.assert_array_equal(whole, large.indices(0))


@given(mixtures)
def test_each_source_is_seen_once_per_its_own_epoch(parts):
    sizes, weights = zip(*parts, strict=True)
    stream = a_stream(sizes, weights, 16)
    seen = np.concatenate([stream.indices(step) for step in range(12)])
    ends = stream.source.ends
    for end, size in zip(ends, sizes, strict=True):
        mine = seen[(seen >= end - size) & (seen < end)]
        for epoch in range(len(mine) // size):
            assert sorted(mine[epoch * size : (epoch + 1) * size]) == list(range(end - size, end))


def test_whole_number_weights_give_every_batch_the_same_counts():
    stream = a_stream([5, 100], [1, 3], batch=8)
    assert all(np.bincount(stream.dealt(step)[0]).tolist() == [2, 6] for step in range(50))


def test_sources_of_one_size_have_orders_of_their_own():
    stream = a_stream([50, 50], [1, 1], batch=100)
    which, picked = stream.dealt(0)[0], stream.indices(0)
    assert (picked[which == 0] != picked[which == 1] - 50).any()


def test_a_batch_is_grouped_by_source_and_its_rows_find_their_place():
    mixture = Mixture({"a": Numbers(10, "left"), "b": Numbers(5, "right"), "c": Numbers(3)})
    batch = mixture.batch([12, 0, 9, 14])["sources"]
    assert set(batch) == {"a", "b"}
    assert batch["a"]["left"].tolist() == [0, 9] and batch["a"]["row"] == [1, 2]
    assert batch["b"]["right"].tolist() == [2, 4] and batch["b"]["row"] == [0, 3]
    assert [mixture.place(i) for i in (0, 9, 10, 15, 17)] == [("a", 0), ("a", 9), ("b", 0), ("c", 0), ("c", 2)]


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Mixture({}), "at least one source"),
        (lambda: Mixture({"a": Numbers(0)}), "'a' of the mixture has no samples"),
        (lambda: a_stream([1, 1], [1, 0]), "'s1' must be positive"),
        (lambda: a_stream([1, 1], [1, float("nan")]), "'s1' must be positive"),
        (lambda: MixtureStream(Mixture({"panda": Numbers(1)}), {"pnda": 1}, 1, 0), "did you mean 'panda'"),
    ],
)
def test_a_mistake_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_the_order_stays_what_it_was():
    """Resuming an older run must see the same data: these numbers may never change."""
    stream = a_stream([4, 6], [1, 2], batch=6, seed=7)
    assert [stream.indices(step).tolist() for step in range(2)] == ORDER


ORDER = [[7, 4, 0, 6, 5, 2], [8, 9, 1, 8, 5, 3]]
