"""A window is the episode's frames and actions around a moment, padded at its ends, never across them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied.data import Cache, Windows


@pytest.fixture(scope="module")
def cache(tmp_path_factory, toy):
    return Cache(toy.write(tmp_path_factory.mktemp("windows") / "d"), stream=None)


def expected(cache, number, t, history, horizon):
    """The window at frame t of an episode, from the episode alone."""
    episode = cache.dataset.episode(number)
    length = len(episode["action"])
    past, future = range(t - history + 1, t + 1), range(t, t + horizon)
    at = [max(i, 0) for i in past]
    keys = ("observation.images.top", "observation.images.wrist", "observation.state")
    return {key: episode[key][at] for key in keys} | {
        "action": episode["action"][[min(i, length - 1) for i in future]],
        "observation_is_pad": [i < 0 for i in past],
        "action_is_pad": [i >= length for i in future],
        "task": episode["task"],
    }


def same(window, wanted):
    assert set(window) == set(wanted)
    for key, value in wanted.items():
        if key == "task":
            assert window[key] == value
        else:
            np.testing.assert_array_equal(window[key].numpy(), value, err_msg=key)


@given(history=st.integers(1, 12), horizon=st.integers(1, 12), data=st.data())
def test_batches_hold_what_the_episodes_hold(cache, history, horizon, data):
    windows = Windows(cache, history=history, horizon=horizon)
    assert len(windows) == 21
    picked = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=6))
    batch = windows.batch(picked)
    for row, index in enumerate(picked):
        number = int(np.searchsorted(cache.episode_ends, index, side="right"))
        t = index - (cache.episode_ends[number - 1] if number else 0)
        wanted = expected(cache, number, int(t), history, horizon)
        same({key: value[row] for key, value in batch.items()}, wanted)
        same(windows[index], wanted)


@given(history=st.integers(1, 12), horizon=st.integers(1, 12), index=st.integers(0, 20))
def test_every_step_of_a_window_can_come_with_its_own_chunk(cache, history, horizon, index):
    windows = Windows(cache, history=history, horizon=horizon, every_step=True)
    number = int(np.searchsorted(cache.episode_ends, index, side="right"))
    t = int(index - (cache.episode_ends[number - 1] if number else 0))
    wanted = expected(cache, number, t, history, horizon)
    chunks = [expected(cache, number, max(i, 0), 1, horizon) for i in range(t - history + 1, t + 1)]
    wanted["action"] = np.stack([chunk["action"] for chunk in chunks])
    there = ~np.array(wanted["observation_is_pad"])
    wanted["action_is_pad"] = np.stack([chunk["action_is_pad"] for chunk in chunks]) | ~there[:, None]
    same({key: value[0] for key, value in windows.batch([index]).items()}, wanted)
    same(windows[index], wanted)


def test_batches_have_the_shapes_and_types_that_processing_expects(cache):
    batch = Windows(cache, cameras=["wrist"], history=2, horizon=4).batch([0, 5, 20])
    described = {k: (v.dtype, tuple(v.shape)) for k, v in batch.items() if k != "task"}
    assert described == {
        "observation.images.wrist": (torch.uint8, (3, 2, 16, 24, 3)),
        "observation.state": (torch.float32, (3, 2, 3)),
        "observation_is_pad": (torch.bool, (3, 2)),
        "action": (torch.float32, (3, 4, 2)),
        "action_is_pad": (torch.bool, (3, 4)),
    }
    assert batch["task"] == ["task 0", "task 1", "task 0"]


def test_a_single_window_is_a_view_where_it_needs_no_padding(cache):
    windows = Windows(cache, history=2, horizon=2)
    whole, first, last = windows[7], windows[5], windows[13]
    again = windows[7]
    for key in ("observation.images.top", "observation.state", "action"):
        assert whole[key].data_ptr() == again[key].data_ptr()
    assert windows[8]["observation.images.top"].data_ptr() - whole["observation.images.top"].data_ptr() == 16 * 24 * 3
    assert first["observation_is_pad"].tolist() == [True, False] and last["action_is_pad"].tolist() == [False, True]
    batch = windows.batch([7])
    batch["observation.images.top"].zero_()  # a batch is its own memory
    assert windows[7]["observation.images.top"].any()


def test_some_episodes_only(cache):
    windows = Windows(cache, episodes=[2, 0], history=3, horizon=3)
    assert len(windows) == 7 + 5 and windows.episode_ends.tolist() == [7, 12]
    same(windows[0], expected(cache, 2, 0, 3, 3))
    same(windows[6], expected(cache, 2, 6, 3, 3))
    same(windows[7], expected(cache, 0, 0, 3, 3))
    same(windows[11], expected(cache, 0, 4, 3, 3))
    wanted = np.concatenate([cache.dataset.episode(n)["action"] for n in (2, 0)])
    np.testing.assert_array_equal(windows.columns["action"], wanted)


def test_columns_are_what_statistics_are_taken_of(cache):
    windows = Windows(cache, observations=["observation.state", "next.reward"])
    assert {k: v.shape for k, v in windows.columns.items()} == {
        "observation.state": (21, 3),
        "next.reward": (21, 1),
        "action": (21, 2),
    }
    assert all(v.dtype == np.float32 for v in windows.columns.values())
    assert windows.batch([3])["next.reward"].shape == (1, 1, 1)


def test_the_body_is_seen_through_the_chosen_cameras(cache, toy):
    windows = Windows(cache, cameras=["wrist"])
    assert windows.embodiment == toy.body().with_cameras(["wrist"])
    assert windows.tasks == ["task 0", "task 1"] and windows.fps == 10


def test_training_from_state_alone_needs_no_camera(tmp_path, toy):
    windows = Windows(Cache(toy.write(tmp_path / "d"), cameras=[], stream=None), history=2, horizon=2)
    assert set(windows.batch([0, 1])) == {"observation.state", "observation_is_pad", "action", "action_is_pad", "task"}


def test_memory_is_given_back_and_nothing_changes(cache):
    """With no budget at all, pages are dropped after every single gather; views taken before stay right."""
    plain, tight = Windows(cache, history=3), Windows(cache, history=3, resident=0)
    view = tight[10]["observation.images.wrist"]
    for index in range(21):
        assert torch.equal(
            plain.batch([index])["observation.images.wrist"], tight.batch([index])["observation.images.wrist"]
        )
    assert torch.equal(view, plain[10]["observation.images.wrist"])


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"cameras": ["side"]}, "camera 'side' is not among the cached ones: top, wrist"),
        ({"history": 0}, "history must be at least 1"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"episodes": [3]}, "has episodes 0 to 2; asked for"),
        ({"episodes": []}, "has episodes 0 to 2; asked for"),
        ({"episodes": [1, 1]}, "asked for twice"),
        ({"observations": ["observation.force"]}, r"has no numeric column 'observation\.force'"),
    ],
)
def test_a_mistake_is_named(cache, wrong, says):
    with pytest.raises(ValueError, match=says):
        Windows(cache, **wrong)


def test_a_window_that_is_not_there_is_named(cache):
    for ask in (lambda w: w.batch([21]), lambda w: w[-1]):
        with pytest.raises(ValueError, match="numbered 0 to 20"):
            ask(Windows(cache))


def test_a_cache_file_of_the_wrong_size_is_not_read(tmp_path, toy):
    cache = Cache(toy.write(tmp_path / "d"), stream=None)
    file = cache.camera_file("top")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"frames\.u8 has \d+ bytes, not \d+: delete .* and it is made anew"):
        Windows(cache)
