"""A pipeline runs its steps in order, undoes them in reverse, and each step learns from what came before."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.building import ForbiddenTarget
from embodied.processing.pipeline import Pipeline
from embodied.spec import ACTION, IMAGES, STATE

NORMALIZE = "embodied.processing.normalize.Normalize"
RELATIVE = "embodied.processing.relative.RelativeActions"
H, S, A = 4, 5, 3


def a_dataset(seed=0, lengths=(7, 2, 30)):
    random = np.random.default_rng(seed)
    n = sum(lengths)
    state = random.normal(size=(n, S)).cumsum(0).astype(np.float32)
    action = (state[:, [4, 0, 1]] + random.normal(size=(n, A)) * [0.1, 1, 2]).astype(np.float32)
    return {STATE: state, ACTION: action}, np.cumsum(lengths)


def a_batch(columns, start=0, rows=6, history=2):
    """Raw batch as the data path gives it, without padding."""
    index = np.arange(start, start + rows)[:, None]
    state = columns[STATE][np.maximum(index + np.arange(1 - history, 1), 0)]
    return {
        IMAGES + "front": torch.randint(0, 256, (rows, history, 8, 8, 3), dtype=torch.uint8),
        STATE: torch.from_numpy(state),
        "observation_is_pad": torch.zeros(rows, history, dtype=torch.bool),
        ACTION: torch.from_numpy(columns[ACTION][index + np.arange(H)]),
        "action_is_pad": torch.zeros(rows, H, dtype=torch.bool),
        "task": ["push"] * rows,
    }


def nodes(mode="mean_std", **relative):
    return {
        "shift": {"_target_": "embodied.processing.augment.RandomShift", "pixels": 2},
        "relative": {"_target_": RELATIVE, "dims": [0, 2], "state_dims": [4, 1], **relative},
        "state": {"_target_": NORMALIZE, "key": STATE, "mode": "min_max"},
        "actions": {"_target_": NORMALIZE, "key": ACTION, "mode": mode},
    }


def fitted(config, seed=0):
    columns, ends = a_dataset(seed)
    pipeline = Pipeline.from_config(config, S, A)
    pipeline.fit(columns, ends, H)
    return pipeline, columns, ends


def every_real_difference(columns, ends, reference):
    """Brute force: each frame's chunk minus where it starts, padding left out."""
    differences, start = [], 0
    for end in ends:
        for frame in range(start, end):
            chunk = columns[ACTION][frame : min(frame + H, end)].astype(np.float64)
            state = columns[STATE][frame][[4, 1]].astype(np.float64)
            before = state if reference == "state" else np.vstack([state, chunk[:-1, [0, 2]]])
            chunk[:, [0, 2]] -= before
            differences.append(chunk)
        start = end
    return np.concatenate(differences)


@pytest.mark.parametrize("reference", ["state", "previous"])
def test_statistics_of_relative_actions_are_those_of_every_chunk(reference):
    pipeline, columns, ends = fitted(nodes(reference=reference))
    exact, step = every_real_difference(columns, ends, reference), pipeline.steps["actions"]
    for name, value in {
        "mean": exact.mean(0),
        "std": exact.std(0),
        "low": exact.min(0),
        "high": exact.max(0),
        "q01": np.quantile(exact, 0.01, axis=0),
        "q99": np.quantile(exact, 0.99, axis=0),
    }.items():
        assert np.allclose(getattr(step, name), value, rtol=1e-4, atol=1e-5), name


def test_statistics_of_plain_actions_count_each_frame_once():
    config = nodes()
    del config["relative"]
    pipeline, columns, _ = fitted(config)
    assert np.allclose(pipeline.steps["actions"].mean, columns[ACTION].mean(0, dtype=np.float64), atol=1e-6)


def test_statistics_of_states_do_not_depend_on_chunks():
    pipeline, columns, _ = fitted(nodes())
    assert np.array_equal(pipeline.steps["state"].low, columns[STATE].min(0))


def test_a_step_learns_from_what_the_steps_before_it_made():
    once = {"_target_": NORMALIZE, "key": ACTION, "mode": "mean_std"}
    pipeline, *_ = fitted([once, once])
    first, second = pipeline.steps.values()
    assert not np.allclose(first.std, 1, atol=1e-2)
    assert np.allclose(second.mean, 0, atol=1e-5) and np.allclose(second.std, 1, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000), st.sampled_from(["mean_std", "min_max", "quantiles"]), st.sampled_from(["state", "previous"])
)
def test_actions_that_go_in_come_back(seed, mode, reference):
    pipeline, columns, _ = fitted(nodes(mode, reference=reference), seed)
    batch = a_batch(columns, start=9)
    scaled = pipeline(batch)[ACTION]
    rollout = {key: value for key, value in batch.items() if not key.startswith("action")}
    assert not torch.allclose(scaled, batch[ACTION], atol=1e-2)
    assert torch.allclose(
        pipeline.inverse(scaled, rollout), batch[ACTION], atol=1e-5 * max(1, batch[ACTION].abs().max())
    )


