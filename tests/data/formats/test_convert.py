"""Datasets of other formats become LeRobot v3.0 ones that hold the same numbers, whole or not yet."""

import json

import numpy as np
import pytest

from embodied.data import LeRobotDataset
from embodied.data.check import check
from embodied.data.formats import ForeignDataset, Keys, convert, guess_format, open_source
from embodied.data.lerobot import staged

STATES = {"robomimic": ["obs/robot0_eef_pos", "obs/robot0_gripper_qpos"], "zarr": ["position", "opening"], "rlds": None}
NAMES = {"robomimic": "lift.hdf5", "zarr": "push.zarr", "rlds": "toy"}


@pytest.fixture(params=list(NAMES))
def source(request, tmp_path, files):
    """A file of each format."""
    return getattr(files, request.param)(tmp_path / NAMES[request.param])


def opened(root, files, **more):
    format = guess_format(root)
    told = {"fps": None if format == "robomimic" else 20, "instruction": "t", "conventions": files.conventions} | more
    return ForeignDataset(open_source(root), Keys(state=STATES[format]), **told)


def content(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


def test_what_was_there_is_there_afterwards(source, files, tmp_path):
    before = content(source) if source.is_dir() else source.read_bytes()
    dataset = opened(source, files)
    assert convert(dataset, tmp_path / "out") == 3
    made = LeRobotDataset(tmp_path / "out")
    assert made.catalog.version == "v3.0" and made.fps == 20 and made.cameras == dataset.cameras
    for number in range(3):
        wanted, seen = dataset.episode(number), made.episode(number)
        for key, values in wanted.items():
            np.testing.assert_array_equal(seen[key], values, err_msg=key)
    assert not check(made, stream=None)
    assert made.embodiment == dataset.embodiment and made.embodiment.action.gripper == 2
    assert {k: v for k, v in made.records[1].items() if k != "number"} == dataset.records[1]
    assert (content(source) if source.is_dir() else source.read_bytes()) == before


def test_an_interruption_costs_one_episode(source, files, tmp_path, monkeypatch):
    convert(opened(source, files), tmp_path / "whole")
    dataset = opened(source, files)
    read = dataset.source.read

    def interrupted(number, keys):
        if number == 2 and len(keys) > 3 and (tmp_path / "out/staging/episode_000001").exists():
            raise KeyboardInterrupt
        return read(number, keys)

    with monkeypatch.context() as patch:
        patch.setattr(dataset.source, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(dataset, tmp_path / "out")
    assert staged(tmp_path / "out") == {0, 1}
    with pytest.raises(ValueError, match="unfinished collection"):
        LeRobotDataset(tmp_path / "out")
    convert(opened(source, files), tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"was begun with settings\.instruction = 't', not 'u'"):
        convert(opened(source, files, instruction="u"), tmp_path / "out")


def test_a_mistake_before_the_first_episode_leaves_nothing(tmp_path, files):
    source = files.rlds(tmp_path / "toy")
    body = files.conventions | {"action": files.conventions["action"] | {"low": [-1] * 3, "high": [1] * 3}}
    first = source / "toy-train.tfrecord-00000-of-00002"
    first.write_bytes(first.read_bytes()[:300] + b"x" + first.read_bytes()[301:])
    with pytest.raises(ValueError, match=r"episode 0: .*checksum"):
        convert(opened(source, files, conventions=body), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_that_changed_is_not_continued(tmp_path, files):
    source = files.zarr(tmp_path / "push.zarr")
    convert(opened(source, files), tmp_path / "out")
    record = json.loads((source / "data/top/.zarray").read_text())
    (source / "data/top/.zarray").write_text(json.dumps(record, indent=1))
    with pytest.raises(ValueError, match=r"was begun with settings\.files"):
        convert(opened(source, files), tmp_path / "out")


def test_the_result_may_not_lie_in_the_source(tmp_path, files):
    source = files.rlds(tmp_path / "toy")
    with pytest.raises(ValueError, match=r"overlaps with .*toy, which is not touched"):
        convert(opened(source, files), source / "out")


def test_a_body_that_is_given_whole_is_kept_and_compared(tmp_path, files):
    source = files.zarr(tmp_path / "push.zarr")
    body = opened(source, files).embodiment
    (tmp_path / "body.json").write_text(json.dumps(body.to_dict()))
    assert opened(source, files, conventions=tmp_path / "body.json").embodiment == body
    small = body.to_dict() | {"state": None}
    with pytest.raises(ValueError, match=r"episode 0: .*'action' has shape \(3,\) per frame, but \(2,\) is declared"):
        action = {k: v[:2] if isinstance(v, tuple) else v for k, v in small["action"].items()} | {"gripper": None}
        convert(opened(source, files, conventions=small | {"action": action}), tmp_path / "out")


def test_formats_are_known_by_their_looks(tmp_path, files, source):
    assert NAMES[guess_format(source)] == source.name
    with pytest.raises(ValueError, match="looks like none of robomimic, zarr, rlds, lerobot: give format="):
        guess_format(tmp_path)
    with pytest.raises(ValueError, match="no format 'rlsd' can be converted; did you mean 'rlds'"):
        open_source(source, "rlsd")


def test_leaving_out_a_damaged_episode_goes_on_with_the_others(tmp_path, files):
    """Its images are damaged but its actions are not: the bounds stay, so that what was begun can go on."""
    source = files.zarr(tmp_path / "push.zarr")
    chunk = source / "data/top/2.0.0.0"  # steps 10 to 14, of episode 1
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"episode 1: .*damaged.* \(leave_out=\[1\] goes on without it\)"):
        convert(opened(source, files), tmp_path / "out")
    assert staged(tmp_path / "out") == {0}
    assert convert(opened(source, files, leave_out=[1]), tmp_path / "out") == 2
    made = LeRobotDataset(tmp_path / "out")
    assert check(made, stream=None) == [] and [record["number"] for record in made.records] == [0, 2]
    np.testing.assert_array_equal(made.episode(1)["action"], files.demonstration(2)["action"])
