"""embodied-score: official files in, figures with intervals out, and every mistake in one line naming its sample."""

import json

import pytest

from embodied.cli import score as module
from embodied.cli.app import command
from embodied.cli.configs import compose
from embodied.evaluation.statistics import wilson


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


def write(file, content):
    """JSON lines where the name says so."""
    lines = file.endswith(".jsonl")
    text = "\n".join(json.dumps(row) for row in content) if lines else json.dumps(content)
    with open(file, "w") as out:  # noqa: PTH123
        out.write(text)
    return file


QUESTIONS = [{"question_id": i, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"} for i in (1, 2, 3)]
QUESTIONS += [{"question_id": i, "image": "a.jpg", "text": "Is there a cat?", "label": "no"} for i in (4, 5)]


def answers(*said):
    return [{"question_id": i, "answer": text} for i, text in enumerate(said, start=1)]


def test_figures_intervals_samples_versions_and_a_report(run, tmp_path):
    write("coco_pope.json.jsonl", QUESTIONS)
    (tmp_path / "coco_pope.json.jsonl").rename(tmp_path / "coco_pope.json")  # POPE's files are JSON lines named .json
    write("p.jsonl", answers("Yes", "yes.", "No", "No, there is none", "Yes"))
    words = ("profile=pope", "predictions=p.jsonl", "references=coco_pope.json", "out=o")
    status, said, _ = run(*words)
    assert status == 0 and "pope f1: 66.7 %" in said
    info = json.loads((tmp_path / "o/eval_info.json").read_text())
    assert info["headline"] == "f1" and info["scores"]["accuracy"]["value"] == 3 / 5
    assert info["scores"]["accuracy"]["ci95"] == pytest.approx(list(wilson(3, 5)))
    assert [sample["read"] for sample in info["samples"]] == ["yes", "yes", "no", "no", "yes"]
    assert info["skipped"] == {"count": 0, "reasons": []} and info["versions"]["numpy"]
    assert info["command"] == f"embodied-score {' '.join(words)}"
    page = (tmp_path / "o/report.html").read_text()
    assert "No, there is none" in page and "66.7" in page


def test_what_answers_say_never_becomes_part_of_the_page(run, tmp_path):
    write("r.json", [{"question_id": 1, "label": "yes"}])
    write("p.json", {"1": "<script>alert(1)</script>"})
    assert run("profile=pope", "predictions=p.json", "references=r.json", "out=o")[0] == 0
    assert "<script>alert" not in (tmp_path / "o/report.html").read_text()


def test_a_sweep_gets_the_numbers_it_tabulates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("r.jsonl", QUESTIONS)
    write("p.jsonl", answers("yes", "yes", "yes", "no", "no"))
    found = module.work(compose("score", ["profile=pope", "predictions=p.jsonl", "references=r.jsonl"]))
    assert (found["score"], found["low"], found["high"], found["n"], found["accuracy"]) == (1, 1, 1, 5, 1)
    assert {file.name for file in tmp_path.iterdir()} == {"r.jsonl", "p.jsonl"}  # no out: nothing is written


OFFICIAL = {
    "vqa": (
        {"annotations": [{"question_id": 9, "answers": [{"answer": "red", "answer_id": i} for i in range(10)]}]},
        [{"question_id": 9, "answer": "red"}],
        "vqa_accuracy: 100.0 %",
    ),
    "textvqa": (
        {"data": [{"question_id": 9, "answers": ["red"] * 6 + ["a red"] * 4}]},
        [{"question_id": 9, "answer": "The red"}],
        "vqa_accuracy: 100.0 %",
    ),
    "gqa": (
        {"0123": {"question": "q?", "answer": "yes", "types": {"structural": "verify"}}},
        [{"questionId": "0123", "prediction": "yes"}],
        "exact_match: 100.0 %",
    ),
    "exact": ([{"id": "a", "answers": ["Yes", "True"]}], {"a": " true."}, "exact_match_lenient: 100.0 %"),
    "chartqa": (
        [{"imgname": "1.png", "query": "q?", "label": "100"}],
        [{"id": 0, "answer": "104.9"}],
        "relaxed_accuracy: 100.0 %",
    ),
    "docvqa": (
        {"dataset_name": "docvqa", "data": [{"questionId": 5, "answers": ["Hello"]}]},
        [{"questionId": 5, "answer": "hello"}],
        "anls: 100.0 %",
    ),
    "mme": (
        [
            {"question_id": "count/1.jpg", "question": q, "answer": a, "category": "count"}
            for q, a in (("Two?", "Yes"), ("Three?", "No"))
        ],
        [{"answer": "Yes"}, {"answer": "no"}],
        "score: 200",
    ),
    "choice": ([{"id": 1, "options": ["a", "b"], "answer": 1}], {"1": "B"}, "accuracy: 100.0 %"),
    "ai2d": ([{"index": 1, "A": "x", "B": "y", "answer": "B"}], [{"index": 1, "prediction": "B"}], "accuracy: 100.0 %"),
    "scienceqa": (
        {
            "1": {"choices": ["x", "y"], "answer": 1, "split": "test", "grade": "grade2", "hint": "", "image": None},
            "2": {"choices": ["x", "y"], "answer": 1, "split": "train"},
        },
        {"1": "B"},
        "accuracy: 100.0 %",
    ),
    "refcoco": (
        [{"id": 1, "bbox": [10, 10, 50, 50], "width": 100, "height": 100}],
        {"1": "[99.9, 99.9, 599.4, 599.4]"},
        "acc@0.5: 100.0 %",
    ),
    "captions": (
        {"images": [], "annotations": [{"image_id": 1, "id": i, "caption": f"a {w} dog"} for i, w in enumerate("xy")]},
        [{"image_id": 1, "caption": "a x dog"}],
        "cider:",
    ),
    "chair": ([{"image_id": 1, "objects": ["dog"]}], [{"image_id": 1, "caption": "a dog"}], "chair_i: 0.0 %"),
    "amber": ([{"id": 1005, "type": "relation", "truth": "no"}], [{"id": 1005, "response": "No"}], "f1:"),
    "judged": ([{"id": 1, "answer": "a"}], {"1": "a"}, "grade: 70.0 %"),
    "pope": (QUESTIONS[:1], answers("yes"), "f1: 100.0 %"),
    "mmbench": ([{"index": 3, "A": "x", "B": "y", "answer": "A"}], {"3": "A"}, "accuracy: 100.0 %"),
}
MORE = {
    "mme": ["pair=order"],
    "captions": ["profile.scorer.tokenizer=simple", "profile.scorer.meteor=false"],
    "judged": ["profile.scorer.judge.command='echo 7'"],
}


@pytest.mark.parametrize("profile", OFFICIAL)
def test_each_benchmarks_own_files_are_read(run, profile):
    if profile == "captions":
        pytest.importorskip("pycocoevalcap", reason="the extra 'score' is not installed")
    references, predictions, says = OFFICIAL[profile]
    write("r.json", references)
    write("p.json", predictions)
    status, said, error = run(
        f"profile={profile}", "predictions=p.json", "references=r.json", "out=o", *MORE.get(profile, [])
    )
    assert status == 0, error
    assert f"{profile} {says}" in said


def test_every_profile_is_tried_here():
    """Those of navigation are in evaluation/test_scorers_navigation_files.py."""
    from pathlib import Path

    files = (Path(module.__file__).parents[2] / "conf/profile").glob("*.yaml")
    profiles = {file.stem for file in files if "scorers.navigation." not in file.read_text()}
    assert profiles - set(OFFICIAL) == {"judged_http"}


def test_mmbenchs_table_of_rotations_is_read(run, tmp_path):
    rows = ["index\tquestion\tA\tB\tanswer\tcategory\timage", "7\tq?\tx\ty\tA\tlogic\tAAAA"]
    rows += ["1000007\tq?\ty\tx\tB\tlogic\tAAAA", "8\tq?\tx\ty\tB\tlogic\tAAAA", "1000008\tq?\ty\tx\tA\tlogic\tAAAA"]
    (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")
    write("p.json", {"7": "A", "1000007": "B", "8": "B", "1000008": "B"})
    status, said, _ = run("profile=mmbench", "predictions=p.json", "references=m.tsv")
    assert status == 0 and "circular_accuracy: 50.0 %" in said and "mmbench accuracy: 100.0 %" in said


def test_samples_of_this_projects_data_are_references(run, tmp_path):
    turns = [
        {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Colour?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
    ]
    write("s.jsonl", [{"id": "s/1", "source": "s", "messages": turns, "meta": {"question_type": "colour"}}])
    write("p.jsonl", [{"id": "s/1", "prediction": "Red."}])
    status, said, _ = run("profile=exact", "predictions=p.jsonl", "references=s.jsonl", "out=o")
    assert status == 0 and "exact_match_lenient: 100.0 %" in said
    assert "question_type: colour" in json.loads((tmp_path / "o/eval_info.json").read_text())["groups"]


GOOD = answers("yes", "yes", "yes", "no", "no")
BAD = {
    "an id that is missing": (GOOD[:-1], "p.jsonl has no prediction for sample 5 (r.jsonl: line 5)"),
    "an id that is there twice": (
        [*GOOD, GOOD[0]],
        "p.jsonl: line 6: sample 1 is there twice, first at p.jsonl: line 1",
    ),
    "an id that is unknown": ([*GOOD, {"question_id": 77, "answer": "no"}], "sample 77 is not in r.jsonl"),
    "no id at all": ([*GOOD[:-1], {"answer": "no"}], "p.jsonl: line 5 has no id (question_id)"),
    "no answer": ([*GOOD[:-1], {"question_id": 5}], "p.jsonl: line 5 (sample 5) has no prediction"),
    "an empty answer": ([*GOOD[:-1], {"question_id": 5, "answer": " "}], "the prediction for sample 5 is empty"),
    "an answer that is no text": ([*GOOD[:-1], {"question_id": 5, "answer": ["no"]}], "sample 5 is a list, not text"),
    "a null": ([*GOOD[:-1], {"question_id": 5, "answer": None}], "sample 5 is null, not text"),
    "a row that is no row": ([*GOOD[:-1], 5], "p.jsonl: line 5 is no row"),
}


@pytest.mark.parametrize("rows, says", BAD.values(), ids=BAD)
def test_a_bad_prediction_is_one_line_and_writes_nothing_unless_it_may_be_skipped(run, tmp_path, rows, says):
    write("r.jsonl", QUESTIONS)
    write("p.jsonl", rows)
    words = ("profile=pope", "predictions=p.jsonl", "references=r.jsonl", "out=o")
    status, _, error = run(*words)
    assert status == 2 and says in error and error.count("\n") == 1 and "skip=true" in error
    assert not (tmp_path / "o").exists()
    status, said, _ = run(*words, "skip=true")
    info = json.loads((tmp_path / "o/eval_info.json").read_text())
    assert status == 0 and "skipped; the first" in said and says in " ".join(info["skipped"]["reasons"])
    assert info["skipped"]["count"] == len(info["skipped"]["reasons"]) >= 1
    assert len(info["samples"]) in (4, 5)


@pytest.mark.parametrize(
    "references, says",
    [
        ([{"question_id": 1, "text": "q?"}], "(sample 1) has no 'label or answer'"),
        ([{"id": 1, "label": "yes"}], "has no 'question_id'"),
        ([{"question_id": 1, "label": "maybe"}], "sample 1 has the label 'maybe'"),
        ([], "r.json holds no references"),
        ("text", "r.json is of another format"),
        ([{"question_id": 8, "label": "yes"}], "no sample of p.jsonl is in r.json"),
        ([1], "r.json: row 0 is no row with named fields"),
    ],
)
def test_references_of_another_format_are_one_line(run, tmp_path, references, says):
    write("r.json", references)
    write("p.jsonl", GOOD[:1])
    status, _, error = run("profile=pope", "predictions=p.jsonl", "references=r.json", "out=o")
    assert status == 2 and says in error and error.count("\n") == 1 and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "words, says",
    [
        (["profile=pop", "references=r.jsonl"], "did you mean 'pope'"),
        (["references=r.jsonl"], "profile is not given: add profile=..., one of ai2d"),
        (["profile=pope"], "references is not given"),
        (["profile=pope", "references=nowhere.json"], "No such file or directory: nowhere.json"),
        (["profile=pope", "references=."], ". is a folder"),
        (["profile=pope", "references=r.jsonl", "pair=size"], "pair is id or order"),
        (["profile=pope", "references=r.jsonl", "resamples=0"], "resamples=0"),
        (["profile=pope", "references=r.jsonl", "skipp=true"], "did you mean 'skip'"),
        (["profile=pope", "references=cut.json"], "cut.json: line 2 is not valid JSON"),
        (["profile=docvqa", "references=r.json"], "it has no 'data'"),
        (["profile=pope", "references=r.jsonl", "profile.scorer._target_=subprocess.Popen"], "allowed packages"),
        (["profile=refcoco", "references=r.jsonl", "profile.scorer.coordinates=7"], "coordinates is 999, 1000, 1 or"),
        (["profile=judged", "references=r.jsonl"], "profile.scorer.judge.command is not given"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(run, tmp_path, words, says):
    write("r.jsonl", QUESTIONS)
    write("r.json", {"annotations": []})
    write("p.jsonl", GOOD)
    (tmp_path / "cut.json").write_text(json.dumps(QUESTIONS[0]) + '\n{"question_id": 2, "la')
    status, _, error = run("predictions=p.jsonl", *words)
    assert status == 2 and says in error and error.count("\n") == 1


def test_pairing_by_order_needs_as_many_answers_as_questions(run):
    write("r.jsonl", QUESTIONS)
    write("p.jsonl", [{"question": "q", "answer": "yes"}] * 4)
    status, _, error = run("profile=pope", "predictions=p.jsonl", "references=r.jsonl", "pair=order")
    assert status == 2 and "p.jsonl has 4 rows, r.jsonl has 5" in error
    write("p.jsonl", [{"question": "q", "answer": "yes"}] * 5)
    assert "accuracy: 60.0 %" in run("profile=pope", "predictions=p.jsonl", "references=r.jsonl", "pair=order")[1]


def test_nothing_left_after_skipping_is_an_error(run):
    write("r.jsonl", QUESTIONS[:1])
    write("p.jsonl", [{"question_id": 1, "answer": ""}])
    status, _, error = run("profile=pope", "predictions=p.jsonl", "references=r.jsonl", "skip=true")
    assert status == 2 and "nothing is left to score" in error


def test_a_result_that_was_there_survives_a_failure(run, tmp_path):
    write("r.jsonl", QUESTIONS)
    write("p.jsonl", GOOD)
    words = ("profile=pope", "predictions=p.jsonl", "references=r.jsonl", "out=o")
    assert run(*words)[0] == 0
    before = (tmp_path / "o/eval_info.json").read_bytes()
    write("p.jsonl", GOOD[:-1])
    assert run(*words)[0] == 2
    assert (tmp_path / "o/eval_info.json").read_bytes() == before
