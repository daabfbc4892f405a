"""`embodied-dataset` makes datasets of others: converts, merges, splits, filters and stores anew."""

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from embodied.cli import dataset as command
from embodied.data import DatasetWriter, LeRobotDataset
from embodied.data.check import check
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

GOLDEN = Path(__file__).parents[1] / "data/golden/lerobot-0.4.4"
BODY = Embodiment(
    name="toy",
    action=ActionSpec(("x", "grip"), ("m", "1"), (-1.0, -1.0), (1.0, 1.0), gripper=1, gripper_closed=-1),
    state=StateSpec(("a", "b", "c"), ("m",) * 3),
    cameras=(Camera("top", 16, 24, "toy:"),),
    rate=10,
)
CONVENTIONS = {
    "action": {"control": "delta", "space": "cartesian", "rotation": "none", "frame": "base", "units": "1"},
    "state": {"rotation": "none", "frame": "world", "units": "m"},
    "renderer": "mujoco:",
}


def demonstration(seed, length=6):
    rng = np.random.default_rng(seed)
    return {
        "observation.images.top": rng.integers(0, 256, (length, 16, 24, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
    }


def write(root, seeds, body=BODY):
    with DatasetWriter(root, body) as writer:
        for seed in seeds:
            writer.add_episode(demonstration(seed, 4 + seed), f"task {seed % 2}", {"seed": seed, "success": seed != 1})


def content(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with two datasets, a robomimic file, LeRobot's own dataset, and conventions."""
    folder = tmp_path_factory.mktemp("made") / "here"
    write(folder / "a", range(4))
    write(folder / "b", range(4, 6))
    shutil.copytree(GOLDEN, folder / "golden")
    (folder / "body.json").write_text(json.dumps(CONVENTIONS))
    with h5py.File(folder / "lift.hdf5", "w") as out:
        for number in range(2):
            frames = demonstration(number)
            out[f"data/demo_{number}/actions"] = frames["action"]
            out[f"data/demo_{number}/obs/pose"] = frames["observation.state"]
            out[f"data/demo_{number}/obs/agentview_image"] = frames["observation.images.top"]
    return folder


@pytest.fixture
def here(monkeypatch, made, tmp_path):
    """A copy of it, as the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "here"))
    return tmp_path / "here"


@pytest.fixture
def run(monkeypatch, capsys, here):
    """Runs the command: exit status, printed lines, and the lines on stderr that are no progress."""

    def start(*words):
        monkeypatch.setattr(sys, "argv", ["embodied-dataset", *map(str, words)])
        status = 0
        try:
            command.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out.splitlines(), [line for line in err.splitlines() if "ETA" not in line]

    return start


CONVERT = ["action=convert", "root=lift.hdf5", "fps=20", "instruction=lift", "keys.state=[obs/pose]"]


def test_a_foreign_file_becomes_a_dataset_that_passes(run, here):
    status, lines, errors = run(*CONVERT, "conventions=body.json", "out=lift", "robot=panda")
    assert status == 0 and errors == [] and lines[0].startswith("lift: 2 episodes, 12 frames, 1 tasks (")
    dataset = LeRobotDataset(here / "lift")
    for number in range(2):
        for key, values in demonstration(number).items():
            seen = dataset.episode(number)[key.replace("top", "agentview")]
            np.testing.assert_array_equal(seen, values)
    assert dataset.embodiment.name == "panda" and dataset.embodiment.rate == 20
    assert run("action=check", "root=lift")[1] == ["lift: 2 episodes, 12 frames: all as it should be"]


def test_cameras_and_columns_have_the_names_asked_for(run, here):
    words = ["keys.cameras={front:obs/agentview_image}", "keys.action=['actions[:1]','actions[1:]']"]
    status, _, errors = run(
        *CONVERT, *words, "keys.extra={next.height:'obs/pose[2:]'}", "conventions=body.json", "out=lift"
    )
    assert status == 0, errors
    episode = LeRobotDataset(here / "lift").episode(1)
    np.testing.assert_array_equal(episode["action"], demonstration(1)["action"])
    np.testing.assert_array_equal(episode["next.height"], demonstration(1)["observation.state"][:, 2])
    assert "observation.images.front" in episode


def test_a_foreign_lerobot_dataset_becomes_one_with_conventions(run, here):
    status, lines, errors = run("action=convert", "root=golden", "conventions=body.json", "out=c")
    assert status == 0 and lines[0].startswith("c: 3 episodes, 18 frames, 2 tasks"), errors
    assert LeRobotDataset(here / "c").embodiment.camera_names == ("top", "wrist")


def test_merge_split_filter_and_reencode_from_the_command_line(run, here):
    assert run("action=merge", "roots=[a,b]", "out=c")[1][0].startswith("c: 6 episodes, 39 frames, 2 tasks (")
    status, lines, _ = run("action=split", "root=c", "parts={train:0.7,val:0.3}", "seed=1", "out=parts")
    assert (
        status == 0 and lines[0].startswith("parts/train: 4 episodes") and lines[1].startswith("parts/val: 2 episodes")
    )
    words = ["tasks=['task 1']", "success=true", "min_length=6", "episodes=[3,4,5]"]
    assert run("action=filter", "root=c", *words, "out=some")[1][0].startswith("some: 2 episodes")
    status, lines, _ = run("action=reencode", "root=some", "image_storage=video", "size=[64,96]", "crf=20", "out=film")
    assert status == 0 and lines[0].startswith("film: 2 episodes")
    for root in ("c", "parts/train", "parts/val", "some", "film"):
        assert check(LeRobotDataset(here / root), stream=None) == []
    assert [record["seed"] for record in LeRobotDataset(here / "film").records] == [3, 5]


@pytest.mark.parametrize(
    "words, says",
    [
        (["action=convert", "root=lift.hdf5"], "out is not given: action=convert needs root=, out="),
        (["action=convert", "root=absent.hdf5", "out=c"], "absent.hdf5"),
        (["action=convert", "root=body.json", "out=c"], "looks like none of robomimic, zarr, rlds, lerobot"),
        (["action=convert", "root=body.json", "format=robomimic", "out=c"], "body.json is not an HDF5 file"),
        (["action=convert", "root=lift.hdf5", "format=robomimik", "out=c"], "did you mean 'robomimic'?"),
        ([*CONVERT, "out=c"], "lift.hdf5 does not say what its actions mean, and conventions are not guessed"),
        ([*CONVERT, "conventions=body.json", "out=c", "keys.state=[obs/poes]"], "did you mean 'obs/pose'?"),
        ([*CONVERT, "conventions=body.json", "out=c", "keys.stat=[obs/pose]"], "did you mean 'keys.state'"),
        ([*CONVERT, "conventions=body.json", "out=c", "image_storage=gif"], "image or video, got 'gif'"),
        ([*CONVERT, "conventions=body.json", "out=a"], "a was begun"),
        (["action=convert", "root=golden", "out=c", "fps=3"], "tells this itself: leave out fps"),
        (["action=convert", "root=golden", "out=c"], "conventions are not guessed"),
        (["action=merge", "out=c"], "roots is not given"),
        (["action=merge", "roots=[a]", "out=c"], "at least two datasets"),
        (["action=merge", "roots=[a,nowhere]", "out=c"], "there is no dataset at nowhere"),
        (["action=merge", "roots=[a,b]", "out=b"], "overlaps with b"),
        (["action=split", "root=a", "out=c"], "parts is not given"),
        (["action=split", "root=a", "out=c", "parts={train:0.5}"], "add up to 0.5, not 1"),
        (["action=split", "root=a", "out=c", "parts={train:0.9,val:x}"], "positive fractions"),
        (["action=filter", "root=a", "out=c"], "nothing to filter by"),
        (["action=filter", "root=a", "out=c", "tasks=[task 7]"], "no task 'task 7'"),
        (["action=filter", "root=a", "out=c", "min_length=70"], "none of the 4 episodes of a passes"),
        (["action=reencode", "root=a", "out=c", "codec=libx266"], "cannot be encoded with 'libx266'"),
        (["action=reencode", "root=a", "out=c", "size=[96]"], "size is [height, width]"),
        (["action=reencode", "root=a", "out=c", "size=[15,24]", "image_storage=video"], "even height and width"),
        (["action=filter", "root=a", "out=c", "min_length=long"], "min_length is a whole number, got 'long'"),
        (["action=filter", "root=a", "out=c", "episodes=[x]"], "episodes is [number, ...], got ['x']"),
        (["action=filter", "root=a", "out=c", "success=1"], "success is true or false, got 1"),
        (["action=reencode", "root=a", "out=c", "size=96"], "size is [height, width], got 96"),
        ([*CONVERT, "out=c", "keys.extra={action:rewards}"], "keys.extra cannot make 'action'"),
        (["action=reencode", "root=golden", "out=c"], "conventions are not guessed"),
    ],
)
def test_a_mistake_ends_in_one_line_and_changes_nothing(run, here, words, says):
    before = content(here)
    status, lines, errors = run(*words)
    assert status == 2 and lines == []
    assert len(errors) == 1 and errors[0].startswith("embodied-dataset: ") and says in errors[0], errors
    assert content(here) == before


def test_bodies_that_differ_are_not_merged(run, here):
    other = BODY.to_dict() | {"action": BODY.to_dict()["action"] | {"gripper_closed": 1}}
    write(here / "other", [0], Embodiment.from_dict(other))
    status, _, errors = run("action=merge", "roots=[a,other]", "out=c")
    assert status == 2 and errors == [
        "embodied-dataset: a and other disagree on action.gripper_closed: -1 (a) against 1 (other)"
    ]
    assert not (here / "c").exists()


def test_a_damaged_demonstration_is_named_and_those_before_it_are_kept(run, here):
    with h5py.File(here / "lift.hdf5", "a") as file:
        file["data/demo_1/actions"][2, 0] = np.nan
    body = CONVENTIONS | {"action": CONVENTIONS["action"] | {"low": [-1, -1], "high": [1, 1]}}
    (here / "body.json").write_text(json.dumps(body))
    status, _, errors = run(*CONVERT, "conventions=body.json", "out=c")
    problem = "lift.hdf5: demo_1: 'action' is not finite at step 2 (leave_out=[1] goes on without it)"
    assert status == 2 and errors == [f"embodied-dataset: {problem}"]
    assert [path.name for path in (here / "c/staging").iterdir()] == ["episode_000000"]
    assert run(*CONVERT, "conventions=body.json", "out=c", "leave_out=[1]")[1][0].startswith("c: 1 episodes")
    assert check(LeRobotDataset(here / "c"), stream=None) == []
    assert "leave_out" not in (here / "c/meta/collection.json").read_text()
    assert "2 cannot be left out" in run(*CONVERT, "conventions=body.json", "out=d", "leave_out=[2]")[2][0]


def test_a_file_that_changed_is_not_continued(run, here):
    assert run(*CONVERT, "conventions=body.json", "out=c")[0] == 0
    with h5py.File(here / "lift.hdf5", "a") as file:
        del file["data/demo_1"]
    assert "c was begun with " in run(*CONVERT, "conventions=body.json", "out=c")[2][0]


def test_conventions_are_for_the_one_that_has_none(run, here):
    own = LeRobotDataset(here / "a").embodiment.to_dict()
    (here / "own.json").write_text(json.dumps(own))
    shutil.copytree(here / "b", here / "foreign")
    (here / "foreign/meta/embodiment.json").unlink()
    assert run("action=merge", "roots=[a,foreign]", "conventions=own.json", "out=c")[1][0].startswith("c: 6 episodes")
