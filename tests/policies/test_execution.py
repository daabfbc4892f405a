"""Chunks are executed in pieces as configured, or blended as the code of ACT and of CogACT does, latency counted."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from embodied.building import build
from embodied.cli.configs import compose
from embodied.interaction import Execution
from policies.execution import AdaptiveEnsemble, RecedingHorizon, TemporalEnsemble


def chunk_at(step, horizon=4):
    """A chunk whose rows name the step it was predicted at and the step they are for."""
    return np.array([[step, step + i] for i in range(horizon)], dtype=np.float32)


def run(execution, steps, horizon=4):
    """Actions of an episode, and the steps at which chunks were asked for."""
    actions, asked = [], []
    for step in range(steps):
        if execution.wants_chunk():
            asked.append(step)
            execution.push(chunk_at(step, horizon))
        actions.append(execution.next())
    return np.array(actions), asked


@pytest.mark.parametrize("steps, asked", [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (4, [0, 4]), (None, [0, 4])])
def test_receding_horizon_runs_that_many_steps_of_each_chunk(steps, asked):
    actions, when = run(RecedingHorizon(steps), 6)
    assert when == asked
    assert actions[:, 1].tolist() == [0, 1, 2, 3, 4, 5]
    assert actions[:, 0].tolist() == [max(a for a in asked if a <= step) for step in range(6)]


def act_official(predictions, coefficient):
    """`imitate_episodes.py` of the official code with `temporal_agg`, a table of all predictions for all steps."""
    steps, horizon, dims = predictions.shape
    table = np.full((steps, steps + horizon, dims), np.nan)
    actions = []
    for t in range(steps):
        table[t, t : t + horizon] = predictions[t]
        for_now = table[:, t]
        for_now = for_now[~np.isnan(for_now).any(axis=1)]
        weights = np.exp(-coefficient * np.arange(len(for_now)))
        weights = weights / weights.sum()
        actions.append((for_now * weights[:, None]).sum(axis=0))
    return np.array(actions)


@given(st.integers(1, 6), st.integers(1, 12), st.floats(-0.5, 0.5), st.integers(0, 2**32 - 1))
def test_temporal_ensemble_is_acts(horizon, steps, coefficient, seed):
    predictions = np.random.default_rng(seed).normal(size=(steps, horizon, 3)).astype(np.float32)
    execution, actions = TemporalEnsemble(coefficient), []
    for chunk in predictions:
        assert execution.wants_chunk()
        execution.push(chunk)
        assert not execution.wants_chunk()
        actions.append(execution.next())
    assert np.allclose(actions, act_official(predictions, coefficient), atol=1e-5)


def test_temporal_ensemble_trusts_the_oldest_prediction_most():
    execution = TemporalEnsemble(coefficient=100.0)
    actions, asked = run(execution, 5)
    assert asked == [0, 1, 2, 3, 4]
    assert actions[:, 0] == pytest.approx([0, 0, 0, 0, 1])


def cogact_official(predictions, alpha):
    """`adaptive_ensemble.py` of the official code, its history as long as the horizon."""
    horizon, actions = predictions.shape[1], []
    for t in range(len(predictions)):
        for_now = np.stack([predictions[s][t - s] for s in range(max(0, t - horizon + 1), t + 1)]).astype(float)
        newest = for_now[-1]
        cosine = (for_now * newest).sum(1) / (np.linalg.norm(for_now, axis=1) * np.linalg.norm(newest) + 1e-7)
        weights = np.exp(alpha * cosine)
        weights = weights / weights.sum()
        actions.append((weights[:, None] * for_now).sum(axis=0))
    return np.array(actions)


@given(st.integers(1, 6), st.integers(1, 12), st.floats(-1, 5), st.integers(0, 2**32 - 1))
def test_adaptive_ensemble_is_cogacts(horizon, steps, alpha, seed):
    predictions = np.random.default_rng(seed).normal(size=(steps, horizon, 3)).astype(np.float32)
    execution, actions = AdaptiveEnsemble(alpha), []
    for chunk in predictions:
        assert execution.wants_chunk()
        execution.push(chunk)
        actions.append(execution.next())
    assert np.allclose(actions, cogact_official(predictions, alpha), atol=1e-4)


def test_adaptive_ensemble_in_numbers():
    """Older predictions along and against the newest, (1, 0): cosines 1, -1 and 1, weights e, 1/e and e."""
    execution = AdaptiveEnsemble(alpha=1.0)
    for row in ([3, 0], [-2, 0], [1, 0]):
        execution.push(np.array([[9, 9], row, row, row], np.float32) if row != [1, 0] else np.array([row], np.float32))
        if row != [1, 0]:
            execution.next()
    e = np.e
    assert execution.next() == pytest.approx([(3 * e - 2 / e + e) / (2 * e + 1 / e), 0], rel=1e-5)


def test_a_prediction_that_points_elsewhere_is_hardly_blended_in():
    left, right = np.tile([[-1.0, 0.0]], (4, 1)), np.tile([[1.0, 0.0]], (4, 1))
    adaptive, average = AdaptiveEnsemble(alpha=10.0), TemporalEnsemble(0.0)
    for chunk in (left, right):
        for execution in (adaptive, average):
            execution.push(chunk)
            action = execution.next()
    assert action[0] == pytest.approx(0)
    adaptive.push(right)
    assert adaptive.next()[0] > 0.999


def test_only_so_many_of_the_newest_are_blended():
    execution = AdaptiveEnsemble(alpha=0.0, chunks=2)
    actions, _ = run(execution, 6)
    assert actions[:, 0].tolist() == [0, 0.5, 1.5, 2.5, 3.5, 4.5]


# Latency: a chunk arrives some steps after the observation that it was predicted from.


@pytest.mark.parametrize(
    "execution, asked, predicted_at",
    [
        # The first chunk is waited for. Then a chunk asked for at step 2 speaks from step 3 on.
        (RecedingHorizon(2, latency=1), [0, 2, 4, 6, 8], [0, 0, 0, 2, 2, 4, 4, 6, 6, 8]),
        (RecedingHorizon(2, latency=2), [0, 2, 4, 6, 8], [0, 0, 0, 0, 2, 2, 4, 4, 6, 6]),
        (RecedingHorizon(None, latency=1), [0, 3, 6, 9], [0, 0, 0, 0, 3, 3, 3, 6, 6, 6]),
        (RecedingHorizon(1, latency=1), list(range(10)), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_receding_horizon_goes_on_with_the_old_chunk_until_the_new_one_arrives(execution, asked, predicted_at):
    actions, when = run(execution, 10)
    assert when == asked
    assert actions[:, 0].tolist() == predicted_at
    assert actions[:, 1].tolist() == list(range(10))  # each says what its chunk meant for that very step


def test_ensembles_blend_what_has_arrived_and_predict_one_chunk_at_a_time():
    for execution in (TemporalEnsemble(0.0, latency=2), AdaptiveEnsemble(0.0, latency=2)):
        actions, asked = run(execution, 9, horizon=5)
        assert asked == [0, 2, 4, 6, 8]
        # At step 4 the chunks of 0 and 2 speak; that of 4 arrives at 6, when that of 0 is over.
        assert actions[:, 0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5]
        assert actions[:, 1] == pytest.approx(list(range(9)))


@given(st.integers(0, 3), st.integers(7, 9), st.integers(1, 20), st.sampled_from(["horizon", "ensemble", "adaptive"]))
def test_no_action_was_predicted_from_the_future_or_before_it_arrived(latency, horizon, steps, kind):
    made = {
        "horizon": lambda: RecedingHorizon(3, latency),
        "ensemble": lambda: TemporalEnsemble(100.0, latency),  # the oldest alone
        "adaptive": lambda: AdaptiveEnsemble(0.0, 1, latency),  # the newest alone
    }
    actions, _ = run(made[kind](), steps, horizon)
    assert actions[:, 1] == pytest.approx(list(range(steps)), abs=1e-4)
    for step, predicted_at in enumerate(actions[:, 0]):
        assert predicted_at == 0 or predicted_at <= step - latency + 1e-4


@pytest.mark.parametrize("name", ["newest", "average", "adaptive_ensemble", "receding_horizon", "temporal_ensemble"])
def test_every_execution_of_the_configs_acts(name):
    execution = build(
        OmegaConf.to_container(compose("train", [f"execution={name}", "data.root=x", "out=x"]).execution), (Execution,)
    )
    actions, _ = run(execution, 6, horizon=8)
    expected = {
        "newest": [0, 1, 2, 3, 4, 5],
        "average": [0, 0.5, 1, 1.5, 2, 2.5],
        "receding_horizon": [0, 0, 0, 0, 4, 4],
    }
    assert actions[:, 1] == pytest.approx(list(range(6)))
    if name in expected:
        assert actions[:, 0].tolist() == expected[name]


@pytest.mark.parametrize("execution", [RecedingHorizon(3), TemporalEnsemble(), AdaptiveEnsemble()])
def test_a_new_episode_knows_nothing_of_the_last(execution):
    fresh = run(copy.deepcopy(execution), 5)[0]
    run(execution, 5)
    execution.reset()
    assert np.array_equal(run(execution, 5)[0], fresh)


@pytest.mark.parametrize("execution", [RecedingHorizon(3), TemporalEnsemble(), AdaptiveEnsemble()])
def test_slots_do_not_share_their_copies(execution):
    one, other = copy.deepcopy(execution), copy.deepcopy(execution)
    one.push(chunk_at(0))
    assert other.wants_chunk() and not one.wants_chunk()


@pytest.mark.parametrize("execution", [RecedingHorizon(), TemporalEnsemble(), AdaptiveEnsemble()])
def test_what_was_pushed_can_be_changed_afterwards(execution):
    chunk = chunk_at(7)
    execution.push(chunk)
    chunk[:] = 99
    assert execution.next().tolist() == [7, 7]


@pytest.mark.parametrize("execution", [RecedingHorizon(), TemporalEnsemble(), AdaptiveEnsemble()])
def test_an_action_without_a_chunk_is_refused(execution):
    with pytest.raises(ValueError, match="push"):
        execution.next()
    execution.push(chunk_at(0, horizon=1))
    execution.next()
    with pytest.raises(ValueError, match="push"):
        execution.next()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        build({"_target_": "policies.execution.RecedingHorizon", "steps": 0}, (Execution,))
    with pytest.raises(ValueError, match=r"steps is 8, but a chunk has only 4: lower execution\.steps"):
        RecedingHorizon(8).push(chunk_at(0))
    with pytest.raises(ValueError, match="steps is 3 and latency 2, but a chunk has only 4"):
        RecedingHorizon(3, latency=2).push(chunk_at(0))
    with pytest.raises(ValueError, match=r"steps is 1, but a prediction takes 2 steps: raise execution\.steps"):
        RecedingHorizon(1, latency=2)
    with pytest.raises(ValueError, match=r"lower execution\.latency"):
        RecedingHorizon(None, latency=3).push(chunk_at(0))
    with pytest.raises(ValueError, match=r"all of which are over before it arrives: lower execution\.latency \(4\)"):
        TemporalEnsemble(latency=4).push(chunk_at(0))
    for wrong, says in (
        ({"latency": -1}, "latency must not be negative"),
        ({"chunks": 0}, "chunks must be at least 1"),
    ):
        with pytest.raises(ValueError, match=says):
            AdaptiveEnsemble(**wrong)
