"""`embodied-dataset` prints, checks and renders a dataset, and says in one line what it cannot."""

import json
import sys

import av
import numpy as np
import pytest

from embodied.cli import dataset as command
from embodied.data import DatasetWriter
from embodied.data.lerobot import begin, stage_episode
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

BODY = Embodiment(
    name="toy",
    action=ActionSpec(("x", "grip"), ("m", "1"), (-1.0, -1.0), (1.0, 1.0), gripper=1, gripper_closed=-1),
    state=StateSpec(("a", "b", "c"), ("m",) * 3),
    cameras=(Camera("top", 32, 48, "toy:"), Camera("wrist", 32, 32, "toy:")),
    rate=10,
)


def demonstration(seed, length=12):
    rng = np.random.default_rng(seed)
    return {
        "observation.images.top": rng.integers(0, 256, (length, 32, 48, 3), dtype=np.uint8),
        "observation.images.wrist": np.full((length, 32, 32, 3), (250, 10, 10), np.uint8),
        "observation.state": rng.normal(size=(length, 3)),
        "action": rng.uniform(-1, 1, (length, 2)),
    }


@pytest.fixture
def root(tmp_path):
    with DatasetWriter(tmp_path / "toy", BODY) as writer:
        for seed in range(2):
            writer.add_episode(demonstration(seed), "open the door", {"seed": seed, "success": seed == 0})
    return tmp_path / "toy"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the command: exit status, printed lines, and the lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def start(*words):
        monkeypatch.setattr(sys, "argv", ["embodied-dataset", *map(str, words)])
        status = 0
        try:
            command.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return start


def test_an_action_that_is_an_index_says_of_what(run, tmp_path):
    names = ("stop", "forward", "left")
    action = ActionSpec(names, ("1",) * 3, (0.0,) * 3, (1.0,) * 3, "categorical", "none", "base")
    with DatasetWriter(
        tmp_path / "walks", Embodiment("walker", action, None, (Camera("top", 8, 8, "toy:"),), 1.0)
    ) as w:
        frames = {"observation.images.top": np.zeros((3, 8, 8, 3), np.uint8), "action": np.array([[1], [2], [0]])}
        w.add_episode(frames, "walk", {"seed": 0, "success": True})
    lines = run("action=info", f"root={tmp_path / 'walks'}")[1]
    assert any("action: float32 1: index" in line for line in lines)
    assert any("categorical" in line and "indices of stop, forward, left" in line for line in lines)


def test_it_prints_what_is_there(run, root):
    status, lines, _ = run(f"root={root}")
    text = "\n".join(lines)
    assert status == 0
    for part in ("LeRobot v3.0", "2, of 12 to 12 frames", "24, 0:02 at 10 Hz", "1 of 2", "32 x 48, stored as image"):
        assert part in text, part
    assert "open the door" in text and "continuous, delta, cartesian" in text and "grip -1 closes" in text


def test_a_sound_dataset_passes(run, root):
    status, lines, _ = run("action=check", f"root={root}")
    assert status == 0 and lines == [f"{root}: 2 episodes, 24 frames: all as it should be"]
    status, lines, _ = run("action=check", f"root={root}", "decode=false")
    assert status == 0 and lines[-1].endswith("(images were not decoded)")


def test_a_broken_dataset_fails_with_a_line_per_problem(run, root):
    file = root / "data/chunk-000/file-000.parquet"
    content = bytearray(file.read_bytes())
    at = content.index(b"IDAT")
    content[at + 8 : at + 30] = bytes(22)
    file.write_bytes(content)
    status, lines, _ = run("action=check", f"root={root}")
    assert status == 1
    assert lines[0].startswith("broken  episode 0: ") and "frame 0" in lines[0]
    assert lines[-1] == f"{root}: 2 episodes, 24 frames: 1 problems in 1 episodes"


