"""Chunks are executed in pieces as configured, or blended as ACT's code blends them."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.building import build
from embodied.interaction import Execution
from policies.execution import RecedingHorizon, TemporalEnsemble


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


@pytest.mark.parametrize("execution", [RecedingHorizon(3), TemporalEnsemble()])
def test_a_new_episode_knows_nothing_of_the_last(execution):
    fresh = run(copy.deepcopy(execution), 5)[0]
    run(execution, 5)
    execution.reset()
    assert np.array_equal(run(execution, 5)[0], fresh)


@pytest.mark.parametrize("execution", [RecedingHorizon(3), TemporalEnsemble()])
def test_slots_do_not_share_their_copies(execution):
    one, other = copy.deepcopy(execution), copy.deepcopy(execution)
    one.push(chunk_at(0))
    assert other.wants_chunk() and not one.wants_chunk()


@pytest.mark.parametrize("execution", [RecedingHorizon(), TemporalEnsemble()])
def test_what_was_pushed_can_be_changed_afterwards(execution):
    chunk = chunk_at(7)
    execution.push(chunk)
    chunk[:] = 99
    assert execution.next().tolist() == [7, 7]


@pytest.mark.parametrize("execution", [RecedingHorizon(), TemporalEnsemble()])
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
