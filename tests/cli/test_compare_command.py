"""`embodied-compare A B` prints who is better; a mistake on its command line is one line."""

import json
import sys

import pytest

from embodied.cli import compare as cli
from embodied.evaluation.results import EpisodeRecord, write_eval_info
from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.result import write_scores
from embodied.evaluation.scorers.vqa import VQAAccuracy


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Folders `runs/a` (seeds 0 to 19, mostly failing), `runs/b` (mostly succeeding) and `runs/c` (other seeds)."""
    monkeypatch.chdir(tmp_path)
    for name, wins, first in (("a", 4, 0), ("b", 16, 0), ("c", 9, 500)):
        records = [EpisodeRecord("push", first + i, i < wins, 1.0, 1.0, 5, "lab") for i in range(20)]
        env = {"name": "lab/push", "make": {"max_steps": 50}}
        write_eval_info(
            f"runs/{name}", records, policy=name, env=env, embodiment=None, config={}, eval_s=1.0, command="c"
        )
    return tmp_path


def compare(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["embodied-compare", *words])
    cli.main()


def test_it_prints_the_table_and_the_verdict(results, monkeypatch, capsys):
    compare(monkeypatch, "runs/a", "runs/b")
    out = capsys.readouterr().out
    assert "B is better by 60.0 points" in out and "+60.0" in out
    assert {file.name for file in results.iterdir()} == {"runs"}


def test_out_keeps_it_as_json_and_as_a_page(results, monkeypatch, capsys):
    compare(monkeypatch, "runs/a", "runs/b/eval_info.json", "out=kept/it is here")
    kept = results / "kept" / "it is here"
    assert json.loads((kept / "compare.json").read_text())["comparisons"][0]["overall"]["n"] == 20
    page = (kept / "compare.html").read_text()
    assert "B is better by 60.0 points" in page and "embodied-compare runs/a runs/b/eval_info.json" in page


def test_folders_with_odd_names_are_folders(results, monkeypatch, capsys):
    (results / "runs" / "a").rename(results / "runs" / "lr=0.1,it's [a] {b}")
    compare(monkeypatch, "runs/lr=0.1,it's [a] {b}", "runs/b")
    assert "B is better" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "give two or more results: embodied-compare runs/a/eval/x runs/b/eval/x"),
        (["runs/a"], "give two or more results"),
        (["runs/a", "runs/zzz"], "no evaluation result at runs/zzz"),
        (["runs/a", "runs/c"], "no episode in common"),
        (["runs/a", "runs/b", "resample=5"], "did you mean 'resamples'?"),
        (["runs/a", "runs/b", "ot=x"], "did you mean 'out'?"),
        (["runs/a", "runs/b", "resamples=0"], "needs resamples, 1 or more"),
        (["runs/a", "runs/b", "out=runs/a/eval_info.json"], "runs/a/eval_info.json"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(results, monkeypatch, capsys, words, says):
    before = {file: file.read_bytes() for file in results.rglob("*.*")}
    with pytest.raises(SystemExit) as end:
        compare(monkeypatch, *words)
    line = capsys.readouterr().err
    assert end.value.code == 2 and says in line and line.count("\n") == 1
    assert {file: file.read_bytes() for file in results.rglob("*.*")} == before


def test_a_damaged_result_is_one_line(results, monkeypatch, capsys):
    (results / "runs" / "b" / "eval_info.json").write_text('{"overall": {')
    with pytest.raises(SystemExit):
        compare(monkeypatch, "runs/a", "runs/b")
    assert "is not valid JSON" in capsys.readouterr().err


def test_help_is_given(monkeypatch, capsys):
    compare(monkeypatch, "--help")
    page = capsys.readouterr().out
    assert "embodied-compare runs/a/eval/x runs/b/eval/x" in page and "resamples: 10000" in page


def scored(folder, answers, name="vqa"):
    records = [Record(f"q{i}", answer, {"answers": ["red"]}) for i, answer in enumerate(answers)]
    write_scores(folder, VQAAccuracy().score(records), name=name, config={})


def test_scored_answers_are_compared_question_by_question(results, monkeypatch, capsys):
    scored("runs/d", ["red"] * 5 + ["blue"] * 25)
    scored("runs/e", ["blue"] * 2 + ["red"] * 28)
    compare(monkeypatch, "runs/d", "runs/e", "out=kept")
    assert "B is better by 76.7 points" in capsys.readouterr().out  # 28 of 30 against 5 of 30
    found = json.loads((results / "kept/compare.json").read_text())["comparisons"][0]["overall"]
    assert (found["n"], found["only_a"], found["only_b"]) == (30, 2, 25)
    scored("runs/f", ["red"] * 3, name="gqa")
    with pytest.raises(SystemExit):
        compare(monkeypatch, "runs/d", "runs/f")
    assert "vqa with 30 samples such as q0" in capsys.readouterr().err
