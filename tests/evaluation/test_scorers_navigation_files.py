"""embodied-score on navigation's own files: the official ones where they are at hand, and every mistake in one line."""

import gzip
import itertools
import json
import tarfile
from pathlib import Path

import networkx
import numpy as np
import pytest

from embodied.cli import score as module
from embodied.cli.app import command
from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.navigation.graphs import Graphs
from embodied.evaluation.scorers.navigation.open_eqa import OpenEQAAnswers
from embodied.evaluation.scorers.navigation.r2r import RoomToRoom
from embodied.evaluation.scorers.navigation.reading import Episodes, Instructions, viewpoints
from embodied.evaluation.scorers.navigation.vlnce import VLNCE
from embodied.evaluation.scorers.reading import Skipped, read_gzip

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
official = pytest.mark.skipif(not DATA.is_dir(), reason=f"the official files are not in {DATA}")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs `embodied-score`; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def words(*words):
        monkeypatch.setattr("sys.argv", ["embodied-score", *words])
        status = 0
        try:
            command("score", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return words


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """The 90 real houses."""
    folder = tmp_path_factory.mktemp("houses")
    with tarfile.open(DATA / "r2r/connectivity.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "connectivity"


@official
def test_the_official_shortest_paths_are_perfect(run, houses, tmp_path):
    status, said, _ = run(
        "profile=r2r",
        f"predictions={DATA / 'r2r/val_unseen_shortest_agent.json'}",
        f"references={DATA / 'r2r/R2R_val_unseen.json'}",
        f"profile.scorer.connectivity={houses}",
        "out=o",
    )
    assert status == 0, said
    scores = json.loads((tmp_path / "o/eval_info.json").read_text())["scores"]
    values = {name: metric["value"] for name, metric in scores.items()}
    assert scores["success"]["n"] == 2349
    assert values["success"] == values["oracle_success"] == 1 and values["spl"] == pytest.approx(1, abs=1e-12)
    assert values["navigation_error"] == values["oracle_error"] == 0
    assert values["path_length"] == pytest.approx(9.479686, abs=1e-6)


@official
def test_real_houses_have_the_distances_that_networkx_finds(houses):
    graphs = Graphs(houses)
    assert len(graphs.scans) == 90
    for scan in graphs.scans[:3]:
        house, graph = graphs.house(scan), networkx.Graph()
        rows = json.loads((houses / f"{scan}_connectivity.json").read_text())
        for one, other in itertools.product(rows, range(len(rows))):
            if one["included"] and rows[other]["included"] and one["unobstructed"][other]:
                ends = [np.array(row["pose"])[[3, 7, 11]] for row in (one, rows[other])]
                graph.add_edge(one["image_id"], rows[other]["image_id"], weight=np.linalg.norm(ends[0] - ends[1]))
        for name, lengths in networkx.all_pairs_dijkstra_path_length(graph):
            ours = house.distances[house.places[name]]
            assert all(ours[house.places[other]] == pytest.approx(length) for other, length in lengths.items())


@official
def test_paths_as_annotated_are_followed_perfectly_and_their_lengths_are_as_given(houses):
    scorer = RoomToRoom(str(houses))
    rows = Instructions(per_path=3).read(DATA / "r2r/R2R_val_unseen.json", Skipped())
    assert len(rows) == 2349
    for name, (where, one) in list(rows.items())[::30]:
        found = scorer.episode(Record(name, {"path": one["path"]}, one, where))
        assert found["success"] == found["ndtw"] == found["sdtw"] == 1 and found["cls"] == pytest.approx(1)
        assert found["path_length"] == pytest.approx(one["distance"], abs=0.02)


@official
def test_the_splits_have_as_many_instructions_as_the_official_scorer_counts():
    counts = {"train": 14025, "val_seen": 1020, "val_unseen": 2349}
    for split, count in counts.items():
        assert len(Instructions(per_path=3).read(DATA / f"r2r/R2R_{split}.json", Skipped())) == count
    assert len(Instructions().read(DATA / "r2r/R2R_train.json", Skipped())) == 14039


@official
def test_continuous_episodes_and_questions_load():
    assert len(Episodes().read(DATA / "r2r_ce/val_unseen.json.gz", Skipped())) == 1839
    skipped = Skipped(allowed=True)  # this file has most of its ids several times: they are counted, not overwritten
    found = Episodes().read(DATA / "objectnav/17DRP5sb8fy.json.gz", skipped)
    assert len(found) == 11364 and len(found) + len(skipped.reasons) == 50000
    questions = OpenEQAAnswers(id="question_id").read(DATA / "open_eqa/open-eqa-v0.json", Skipped())
    assert len(questions) == 1636
    assert sum("extra_answers" in question for _, question in questions.values()) == 263


@official
def test_who_walks_the_ground_truth_of_vlnce_has_a_similarity_of_one():
    truths = read_gzip(DATA / "r2r_ce/val_unseen_gt.json.gz")
    scorers = [VLNCE(str(DATA / "r2r_ce/val_unseen_gt.json.gz"), fast=fast) for fast in (True, False)]
    for name in list(truths)[:5]:
        positions = np.array(truths[name]["locations"])
        did = {"positions": positions, "distances": np.linspace(9, 0, len(positions)), "stop": True}
        for scorer in scorers:
            assert scorer.episode(Record(name, did, {}))["ndtw"] == pytest.approx(1)


@pytest.mark.parametrize(
    "steps, path",
    [
        (["a", "b"], ["a", "b"]),
        ([["a", 0.5, 0], ["a", 1, 0], ["b", 1, 0]], ["a", "a", "b"]),
        ([["a"], ["b", "c"], ["d"]], ["a", "b", "c", "d"]),
        ([], None),
        ("ab", None),
        ([["a", 1]], None),
        ([["a", "b", 1]], None),
        ([["a", float("nan"), 0]], None),
        ([1, 2], None),
        (None, None),
    ],
)
def test_trajectories_in_every_notation(steps, path):
    assert viewpoints(steps) == path


def graph(names="ab"):
    pose = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    rows = []
    for place, name in enumerate(names):
        near = [abs(place - other) == 1 for other in range(len(names))]
        rows.append(
            {"image_id": name, "pose": [*pose[:3], 2 * place, *pose[4:]], "included": True, "unobstructed": near}
        )
    return rows


@pytest.fixture
def room(tmp_path):
    """Two paths of two instructions each in a house of a row of viewpoints."""
    (tmp_path / "g").mkdir()
    (tmp_path / "g/home_connectivity.json").write_text(json.dumps(graph("abcde")))
    paths = [{"path_id": n, "scan": "home", "path": list("abc"), "instructions": ["Go.", "Walk."]} for n in (1, 2)]
    (tmp_path / "r.json").write_text(json.dumps(paths))

    def predict(*changes):
        rows = [{"instr_id": f"{n}_{k}", "trajectory": [[v, 0, 0] for v in "abc"]} for n in (1, 2) for k in (0, 1)]
        for change in changes:
            change(rows)
        (tmp_path / "p.json").write_text(json.dumps(rows))
        return (
            "profile=r2r",
            "predictions=p.json",
            "references=r.json",
            "profile.scorer.connectivity=g",
            "profile.references.per_path=null",
        )

    return predict


def set_to(place, **what):
    return lambda rows: rows[place].update(what)


@pytest.mark.parametrize(
    "change, said",
    [
        (set_to(1, trajectory=[["a", 0, 0], ["c", 0, 0]]), "r.json: row 0: sample 1_1 has a trajectory that jumps"),
        (set_to(1, trajectory=["a", "q"]), "viewpoint q is not in the graph of home"),
        (set_to(1, trajectory=["b"]), "sample 1_1 starts at a, but its trajectory starts at b"),
        (set_to(1, trajectory=[]), "p.json: row 1: sample 1_1 has no trajectory"),
        (set_to(1, trajectory="left"), "p.json: row 1: sample 1_1 has no trajectory"),
        (set_to(1, instr_id="1_0"), "p.json: row 1: sample 1_0 is there twice, first at p.json: row 0"),
        (set_to(1, instr_id="9_0"), "p.json: row 1: sample 9_0 is not in r.json"),
        (set_to(1, instr_id=""), "p.json: row 1 has no id (instr_id, inst_idx, episode_id)"),
        (lambda rows: rows.pop(), "p.json has no prediction for sample 2_1"),
    ],
)
def test_a_wrong_trajectory_ends_in_one_line_or_is_skipped_and_counted(run, room, change, said):
    words = room(change)
    status, out, err = run(*words)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1 and "skip=true" in err
    status, out, err = run(*words, "skip=true")
    assert status == 0 and "samples were skipped; the first: " in out and said in out
    assert "r2r success: 100.0 %" in out and "n = 3" in out


def test_wrong_files_end_in_one_line(run, room, tmp_path):
    words = room()
    (tmp_path / "connectivity_graphs.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "p.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[]" * 99)[:-5])
    (tmp_path / "no.json.gz").write_bytes(gzip.compress(b"not json"))
    (tmp_path / "fake.json.gz").write_bytes(b"[]")
    for change, said in (
        ("profile.scorer.connectivity=connectivity_graphs.pkl", "is a pickle, which can run code when it is read"),
        ("profile.scorer.connectivity=none", "there is no folder none"),
        ("predictions=p.pkl", "p.pkl is a pickle"),
        ("predictions=cut.json.gz", "cut.json.gz is no whole gzip file"),
        ("predictions=fake.json.gz", "fake.json.gz is no whole gzip file"),
        ("predictions=no.json.gz", "no.json.gz holds no valid JSON"),
        ("references=p.json", "row 0 has no 'path_id'"),
        ("profile.scorer.threshold=0", "threshold is more than 0"),
        ("profile.scorer.reference_length=long", "reference_length is shortest or annotated"),
    ):
        status, _, err = run(*words, change, "out=o")
        assert status == 2 and said in err and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "o").exists()


def test_without_the_graphs_it_says_what_is_missing(run, room):
    status, _, err = run(*room()[:3])
    assert status == 2 and "connectivity" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "change, said",
    [
        ({"positions": [[0, 0]]}, "p.json: row 1: episode 1 has no 'positions'"),
        ({"positions": []}, "p.json: row 1: episode 1 has no 'positions'"),
        ({"distances": [1]}, "needs 'distances' to the goal, finite, in metres, one for each of its 2 positions"),
        ({"distances": [1, float("inf")]}, "needs 'distances'"),
        ({"distances": [1, -1]}, "needs 'distances'"),
        ({"stop": 1}, "episode 1 has 'stop' 1: true or false is needed"),
        ({"episode_id": "0"}, "sample 0 is there twice"),
    ],
)
def test_a_wrong_episode_ends_in_one_line_or_is_skipped_and_counted(run, tmp_path, change, said):
    episodes = [{"episode_id": n, "start_position": [0, 0, 0], "goals": []} for n in range(3)]
    (tmp_path / "r.json.gz").write_bytes(gzip.compress(json.dumps({"episodes": episodes}).encode()))
    rows = [
        {"episode_id": str(n), "positions": [[0, 0, 0], [1, 0, 0]], "distances": [1, 0.1], "stop": True}
        for n in range(3)
    ]
    words = ("profile=habitat", "predictions=p.json", "references=r.json.gz")
    (tmp_path / "p.json").write_text(json.dumps(rows))
    status, out, _ = run(*words)
    assert status == 0 and "habitat spl: 100.0 %" in out
    rows[1].update(change)
    (tmp_path / "p.json").write_text(json.dumps(rows))
    status, _, err = run(*words)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1
    status, out, _ = run(*words, "skip=true")
    assert status == 0 and said in out and "n = 2" in out


def test_every_other_profile_runs_from_its_own_kind_of_file(run, room, tmp_path):
    room()
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/home_c.json").write_text('{"c": {"5": {"visible_pos": [1], "bbox2d": [[0, 0, 1, 1]]}}}')
    path, walk = list("abc"), [[v, 0, 0] for v in "abc"]
    where = {"scan": "home", "path": path, "instructions": ["Go."]}
    corner = {"heading": 1.0, "elevation": 0.0}
    corners = dict.fromkeys(("left_top", "right_top", "right_bottom", "left_bottom"), corner)
    place = {"positions": [[0, 0, 0], [2, 0, 0]], "distances": [2, 0], "stop": True}
    graphs = "profile.scorer.connectivity=g"
    cases = {
        "reverie": (
            [{**where, "id": "1_5", "objId": 5}],
            [{"instr_id": "1_5_0", "trajectory": walk, "predObjId": "5"}],
            (graphs, "profile.scorer.boxes=boxes"),
            "rgspl: 100.0 %",
        ),
        "soon": (
            [{**where, "path_id": "1", "bboxes": {"c": {"target": corners}}}],
            [
                {
                    "instr_id": "1_0",
                    "trajectory": {"path": [["a"], ["b", "c"]], "obj_heading": [0], "obj_elevation": [0]},
                }
            ],
            (graphs,),
            "grounding: 0.0 %",
        ),
        "cvdn": (
            [{"inst_idx": 3, "scan": "home", "planner_path": path, "player_path": path, "end_panos": ["c"]}],
            [{"inst_idx": 3, "trajectory": walk}],
            (graphs,),
            "goal_progress: 4 ",
        ),
        "objectnav": (
            {"episodes": [{"episode_id": "0", "object_category": "bed"}]},
            [{"episode_id": "0", **place}],
            (),
            "success: 100.0 %",
        ),
        "vlnce": (
            {"episodes": [{"episode_id": 1}]},
            [{"episode_id": 1, **place}],
            ("profile.scorer.ground_truth=gt.json",),
            "ndtw: 100.0 %",
        ),
        "multion": (
            {"episodes": [{"episode_id": "0", "goals": [{}]}]},
            [{"episode_id": "0", **place, "found": [[1, 0.5]], "goal_distances": [2]}],
            (),
            "ppl: 100.0 %",
        ),
        "eqa": (
            {"episodes": [{"episode_id": 0, "question": {"answer_text": "brown", "question_type": "color"}}]},
            [{"episode_id": 0, "id": 0, "answer": "Brown"}],
            (),
            "accuracy: 100.0 %",
        ),
        "sqa3d": (
            {"annotations": [{"question_id": 1, "answers": [{"answer": "left"}], "answer_type": "other"}]},
            [{"question_id": 1, "answer": "on the left"}],
            (),
            "refined_match: 100.0 %",
        ),
        "open-eqa": (
            [{"question_id": "x", "question": "What?", "answer": "lamp", "category": "c"}],
            [{"question_id": "x", "answer": "lamp"}],
            ("profile.scorer.judge.command='echo Your mark: 4'",),
            "correctness: 75.0 %",
        ),
    }
    (tmp_path / "gt.json").write_text(json.dumps({"1": {"locations": [[0, 0, 0], [2, 0, 0]]}}))
    for name, (references, predictions, more, said) in cases.items():
        (tmp_path / "r.json").write_text(json.dumps(references))
        (tmp_path / "p.json").write_text(json.dumps(predictions))
        status, out, err = run(f"profile={name}", "predictions=p.json", "references=r.json", "out=o", *more)
        assert status == 0 and f"{name} {said}" in out, (name, out, err)
        assert (tmp_path / "o/report.html").is_file()


def test_iquad_reads_its_tables_by_order(run, tmp_path):
    (tmp_path / "q.csv").write_text(
        "question_type,scene_number,question,answer\n0,1,Is there a mug?,True\n1,1,How many?,2\n"
    )
    (tmp_path / "p.json").write_text('["yes", "3"]')
    status, out, _ = run("profile=iquad", "predictions=p.json", "references=q.csv", "pair=order")
    assert status == 0 and "iquad accuracy: 50.0 %" in out
