"""embodied-collect, from the command line to the dataset, and every mistake in one line."""

import json
from pathlib import Path

import pytest

from embodied.cli import collect as module
from embodied.cli.app import command

CONFIGS = Path(__file__).parents[1] / "fakes" / "conf"


@pytest.fixture
def collect(plugins, monkeypatch, tmp_path, capsys):
    """Runs `embodied-collect` with a user's own environment; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        own = [] if any("metaworld" in word for word in words) else [f"hydra.searchpath=[file://{CONFIGS}]"]
        monkeypatch.setattr("sys.argv", ["embodied-collect", *own, *words])
        status = 0
        try:
            command("collect", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_a_users_own_environment_is_collected_from(collect, tmp_path):
    status, said, shown = collect(
        "env=fake/point", "episodes=3", "out=data/point", "noise=0.1", "env.expert.fails=5", "seed=1"
    )
    assert status == 0
    assert "data/point: 6 episodes, 6 of them new" in said and "failed on 2 seeds" in said
    assert "6/6 episodes" in shown and "ETA" in shown
    info = json.loads((tmp_path / "data/point/meta/info.json").read_text())
    assert (info["codebase_version"], info["total_episodes"], info["fps"]) == ("v3.0", 6, 10)
    assert (
        "5 of them new"
        not in collect("env=fake/point", "episodes=3", "out=data/point", "noise=0.1", "env.expert.fails=5", "seed=1")[1]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # nothing beside what was asked for


@pytest.mark.parametrize(
    "words, said",
    [
        (["out=d"], "env"),
        (["env=fake/point"], "out"),
        (["env=metaworld/reech", "out=d"], "did you mean 'metaworld/reach'"),
        (["env=metaworld/reach", "out=d", "episode=3"], "did you mean 'episodes'"),
        (["env=fake/point", "out=d", "episodes=0"], "episodes"),
        (["env=fake/point", "out=d", "noise=-1"], "noise"),
        (["env=fake/point", "out=d", "image_storage=jpeg"], "image or video"),
        (["env=fake/point", "out=d", "env.make.broken=true"], "could not be built: no GL library"),
        (["env=fake/point", "out=d", "env.expert=null"], "no expert"),
        (["env=fake/point", "out=d", "env.make._target_=fakes.point.Pointworld"], "did you mean 'PointWorld'"),
        (["env=fake/point", "out=d", "env.make._target_=subprocess.Popen"], "outside the allowed packages"),
        (["env=fake/point", "out=thesis.txt"], "thesis.txt is a file"),
        (["env=fake/point", "out=."], "thesis.txt"),
        (["env=fake/point", "out=thesis.txt/d"], "thesis.txt"),
    ],
)
def test_a_mistake_ends_in_one_line_and_destroys_nothing(collect, tmp_path, words, said):
    (tmp_path / "thesis.txt").write_text("chapter 1")
    status, _, shown = collect(*words)
    lines = shown.strip().splitlines()
    assert status not in (0, None)
    assert len(lines) == 1 and lines[0].startswith("embodied-collect: ") and said in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "chapter 1"
