"""The order of training is a function of seed and step and nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied.data import BatchStream


class Numbers:
    """n samples that are their own numbers."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def batch(self, indices):
        return {"number": torch.as_tensor(indices)}


sizes = st.tuples(st.integers(1, 50), st.integers(1, 70), st.integers(0, 2**31))


@given(sizes, st.lists(st.integers(0, 200), min_size=1, max_size=8))
def test_a_step_does_not_depend_on_the_steps_before(size, steps):
    n, batch, seed = size
    used, fresh = BatchStream(Numbers(n), batch, seed), BatchStream(Numbers(n), batch, seed)
    for step in range(max(steps) % 7):
        used.indices(step)
    for step in steps:
        other = BatchStream(Numbers(n), batch, seed)
        np.testing.assert_array_equal(used.indices(step), other.indices(step))
        np.testing.assert_array_equal(fresh.row_seeds(step), other.row_seeds(step))


@given(sizes)
def test_every_sample_is_seen_once_per_epoch_and_every_batch_is_full(size):
    n, batch, seed = size
    stream = BatchStream(Numbers(n), batch, seed)
    steps = -(-3 * n // batch)
    seen = np.concatenate([stream.indices(step) for step in range(steps)])
    assert len(seen) == steps * batch
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(sizes, st.integers(2, 5))
def test_the_batch_size_cuts_the_same_order(size, factor):
    n, batch, seed = size
    small, large = BatchStream(Numbers(n), batch, seed), BatchStream(Numbers(n), batch * factor, seed)
    for name in ("indices", "row_seeds"):
        parts = [getattr(small, name)(step) for step in range(2 * factor)]
        whole = [getattr(large, name)(step) for step in range(2)]
        np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(whole))


def test_seeds_and_epochs_differ():
    orders = [BatchStream(Numbers(100), 100, seed).indices(epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_row_seeds_are_distinct_and_make_independent_noise():
    stream = BatchStream(Numbers(10), 64, seed=0)
    seeds = np.concatenate([stream.row_seeds(step) for step in range(100)])
    assert len(set(seeds.tolist())) == 6400 and (seeds >= 0).all()
    noise = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(int(s))) for s in seeds])
    correlation = np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03 and abs(correlation) < 0.05


def test_the_order_stays_what_it_was():
    """Resuming an older run must see the same data: these numbers may never change."""
    stream = BatchStream(Numbers(10), 4, seed=7)
    assert [stream.indices(step).tolist() for step in range(3)] == ORDER
    assert stream.row_seeds(2).tolist() == SEEDS


def test_samples_are_gathered():
    stream = BatchStream(Numbers(10), 4, seed=0)
    assert stream.gather(stream.indices(3))["number"].tolist() == stream.indices(3).tolist()


@pytest.mark.parametrize("n, batch, says", [(0, 1, "nothing to train on"), (1, 0, "batch_size must be at least 1")])
def test_a_mistake_is_named(n, batch, says):
    with pytest.raises(ValueError, match=says):
        BatchStream(Numbers(n), batch, 0)


ORDER = [[8, 0, 7, 1], [3, 6, 2, 4], [5, 9, 9, 0]]
SEEDS = [2113461109910676042, 4865975986294585122, 4931606532628453751, 1160583350221802649]
