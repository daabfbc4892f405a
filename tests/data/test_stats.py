"""Statistics are those numpy gives on all values at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embodied.data.lerobot.stats import QUANTILES, column_stats, from_json, histogram, image_stats, to_json

images = arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.just(3)))


@given(images)
def test_a_histogram_holds_all_there_is_to_know_of_images(frames):
    stats, pixels = image_stats(histogram(frames), len(frames)), frames.reshape(-1, 3) / 255
    wanted = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    wanted |= {name: np.quantile(pixels, q, axis=0) for name, q in QUANTILES.items()}
    for name, value in wanted.items():
        assert stats[name].shape == (3, 1, 1)
        np.testing.assert_allclose(stats[name].ravel(), value, atol=1e-9, err_msg=name)
    assert stats["count"].tolist() == [len(frames)]


@given(st.lists(images, min_size=1, max_size=3))
def test_histograms_of_episodes_add_up(episodes):
    total = sum(histogram(frames) for frames in episodes)
    pixels = np.concatenate([frames.reshape(-1, 3) for frames in episodes])
    np.testing.assert_array_equal(total, [np.bincount(pixels[:, c], minlength=256) for c in range(3)])


@pytest.mark.parametrize("shape, entries", [((7,), 1), ((7, 1), 1), ((7, 4), 4), ((7, 2, 4), 4)])
def test_columns_have_one_entry_per_component(shape, entries):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    stats = column_stats(values)
    assert all(value.shape == (entries,) for name, value in stats.items() if name != "count")
    assert stats["count"].tolist() == [7]
    again = from_json(to_json({"x": stats}))["x"]
    assert all((again[name] == stats[name]).all() for name in stats)


def test_truth_values_stay_truth_values():
    stats = column_stats(np.array([True, False, True, True]))
    assert stats["min"].tolist() == [False] and stats["max"].tolist() == [True] and stats["mean"].tolist() == [0.75]
