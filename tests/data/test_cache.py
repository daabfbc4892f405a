"""A cache holds the dataset's frames, is made once, and again when the dataset changed."""

import errno
import io
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embodied.data import Cache, DatasetWriter, LeRobotDataset
from embodied.data import cache as caching


def frames(cache, camera):
    return np.fromfile(cache.camera_file(camera), np.uint8).reshape(-1, *cache.shapes[camera])


@pytest.mark.parametrize("storage", ["image", "video"])
@pytest.mark.parametrize("processes", [0, 2])
def test_it_holds_every_frame_of_every_episode(tmp_path, toy, storage, processes):
    dataset = toy.write(tmp_path / "d", storage=storage, height=64, width=64)
    cache = Cache(dataset, stream=None, processes=processes)
    assert cache.episode_ends.tolist() == np.cumsum(toy.lengths).tolist()
    for camera in ("top", "wrist"):
        wanted = np.concatenate([np.stack(list(dataset.images(n, camera))) for n in range(3)])
        np.testing.assert_array_equal(frames(cache, camera), wanted)
    for key in ("action", "observation.state", "timestamp", "task_index", "next.success"):
        wanted = np.concatenate([dataset.low_dimensional(n)[key] for n in range(3)])
        np.testing.assert_array_equal(cache.columns[key], wanted)
        assert cache.columns[key].dtype == wanted.dtype


def test_it_is_made_once(dataset, monkeypatch):
    first = Cache(dataset, stream=None)
    before = {f: f.stat().st_mtime_ns for f in first.folder.rglob("*.*") if f.is_file()}
    monkeypatch.setattr(LeRobotDataset, "images", None)  # nothing is decoded any more
    monkeypatch.setattr(LeRobotDataset, "low_dimensional", None)
    again = Cache(LeRobotDataset(dataset.root), stream=None)
    assert {f: f.stat().st_mtime_ns for f in first.folder.rglob("*.*") if f.is_file()} == before
    np.testing.assert_array_equal(again.columns["action"], first.columns["action"])


def test_only_the_cameras_and_sizes_asked_for_are_decoded(dataset):
    cache = Cache(dataset, cameras=["wrist"], stream=None)
    assert sorted(f.name for f in cache.folder.glob("*")) == [".lock", "columns", "wrist-16x24"]
    Cache(dataset, cameras=["wrist"], size=(8, 8), stream=None)
    assert sorted(f.name for f in cache.folder.glob("*")) == [".lock", "columns", "wrist-16x24", "wrist-8x8"]


def test_a_changed_dataset_is_decoded_again(dataset, toy):
    Cache(dataset, stream=None)
    with DatasetWriter(dataset.root, toy.body()) as writer:
        writer.add_episode(toy.demonstration(9), "more")
    grown = Cache(LeRobotDataset(dataset.root), stream=None)
    assert len(frames(grown, "top")) == sum(toy.lengths) + toy.lengths[0] == grown.episode_ends[-1]
    file = dataset.root / "data/chunk-000/file-000.parquet"
    before = caching.fingerprint(dataset)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert caching.fingerprint(dataset) != before


def test_resizing_is_pillows_antialiased_bilinear(tmp_path, toy):
    dataset = toy.write(tmp_path / "d", seeds=[0], height=64, width=48)
    cache = Cache(dataset, size=(20, 30), stream=None)
    assert cache.shapes["wrist"] == (20, 30, 3)
    for ours, source in zip(frames(cache, "wrist"), dataset.images(0, "wrist"), strict=True):
        theirs = np.asarray(Image.fromarray(source).resize((30, 20), Image.Resampling.BILINEAR))
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_resizing_is_what_processing_would_do(dataset):
    import torch

    from embodied.processing.images import Resize

    cache = Cache(dataset, size=(8, 10), stream=None)
    raw = torch.from_numpy(np.stack(list(dataset.images(1, "wrist"))))[None]
    first = int(cache.episode_ends[0])
    np.testing.assert_array_equal(
        frames(cache, "wrist")[first : first + raw.shape[1]], Resize(8, 10).change(raw)[0].numpy()
    )


def test_progress_is_shown(dataset):
    shown = io.StringIO()
    Cache(dataset, stream=shown)
    assert (
        "decoding camera 'top' to" in shown.getvalue()
        and "21/21 frames" in shown.getvalue()
        and "ETA" in shown.getvalue()
    )


def test_a_dataset_that_cannot_be_written_is_cached_elsewhere(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (dataset.root / ".cache").write_text("in the way")
    shown = io.StringIO()
    cache = Cache(dataset, stream=shown)
    assert cache.folder.parent == tmp_path / "home/embodied" and "are cached in" in shown.getvalue()
    assert len(frames(cache, "top")) == 21
    other = Path(shutil.copytree(dataset.root, tmp_path / "other/toy"))
    assert Cache(LeRobotDataset(other), stream=None).folder != cache.folder  # same name, another dataset


def test_a_place_that_cannot_be_written_is_an_error(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"the cache cannot be written to .*/file/c \(Not a directory\)"):
        Cache(dataset, location=tmp_path / "file/c", stream=None)
    assert Cache(dataset, location=tmp_path / "elsewhere", stream=None).folder == tmp_path / "elsewhere"
    assert not (dataset.root / ".cache").exists()


def test_too_little_space_is_said_before_anything_is_written(dataset, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(
        ValueError, match=r"decoded images of camera 'top' need 0\.00 GB in .*free space, or choose another place"
    ):
        Cache(dataset, stream=None)
    assert not list((dataset.root / ".cache").glob("top*"))


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_disk_that_fills_up_leaves_no_half_cache(dataset, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            Cache(dataset, stream=None)
    assert not list((dataset.root / ".cache").glob("*top*"))
    assert len(frames(Cache(dataset, stream=None), "top")) == 21


def test_a_damaged_image_stops_it_and_is_named(dataset):
    data = dataset.root / "data/chunk-000/file-000.parquet"
    content = bytearray(data.read_bytes())
    at = content.index(b"IDAT")
    content[at + 8 : at + 20] = bytes(12)
    data.write_bytes(content)
    with pytest.raises(ValueError, match=r"file-000\.parquet"):
        Cache(LeRobotDataset(dataset.root), stream=None)
    assert not list((dataset.root / ".cache").glob("*top*"))


def test_a_wrong_camera_is_named(dataset):
    with pytest.raises(ValueError, match="no camera 'tpo'; did you mean 'top'"):
        Cache(dataset, cameras=["tpo"], stream=None)


def test_two_processes_make_it_once(dataset, tmp_path):
    program = textwrap.dedent("""
        import sys
        from embodied.data import Cache, LeRobotDataset
        Cache(LeRobotDataset(sys.argv[1]), stream=sys.stdout)
    """)
    command = [sys.executable, "-c", program, str(dataset.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    output = "".join(process.communicate()[0] for process in running)
    assert all(process.returncode == 0 for process in running)
    assert output.count("decoding camera 'top'") == 1
