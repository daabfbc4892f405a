"""A policy is what a config composes: a name, a YAML, or a node, changed by settings; mistakes are one line."""

import json
from pathlib import Path

import pytest
from fakes.policies import NoisyWalker

from embodied.cli import eval as module
from embodied.cli.app import command
from embodied.evaluation.composed import build_policy, called, compose_policy, composed_names, is_composed
from embodied.evaluation.policies import locate_policy, result_folder

SEARCH = f"hydra.searchpath=[file://{Path(__file__).parents[1] / 'fakes' / 'conf'}]"
WALKER = "_target_: fakes.policies.NoisyWalker\ngain: 0.3\nnoise: ${env.make.delay}\n"


@pytest.fixture
def evaluate(plugins, monkeypatch, tmp_path, capsys):
    """Runs `embodied-eval` in a folder of its own; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["embodied-eval", SEARCH, "env=fake/point", "episodes=1", "videos=0", *words])
        status = 0
        try:
            command("eval", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_names_are_those_of_the_yamls_and_values_come_from_the_rest_of_the_config():
    assert {"explorer", "navgpt"} <= set(composed_names())
    alone = compose_policy("explorer")
    within = compose_policy("explorer", config={"env": {"make": {"body": {"turn": 15.0, "field_of_view": 79.0}}}})
    assert alone["turn"] == 30.0 and within["turn"] == 15.0
    assert within["grid"]["surroundings"]["field_of_view"] == 79.0


def test_settings_change_what_they_name_and_nothing_else():
    plain, changed = compose_policy("explorer"), compose_policy("explorer", {"frontiers": {"least": 9}})
    assert changed["frontiers"].pop("least") == 9 and plain["frontiers"].pop("least") == 3
    assert changed == plain


@pytest.mark.parametrize("defaults", ["[explorers]", "explorer", "[policy]"])
def test_defaults_that_name_no_policy_are_refused(tmp_path, defaults):
    (tmp_path / "policy.yaml").write_text(f"defaults: {defaults}\n")
    with pytest.raises(ValueError, match=r"policy\.yaml: defaults is a list of names of explorer"):
        compose_policy(tmp_path / "policy.yaml")


def test_what_is_a_name_a_folder_a_file_and_a_node_is_told_apart():
    assert [is_composed(spec) for spec in ("explorer", "my/walk.yaml", {"_target_": "a.B"})] == [True] * 3
    assert [is_composed(spec) for spec in ("expert", "random", "runs/explorer")] == [False] * 3
    assert called({"_target_": "fakes.policies.NoisyWalker"}) == "NoisyWalker" and called("my/walk.yaml") == "walk"
    assert result_folder("explorer", "house/objectnav", 3) == Path("runs/explorer/eval/house_objectnav_3")
    assert result_folder({"_target_": "a.B"}, "x", 3) == Path("runs/B/eval/x_3")


def test_a_policy_of_ones_own_drives_by_file_and_by_node(evaluate, tmp_path):
    (tmp_path / "walk.yaml").write_text(WALKER)
    status, said, _ = evaluate("policy=walk.yaml", "settings={gain: 0.4}")
    assert status == 0 and "walk on fake/point: success" in said
    info = json.loads((tmp_path / "runs/walk/eval/fake_point_10000/eval_info.json").read_text())
    assert info["policy"] == "walk" and len(info["episodes"]) == 2
    status, said, _ = evaluate("policy={_target_: fakes.policies.NoisyWalker, gain: 0.4}")
    assert status == 0 and "NoisyWalker on fake/point: success" in said


def test_another_gain_is_another_evaluation():
    nodes = [locate_policy({"_target_": "fakes.policies.NoisyWalker", "gain": gain}).identity() for gain in (0.3, 0.4)]
    assert nodes[0] != nodes[1] and json.dumps(nodes)


def test_what_a_policy_remarks_is_printed(evaluate, monkeypatch):
    monkeypatch.setattr(NoisyWalker, "remarks", lambda self: ["it was foggy"], raising=False)
    assert "it was foggy\n" in evaluate("policy={_target_: fakes.policies.NoisyWalker}")[1]


@pytest.mark.parametrize(
    "words, problem",
    [
        (["policy=explorr"], "there is no such folder; did you mean 'explorer'?"),
        (["policy=gone.yaml"], "there is no file gone.yaml; names are explorer, "),
        (["policy=explorer"], "acts by stop, move_forward, turn_left, turn_right; "),
        (["policy=list.yaml"], "a policy's config is a mapping with a _target_"),
        (["policy=broken.yaml"], "policy=broken: "),
        (["policy=open.yaml"], "policy=open: Interpolation key 'env.make.nothing' not found"),
        (["policy={_target_: subprocess.Popen, args: [ls]}"], "is outside the allowed packages"),
        (["policy={_target_: fakes.point.PointWorld}"], "PointWorld is no embodied.interaction.Policy"),
        (["policy={_target_: fakes.policies.NoisyWalker, gian: 1}"], "takes no 'gian'; did you mean 'gain'?"),
        (["policy={_target_: fakes.policies.NoisyWalker}", "settings=3"], "settings is a mapping"),
        (
            ["policy=random", "settings={gain: 1}"],
            "one that a config composes, and random has none",
        ),
        (["policy=navgpt"], "answerer.folder is not given: add settings={answerer:{folder:...}}"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(evaluate, tmp_path, words, problem):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("_target_: [\n")
    (tmp_path / "open.yaml").write_text("_target_: fakes.policies.NoisyWalker\ngain: ${env.make.nothing}\n")
    status, said, shown = evaluate(*words)
    last = shown.strip().splitlines()[-1]
    assert status == 2 and said == "" and last.startswith("embodied-eval: ") and problem in last
    assert not list(tmp_path.rglob("eval_info.json"))


def test_what_is_built_is_told_the_body_only_where_it_asks(plugins):
    assert isinstance(build_policy({"_target_": "fakes.policies.NoisyWalker"}, "walker", None), NoisyWalker)
