"""embodied-make-scenes, from the command line to the data set, and every mistake in one line."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from embodied.cli import make_scenes as module
from embodied.cli.app import command
from embodied.progress import Progress
from envs.scenes.maker import SceneMaker
from envs.scenes.painter import Painter

SMALL = ("scenes=90", "videos=2", "size=48", "frames=6", "seed=7")


@pytest.fixture
def make(monkeypatch, tmp_path, capsys):
    """Runs the command; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["embodied-make-scenes", *words])
        status = 0
        try:
            command("make-scenes", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def content(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_bytes_do_not_depend_on_processes_nor_on_interruptions(make, tmp_path):
    status, said, shown = make("out=one", "processes=1", *SMALL)
    assert status == 0 and "90 pictures and 2 films" in said
    assert "92/92 pictures and films" in shown and "ETA" in shown
    one = content("one")
    assert len([name for name in one if name.startswith("images/")]) == 90 and "scenes.json" in one

    # killed while drawing, and while writing: part of the stretches, half a folder, and no scenes.json
    settings = json.loads((tmp_path / "one/scenes.json").read_text())["settings"]
    two = tmp_path / "two"
    two.mkdir()
    maker = SceneMaker(settings)
    painter = Painter(str(two), maker.settings)
    stretches, total = maker.begin(two)
    assert total == 92 and len(stretches) == 4
    painter.paint(*stretches[2])
    painter.close()
    (two / "images/000001.png").write_bytes(b"half a pict")
    (two / ".chat.12345678.tmp").mkdir()
    (two / ".chat.12345678.tmp/train.jsonl").write_text("half a li")
    status, said, shown = make("out=two", "processes=2", *SMALL)
    assert status == 0 and "82 drawn" in said and "92/92" in shown
    assert content("two") == one

    # and the same command once more finds it done
    assert "0 drawn" in make("out=two", "processes=2", *SMALL)[1]
    assert content("two") == one
    status, _, shown = make("out=two", "processes=2", *SMALL, "size=64")
    assert status == 2 and "holds scenes with size=48, not size=64" in shown
    assert content("two") == one
    assert {name: value for name, value in content(".").items() if not name.startswith(("one/", "two/"))} == {}


def test_a_killed_command_goes_on_where_it_was(make, tmp_path):
    words = ("out=d", "processes=1", "scenes=240", "videos=0", "size=48")
    code = "import sys; sys.argv[0] = 'embodied-make-scenes'; from embodied.cli.make_scenes import main; main()"
    path = str(Path(module.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env={"PYTHONPATH": path}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("d/parts/images-*.jsonl"))) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "d/scenes.json").exists()
    done = len(list(tmp_path.glob("d/parts/images-*.jsonl")))
    assert 1 <= done < 6
    time.sleep(1)  # its workers notice that it is gone
    status, said, _ = make(*words)
    drawn = int(said.split(" drawn")[0].split()[-1])
    assert status == 0 and 240 - 40 * (done + 1) <= drawn <= 240 - 40 * done
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "chat", "images", "official", "scenes", "scenes.json", "videos",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "out"),
        (["out=d", "scene=3"], "did you mean 'scenes'"),
        (["out=d", "scenes=0"], "scenes is a whole number from 1"),
        (["out=d", "scenes=2"], "too few for 4 splits"),
        (["out=d", "size=16"], "size is a whole number from 48"),
        (["out=d", "size=129"], "even"),
        (["out=d", "seed=-1"], "seed"),
        (["out=d", "processes=0"], "processes is a whole number, at least 1"),
        (["out=d", "image_format=tiff"], "png or jpg"),
        (["out=d", "shapes=[cube,bal,cone]"], "did you mean 'ball'"),
        (["out=d", "splits.train=0.5"], "make 1 together, got 0.7"),
        (["out=d", "things=[1,9]"], "2 to 10 things"),
        (["out=d", "maker._target_=subprocess.Popen"], "outside the allowed packages"),
        (["out=thesis.txt"], "thesis.txt is a file"),
        (["out=thesis.txt/d"], "thesis.txt"),
        (["out=."], "thesis.txt, which is no data set of scenes"),
    ],
)
def test_a_mistake_ends_in_one_line_and_destroys_nothing(make, tmp_path, words, said):
    (tmp_path / "thesis.txt").write_text("chapter 1")
    status, _, shown = make(*words)
    lines = shown.strip().splitlines()
    assert status not in (0, None)
    assert len(lines) == 1 and lines[0].startswith("embodied-make-scenes: ") and said in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "chapter 1"


def test_a_damaged_or_foreign_description_is_one_line(make, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/scenes.json").write_text("{")
    assert "is not valid JSON" in make("out=d", *SMALL)[2]
    (tmp_path / "d/scenes.json").write_text("[1]")
    assert "something else" in make("out=d", *SMALL)[2]
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["scenes.json"]


def test_a_worker_that_keeps_dying_is_reported(tmp_path, monkeypatch):
    text = "import os\nclass Painter:\n def __init__(self, **_): pass\n def paint(self, **_): os.kill(os.getpid(), 9)\n"
    (tmp_path / "dying.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EMBODIED_PLUGINS", "dying")
    maker = SimpleNamespace(painter="dying.Painter", settings={})
    with pytest.raises(
        ValueError, match=r"drawing images 0 to 39 ended 3 times: the worker process was ended by SIGKILL"
    ):
        module.paint(maker, tmp_path, [("images", 0, 40)], 1, Progress(40, "pictures", stream=None))
