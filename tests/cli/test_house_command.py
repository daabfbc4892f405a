"""embodied-house, from the command line to each kind of file, and every mistake in one line."""

import json

import numpy as np
import pytest

from embodied.cli import house as module
from embodied.cli.app import command
from envs.house.generate import generate
from envs.house.spec import HouseSpec


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command in an empty folder; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def go(*words):
        monkeypatch.setattr("sys.argv", ["embodied-house", *words])
        status = 0
        try:
            command("house", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return go


def test_a_seed_becomes_json_that_becomes_mjcf(run, tmp_path):
    status, said, _ = run("out=a/house.json", "seed=5", "exporter.options.height=2.8")
    house = HouseSpec.load(tmp_path / "a/house.json")
    assert status == 0 and house == generate(5, height=2.8)
    assert f"{len(house.rooms)} rooms, {len(house.objects)} objects" in said
    assert run("out=b.xml", "house=a/house.json")[0] == 0
    assert (tmp_path / "b.xml").read_text().startswith('<mujoco model="b">')


@pytest.mark.simulator("numba")
def test_a_picture_to_look_at(run, tmp_path):
    from PIL import Image

    assert run("out=house.png", "seed=3", "size=128")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "house.png"))
    house = generate(3)
    x0, y0, x1, y1 = house.bounds
    assert picture.shape == (128, round((x1 - x0) / (y1 - y0) * 128) + 2 + 128, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 300
    room = max(house.rooms, key=lambda room: room.area)
    mean = (np.array(room.floor.primary) + room.floor.secondary) // 2
    assert (picture[:, :-130] == mean).all(-1).mean() > 0.05


@pytest.mark.simulator("numba")
def test_gltf_and_what_habitat_needs(run, tmp_path):
    status, said, _ = run("out=house.glb", "habitat=true")
    assert status == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"house.glb", "house.semantic.glb", "house.semantic.txt", "house.stage_config.json"}
    assert all(name in said for name in written)
    assert json.loads((tmp_path / "house.stage_config.json").read_text())["render_asset"] == "house.glb"


@pytest.mark.parametrize(
    "words, says",
    [
        (["out=house.gltf"], "did you mean '.glb'"),
        (["out=house"], ".xml (MJCF, for MuJoCo)"),
        (["out=house.xml", "habitat=true"], "habitat=true is for a .glb"),
        (["out=house.xml", "house=nowhere.json"], "nowhere.json"),
        (["out=house.xml", "house=broken.json"], "broken.json is not valid JSON"),
        (["out=house.xml", "house=other.json"], "other.json is not a house"),
        (["out=house.xml", "seed=-1"], "should be 0 or more"),
        (["out=house.xml", "seed=one"], "whole numbers"),
        (["out=house.png", "size=9"], "64 to 4096 pixels"),
        (["out=house.xml", "exporter.options.height=9"], "from 2.4 to 5 m"),
        (["out=house.xml", "exporter.options.hight=3"], "height"),
        ([], "out"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, tmp_path, words, says):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    status, _, problem = run(*words)
    assert status == 2 and says in problem and problem.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"broken.json", "other.json"}
