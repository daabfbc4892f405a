"""Numbers are scaled by exact statistics of the data, and scaled back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, save_file

from embodied.processing.normalize import Normalize
from embodied.processing.pipeline import Pipeline
from embodied.spec import ACTION, STATE

MODES = ["mean_std", "min_max", "quantiles", "identity"]


def fitted(values, mode, key=ACTION, ends=None, **options):
    step = Normalize(key, values.shape[1], mode, **options)
    Pipeline({"it": step}).fit({key: values}, np.array([len(values)] if ends is None else ends), horizon=1)
    return step


def some_actions(n=500, seed=0):
    return np.random.default_rng(seed).normal([0, 5, -100], [1, 0.01, 30], (n, 3)).astype(np.float32)


def normalised_like_lerobot(x, data, mode):
    """`NormalizerProcessorStep._apply_transform` of LeRobot 0.4.4, with its epsilon."""
    data = data.astype(np.float64)
    if mode == "mean_std":
        return (x - data.mean(0)) / (data.std(0) + 1e-8)
    low, high = (data.min(0), data.max(0)) if mode == "min_max" else np.quantile(data, [0.01, 0.99], axis=0)
    return 2 * (x - low) / (high - low) - 1


@pytest.mark.parametrize("mode", MODES[:3])
def test_the_formulas_are_lerobots(mode):
    data = some_actions()
    chunk = torch.from_numpy(data[:60].reshape(10, 6, 3))
    scaled = fitted(data, mode)({ACTION: chunk})[ACTION]
    assert np.allclose(scaled, normalised_like_lerobot(chunk.numpy(), data, mode), atol=2e-4)


def test_statistics_are_exact_over_every_frame():
    data = some_actions(n=9999)
    step, exact = fitted(data, "mean_std", ends=[10, 9999]), data.astype(np.float64)
    assert np.array_equal(step.low, data.min(0)) and np.array_equal(step.high, data.max(0))
    assert np.allclose(step.mean, exact.mean(0), rtol=1e-6) and np.allclose(step.std, exact.std(0), rtol=1e-6)
    for name, share in (("q01", 0.01), ("q99", 0.99)):
        assert np.allclose(getattr(step, name), [np.percentile(exact[:, d], 100 * share) for d in range(3)], rtol=1e-6)


numbers = st.floats(-1000, 1000, width=32)
data_and_chunk = st.integers(1, 4).flatmap(
    lambda dims: st.tuples(
        arrays(np.float32, st.tuples(st.integers(2, 30), st.just(dims)), elements=numbers),
        arrays(np.float32, st.tuples(st.just(2), st.integers(1, 5), st.just(dims)), elements=numbers),
    )
)


@settings(deadline=None)
@given(data_and_chunk, st.sampled_from(MODES))
def test_what_goes_in_comes_back(pair, mode):
    data, chunk = pair
    data[0, 0] = data[1, 0] + 1  # something moves
    step, batch = fitted(data, mode), {ACTION: torch.from_numpy(chunk)}
    scaled = step(batch)[ACTION]
    back = step.inverse(scaled, batch)
    assert scaled.isfinite().all()
    assert np.allclose(back, chunk, rtol=1e-5, atol=1e-5 * max(1, abs(data).max(), abs(chunk).max()))


@pytest.mark.parametrize("mode", ["min_max", "quantiles"])
def test_data_lands_between_minus_one_and_one(mode):
    data = some_actions()
    scaled = fitted(data, mode)({ACTION: torch.from_numpy(data)})[ACTION]
    inside = (scaled.abs() <= 1 + 1e-4).float().mean()
    assert inside == 1 if mode == "min_max" else 0.975 < inside < 0.985


@pytest.mark.parametrize("mode", ["mean_std", "min_max", "quantiles"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1e4])
def test_a_dimension_that_never_moved_is_not_blown_up(mode, value):
    data = some_actions()
    data[:, 1] = value
    step = fitted(data, mode)
    later = torch.tensor([[0.0, value + 0.01, 0.0]])
    assert step({ACTION: later})[ACTION][0, 1] == pytest.approx(0.01, abs=1e-3)
    assert step.inverse(torch.zeros(1, 1, 3), {})[0, 0, 1] == pytest.approx(value)


def test_a_dimension_that_seldom_moves_is_scaled_by_its_extremes_where_its_quantiles_agree():
    data = some_actions()
    data[:, 1] = 0
    data[[3, 77], 1] = [1, -1]
    scaled = fitted(data, "quantiles")({ACTION: torch.from_numpy(data)})[ACTION]
    assert scaled[[3, 77, 5], 1].tolist() == [1, -1, 0]


def test_dimensions_can_be_left_as_they_are():
    data = some_actions()
    step = fitted(data, "mean_std", keep=[0, 2])
    scaled = step({ACTION: torch.from_numpy(data)})[ACTION]
    assert np.array_equal(scaled[:, [0, 2]], data[:, [0, 2]]) and abs(scaled[:, 1].mean()) < 1e-2
    assert np.allclose(step.inverse(scaled.unsqueeze(1), {}).squeeze(1), data, rtol=1e-5)


def test_states_are_scaled_and_do_not_touch_actions():
    data = some_actions()
    step = fitted(data, "mean_std", key=STATE)
    batch = {STATE: torch.from_numpy(data[:8]).unsqueeze(1), ACTION: torch.randn(8, 2, 3)}
    result = step(batch)
    assert not torch.equal(result[STATE], batch[STATE]) and torch.equal(result[ACTION], batch[ACTION])
    assert torch.equal(step.inverse(batch[ACTION], batch), batch[ACTION])


def test_statistics_travel_with_the_weights(tmp_path):
    data = some_actions()
    step, other = fitted(data, "quantiles"), Normalize(ACTION, 3, "quantiles")
    save_file(step.state_dict(), tmp_path / "step.safetensors")
    other.load_state_dict(load_file(tmp_path / "step.safetensors"))
    batch = {ACTION: torch.from_numpy(data)}
    assert torch.equal(step(batch)[ACTION], other(batch)[ACTION])


def test_without_statistics_it_refuses():
    with pytest.raises(ValueError, match="no statistics yet: fit the pipeline or load"):
        Normalize(ACTION, 3)({ACTION: torch.zeros(1, 2, 3)})


def test_a_body_without_a_state_has_none_to_scale():
    step = Normalize(STATE, 0)
    Pipeline({"state": step}).fit({ACTION: some_actions()}, np.array([500]), 1)
    assert step({ACTION: torch.zeros(1, 1, 3)}).keys() == {ACTION}


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Normalize(ACTION, 3, "minmax"), "one of mean_std, min_max, quantiles, identity"),
        (lambda: Normalize(ACTION, 3, keep=[3]), "dimensions 0 to 2"),
        (lambda: fitted(np.ones((9, 3), np.float32), "min_max"), "all 9 actions of the data are the same"),
        (lambda: Pipeline({"x": Normalize(STATE, 3)}).fit({ACTION: some_actions()}, [500], 1), "no such column"),
        (lambda: Pipeline({"x": Normalize(ACTION, 4)}).fit({ACTION: some_actions()}, [500], 1), "4 dimensions.* has 3"),
    ],
)
def test_a_mistake_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("mode", MODES[:3])
def test_clamped_actions_stay_in_the_range_that_was_demonstrated(mode):
    data = some_actions()
    wild = torch.linspace(-50, 50, 60).reshape(1, 20, 3)
    free, limited = (fitted(data, mode, clamp=clamp).inverse(wild, {}) for clamp in (False, True))
    low, high = (torch.from_numpy(x) for x in (data.min(0), data.max(0)))
    assert ((free < low) | (free > high)).any()
    assert torch.equal(limited, torch.minimum(torch.maximum(free, low), high))