def test_an_episode_becomes_a_film(run, root, tmp_path):
    status, lines, _ = run("action=render", f"root={root}", "episode=1", "out=films/one.mp4")
    assert status == 0 and lines == ["films/one.mp4"]
    with av.open(str(tmp_path / "films/one.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert float(film.streams.video[0].average_rate) == 10
    assert len(frames) == 12
    red = (frames[5].astype(int) - (250, 10, 10)).__abs__().max(-1) < 30
    assert red.sum() > 0.9 * 320 * 320  # the wrist camera, enlarged
    plots = frames[0].astype(int)[380:]
    assert (np.abs(plots - frames[11][380:]).max(-1) > 100).any()  # the cursor moved
    assert not (tmp_path / "films").joinpath(".one.mp4.tmp").exists() and len(list((tmp_path / "films").iterdir())) == 1


def test_some_cameras_and_a_name_of_its_own(run, root, tmp_path):
    status, lines, _ = run("action=render", f"root={root}", "cameras=[top]")
    assert status == 0 and lines == ["episode_000000.mp4"]
    with av.open(str(tmp_path / "episode_000000.mp4")) as film:
        assert film.streams.video[0].width == 496


def test_an_interrupted_collection_can_be_finished(run, tmp_path):
    begin(tmp_path / "half", BODY)
    stage_episode(tmp_path / "half", 3, demonstration(3), "t")
    status, _, errors = run(f"root={tmp_path / 'half'}")
    assert status == 2 and "unfinished collection (1 episodes there)" in errors[0] and "action=finalize" in errors[0]
    status, lines, _ = run("action=finalize", f"root={tmp_path / 'half'}")
    assert status == 0 and lines == [f"{tmp_path / 'half'}: 1 episodes"]
    assert run(f"root={tmp_path / 'half'}")[0] == 0


@pytest.mark.parametrize(
    "words, says",
    [
        (["action=info", "root=nowhere"], "there is no dataset at nowhere"),
        (["root=tyo"], "there is no dataset at tyo; did you mean 'toy'?"),
        (["root=."], "is not a LeRobot dataset: it has no meta/info.json; there are datasets in it: toy"),
        (["action=chekc", "root=toy"], "no action 'chekc'; did you mean 'check'?"),
        (["action=render", "root=toy", "episode=2"], "has episodes 0 to 1, not 2"),
        (["action=render", "root=toy", "cameras=[tpo]"], "has no camera 'tpo'; did you mean 'top'?"),
        (["action=render", "root=toy", "out=toy/meta/info.json/film.mp4"], "toy/meta/info.json"),
        (["action=finalize", "root=nowhere"], "holds no staged episode"),
        (["root=toy", "conventions=absent.json"], "absent.json"),
        (["rot=toy"], "did you mean 'root'"),
        ([], "root"),
    ],
)
def test_a_mistake_ends_in_one_line_and_changes_nothing(run, root, words, says):
    before = {f: f.read_bytes() for f in root.rglob("*") if f.is_file()}
    status, lines, errors = run(*words)
    assert status not in (0, 1) and lines == []
    assert len(errors) == 1 and errors[0].startswith("embodied-dataset: ") and says in errors[0], errors
    assert {f: f.read_bytes() for f in root.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize("file", ["meta/info.json", "meta/tasks.parquet", "data/chunk-000/file-000.parquet"])
def test_a_damaged_file_is_named(run, root, file):
    (root / file).write_bytes((root / file).read_bytes()[:50])
    status, _, errors = run("action=render", f"root={root}")
    assert status == 2 and len(errors) == 1 and file in errors[0], errors


def test_conventions_of_another_dataset_are_told_by_a_file(run, root, tmp_path):
    record = json.loads((root / "meta/embodiment.json").read_text())
    (root / "meta/embodiment.json").unlink()
    assert any("conventions are not guessed" in line for line in run(f"root={root}")[1])
    (tmp_path / "body.json").write_text(json.dumps(record))
    status, lines, _ = run(f"root={root}", "conventions=body.json")
    assert status == 0 and any("grip -1 closes" in line for line in lines)
