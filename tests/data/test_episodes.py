"""An episode as one sample: all its frames, padded in front, each with its own chunk; and columns that stay on disk."""

import numpy as np
import pytest

from embodied.data import Cache, DatasetWriter, LeRobotDataset, Windows
from embodied.data.episodes import Episodes
from embodied.spec import Camera, Embodiment


@pytest.fixture(scope="module")
def cache(tmp_path_factory, toy):
    root = tmp_path_factory.mktemp("episodes") / "d"
    plain = toy.body()
    cameras = (Camera("top", 16, 24, "toy:", depth=True), plain.cameras[1])
    with DatasetWriter(root, Embodiment(plain.name, plain.action, plain.state, cameras, plain.rate)) as writer:
        for seed in range(3):
            frames = toy.demonstration(seed)
            length = len(frames["action"])
            depth = np.random.default_rng(seed).uniform(0, 5, (length, 16, 24)).astype(np.float32)
            frames |= {
                "observation.depth.top": depth,
                "observation.pose": np.tile(np.eye(4, dtype=np.float32), (length, 1, 1)),
            }
            writer.add_episode(frames, f"task {seed % 2}", {"seed": seed, "success": True})
    return Cache(LeRobotDataset(root), stream=None)


def test_a_batch_is_as_long_as_its_longest_episode(cache, toy):
    episodes = Episodes(cache, horizon=3)
    assert len(episodes) == 3
    batch = episodes.batch([0, 1])
    first, second = toy.lengths[:2]
    assert batch["action"].shape == (2, second, 3, 2)
    assert batch["observation_is_pad"].sum(1).tolist() == [second - first, 0]
    for row in (0, 1):
        wanted, start = cache.dataset.episode(row), second - toy.lengths[row]
        for key in ("observation.images.top", "observation.state"):
            np.testing.assert_array_equal(batch[key][row, start:], wanted[key])
        for t in range(toy.lengths[row]):
            chunk = [wanted["action"][min(t + h, toy.lengths[row] - 1)] for h in range(3)]
            np.testing.assert_array_equal(batch["action"][row, start + t], chunk)
        ended = [[t + h >= toy.lengths[row] for h in range(3)] for t in range(toy.lengths[row])]
        np.testing.assert_array_equal(batch["action_is_pad"][row, start:], ended)
        assert batch["action_is_pad"][row, :start].all()
    assert batch["task"] == ["task 0", "task 1"]


def test_one_episode_is_a_row_of_a_batch(cache):
    episodes = Episodes(cache, horizon=2, episodes=[2, 1])
    one, many = episodes[0], episodes.batch([0])
    assert one.keys() == many.keys()
    assert (one["action"] == many["action"][0]).all()
    assert episodes.where(0) == "0 (episode 2)"


@pytest.mark.parametrize("kind", [Windows, Episodes])
def test_further_columns_come_as_they_are_and_stay_on_the_disk(cache, kind):
    samples = kind(cache, horizon=1)
    samples.observe(["observation.depth.top", "observation.pose", "observation.state"])
    batch = samples.batch([1])
    row = cache.dataset.episode(1 if kind is Episodes else 0)
    depth = row["observation.depth.top"] if kind is Episodes else row["observation.depth.top"][1:2]
    np.testing.assert_array_equal(batch["observation.depth.top"][0], depth)
    assert batch["observation.pose"].shape[-2:] == (4, 4)
    np.testing.assert_array_equal(samples[1]["observation.depth.top"], batch["observation.depth.top"][0])
    assert isinstance(cache.columns["observation.depth.top"], np.memmap)
    assert not isinstance(cache.columns["observation.state"], np.memmap)
    assert "observation.depth.top" not in samples.columns


def test_a_column_that_is_not_there_is_named(cache):
    with pytest.raises(ValueError, match=r"no 'observation\.depth\.wrist', which the model reads: it has"):
        Episodes(cache).observe(["observation.depth.wrist"])