def test_relative_actions_are_openpis_delta_actions():
    """`DeltaActions.__call__` of the official code with a mask."""
    columns, _ = a_dataset()
    batch, mask = a_batch(columns), np.array([True, False, True])
    expected = batch[ACTION].numpy().copy()
    expected[..., :3] -= np.expand_dims(np.where(mask, batch[STATE].numpy()[:, -1, :3], 0), axis=-2)
    pipeline = Pipeline.from_config([{"_target_": RELATIVE, "dims": [0, 2]}], S, A)
    assert np.array_equal(pipeline(batch)[ACTION], expected)


def test_the_raw_batch_stays_as_it_was():
    pipeline, columns, _ = fitted(nodes())
    batch = a_batch(columns)
    before = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    result = pipeline.train()(batch)
    chunk = torch.randn(6, H, A)
    given_chunk = chunk.clone()
    pipeline.inverse(chunk, batch)
    assert result.keys() == batch.keys() and torch.equal(chunk, given_chunk)
    for key, value in before.items():
        assert value == batch[key] if key == "task" else torch.equal(value, batch[key])


def test_training_or_not_what_it_was_before_fitting_it_is_after():
    pipeline, columns, ends = fitted(nodes())
    for training in (True, False):
        pipeline.train(training).fit(columns, ends, H)
        assert pipeline.training == training and pipeline.steps["shift"].training == training


def test_saved_statistics_are_found_by_name_and_make_the_same_pipeline():
    pipeline, columns, _ = fitted(nodes())
    other = Pipeline.from_config(nodes(), S, A)
    assert "steps.actions.q99" in pipeline.state_dict()
    other.load_state_dict(pipeline.state_dict())
    batch = a_batch(columns)
    one, two = pipeline.eval()(batch), other.eval()(batch)
    assert all(torch.equal(one[key], two[key]) for key in (STATE, ACTION, IMAGES + "front"))


@pytest.mark.parametrize("nothing", [{}, [], None, {"shift": None}])
def test_without_steps_nothing_changes(nothing):
    pipeline, columns, _ = fitted(nothing)
    batch, chunk = a_batch(columns), torch.randn(6, H, A)
    assert all(pipeline(batch)[key] is batch[key] for key in batch)
    assert torch.equal(pipeline.inverse(chunk, batch), chunk)


def test_a_body_without_a_state_can_use_the_same_config():
    columns, ends = a_dataset()
    config = nodes()
    del config["relative"]
    pipeline = Pipeline.from_config(config, 0, A)
    pipeline.fit({ACTION: columns[ACTION]}, ends, H)
    assert pipeline({ACTION: torch.zeros(1, H, A)})[ACTION].shape == (1, H, A)


@pytest.mark.parametrize("bad, says", [(np.nan, "nan"), (np.inf, "inf")])
def test_a_number_that_is_none_is_found(bad, says):
    columns, ends = a_dataset()
    columns[STATE][8, 3] = bad
    with pytest.raises(ValueError, match=rf"observation\.state is {says} in dimension 3 at frame 1 of episode 1"):
        Pipeline.from_config(nodes(), S, A).fit(columns, ends, H)


@pytest.mark.parametrize(
    "config, says",
    [
        ({"x": {"_target_": RELATIVE, "dims": [3]}}, "action dimension 3 asked for, but there are dimensions 0 to 2"),
        ({"x": {"_target_": RELATIVE, "dims": [0], "state_dims": [5]}}, "state dimension 5 .* 0 to 4"),
        ({"x": {"_target_": RELATIVE, "dims": [0], "state_dims": [1, 2]}}, "1 dims, but 2 state_dims"),
        ({"x": {"_target_": RELATIVE, "reference": "start"}}, "one of state, previous"),
        ({"x": {"_target_": NORMALIZE, "key": "observation.force"}}, "needs dim"),
        ({"x": {"_target_": NORMALIZE, "key": ACTION, "modes": "min_max"}}, "takes no 'modes'; did you mean 'mode'"),
        ({"x": {"target": NORMALIZE}}, "processing.x is no transform"),
        ({"x": {"_target_": "embodied.processing.normalize.Normalise"}}, "did you mean 'Normalize'"),
    ],
)
def test_a_mistake_is_named(config, says):
    with pytest.raises(ValueError, match=says):
        Pipeline.from_config(config, S, A)


@pytest.mark.parametrize("target", ["torch.nn.Linear", "embodied.processing.pipeline.Pipeline", "os.system"])
def test_only_transforms_are_built(target):
    with pytest.raises(ForbiddenTarget):
        Pipeline.from_config([{"_target_": target}], S, A)


def test_lengths_that_disagree_are_refused():
    columns, ends = a_dataset()
    pipeline = Pipeline.from_config(nodes(), S, A)
    with pytest.raises(ValueError, match=r"observation.state has shape \(39, 5\), but the episodes end at frame 40"):
        pipeline.fit(columns, ends + 1, H)
    with pytest.raises(ValueError, match="at least one episode"):
        pipeline.fit(columns, np.array([], dtype=int), H)
