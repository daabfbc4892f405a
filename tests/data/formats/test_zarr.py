"""diffusion-policy's Zarr, written here byte by byte and by zarr itself, is read exactly; objects are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from embodied.data.formats import ForeignDataset, Keys, open_source

KEYS = Keys(state=["position", "opening"])


def opened(root, keys=KEYS):
    return ForeignDataset(open_source(root), keys, fps=10, instruction="push the block")


def assert_same(dataset, files):
    assert len(dataset) == 3 and dataset.cameras == ("top", "wrist")
    for number in range(3):
        episode, wanted = dataset.episode(number), files.demonstration(number)
        for camera in ("top", "wrist"):
            np.testing.assert_array_equal(episode[f"observation.images.{camera}"], wanted[camera])
            assert episode[f"observation.images.{camera}"].dtype == np.uint8
        state = np.concatenate([wanted["position"], wanted["opening"]], axis=1)
        np.testing.assert_array_equal(episode["observation.state"], state)
        np.testing.assert_array_equal(episode["action"], wanted["action"])
        assert episode["task"] == "push the block"


@pytest.mark.parametrize("blosc", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("images", [np.uint8, np.float32])
def test_every_number_comes_back(tmp_path, files, blosc, zipped, images):
    root = files.zarr(tmp_path / "push.zarr", blosc, images)
    if zipped:
        root = shutil.make_archive(str(root), "zip", root)
    assert_same(opened(root), files)


def test_what_zarr_itself_writes_is_read(tmp_path, files):
    group = zarr.open_group(str(tmp_path / "push.zarr"), mode="w", zarr_format=2)
    episodes = [files.demonstration(number) for number in range(3)]
    for key in ("top", "wrist", "position", "opening", "action"):
        values = np.concatenate([episode[key] for episode in episodes])
        group.create_array(f"data/{key}", data=values, chunks=(4, *values.shape[1:]))
    group.create_array("meta/episode_ends", data=np.cumsum(files.lengths))
    assert_same(opened(tmp_path / "push.zarr"), files)


def test_part_of_a_state_is_a_state(tmp_path, files):
    """PushT's `state` holds the pusher and the block; a policy sees the pusher alone."""
    root = files.zarr(tmp_path / "push.zarr")
    episode = opened(root, Keys(state=["position[:2]"])).episode(1)
    np.testing.assert_array_equal(episode["observation.state"], files.demonstration(1)["position"][:, :2])


def test_images_that_bytes_cannot_hold_are_refused(tmp_path, files):
    root = files.zarr(tmp_path / "push.zarr")
    shutil.rmtree(root / "data/top")
    files.zarray(root / "data/top", np.full((19, 12, 16, 3), 0.5, np.float32), None)
    with pytest.raises(ValueError, match=r"episode 0: 'top' holds float32 that are not whole numbers from 0 to 255"):
        opened(root).episode(0)


def described(root, key, **change):
    file = root / key / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda r: described(r, "data/action", dtype="|O"), r"data/action has dtype \|O: only numbers are read"),
        (
            lambda r: described(r, "data/action", filters=[{"id": "pickle", "protocol": 4}]),
            "data/action is encoded with 'pickle'",
        ),
        (lambda r: described(r, "meta/episode_ends", compressor={"id": "msgpack2"}), "is encoded with 'msgpack2'"),
        (
            lambda r: described(r, "data/action", shape=[18, 3]),
            "data/action has 18 steps, but the last episode ends at 19",
        ),
        (lambda r: described(r, "data/action", chunks=[10**12, 3]), "data/action, in one chunk, claims"),
        (lambda r: described(r, "data/action", chunks=[0, 3]), "data/action has shape .* its description is damaged"),
        (lambda r: (r / "data/action/.zarray").write_text("{"), "data/action/.zarray is damaged"),
        (lambda r: shutil.rmtree(r / "meta/episode_ends"), "has no meta/episode_ends: not a replay buffer"),
        (lambda r: (r / "zarr.json").write_text("{}"), "is Zarr format 3"),
        (lambda r: shutil.rmtree(r / "data/action"), r"which keys of .* make the action\? Give keys.action"),
    ],
)
def test_a_buffer_that_is_wrong_is_refused_when_opened(tmp_path, files, damage, says):
    root = files.zarr(tmp_path / "push.zarr")
    damage(root)
    with pytest.raises(ValueError, match=says):
        opened(root)


def test_ends_that_do_not_rise_are_refused(tmp_path, files):
    root = files.zarr(tmp_path / "push.zarr")
    shutil.rmtree(root / "meta/episode_ends")
    files.zarray(root / "meta/episode_ends", np.array([6, 6, 19]), None)
    with pytest.raises(ValueError, match="meta/episode_ends does not rise"):
        opened(root)


@pytest.mark.parametrize("blosc", [True, False])
@pytest.mark.parametrize("keep", [0, 10, 100, -1])
def test_a_chunk_that_was_cut_short_is_named(tmp_path, files, blosc, keep):
    root = files.zarr(tmp_path / "push.zarr", blosc)
    chunk = root / "data/top/3.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:keep])
    dataset = opened(root)
    assert len(dataset.episode(0)["action"]) == 6
    with pytest.raises(ValueError, match=r"push\.zarr: episode 2: .*data/top.* is damaged") as error:
        dataset.episode(2)
    assert "\n" not in str(error.value)


def test_a_zip_that_was_cut_short_is_named(tmp_path, files):
    root = files.zarr(tmp_path / "push.zarr")
    archive = Path(shutil.make_archive(str(root), "zip", root))
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"push\.zarr\.zip is not a Zarr zip file, or was cut short"):
        opened(archive)
