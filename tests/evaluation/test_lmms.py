"""A model of this project runs in the real lmms-eval, unmodified, through its entry point, on tasks of local files."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

TESTS = Path(__file__).parents[1]
INSTALL = "pip install -e '.[lmms]' && pip install --no-deps lmms-eval==0.7.3"

if find_spec("lmms_eval") is None and not os.environ.get("CI"):
    pytest.skip(f"lmms-eval is not installed: {INSTALL}", allow_module_level=True)

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function ways.shown
doc_to_text: !function ways.text
doc_to_target: answer
process_results: !function ways.{results}
metric_list:
  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}
{more}
"""

WAYS = """
from PIL import Image


def shown(doc):
    return [Image.open(doc["picture"])]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def results(doc, said):
    return {"right": float(said[0].strip() == doc["answer"])}


def loglikelihoods(doc, said):
    return {"right": float("True" in str(said[0]))}  # lmms-eval 0.7.3 makes text of the pair on its way here


def rounds(doc, lmms_eval_specific_kwargs=None, round_idx=None, previous_output=None, previous_round_info=None):
    if round_idx is None:
        return doc["question"]
    return [], f"Really {previous_output[-1]}?", round_idx == 2, previous_output, None


def of_rounds(doc, said):
    return {"right": float(said[0] == [doc["answer"], "yes"])}
"""

QUESTIONS = {"What colour?": "red", "How many?": "3", "Is it round?": "yes"}


@pytest.fixture
def harness(tmp_path):
    """`harness(name, kind, answers)`: runs lmms-eval's own command on a task of three questions; the share right."""
    ways, rows = tmp_path / "tasks", tmp_path / "rows.json"
    ways.mkdir()
    (ways / "ways.py").write_text(WAYS)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    rows.write_text(
        json.dumps([{"question": q, "answer": a, "picture": str(tmp_path / "a.png")} for q, a in QUESTIONS.items()])
    )

    def run(kind, answers, results="results", more="", text="text", words=(), model=""):
        task = TASK.format(name="lab", rows=rows, kind=kind, results=results, metric="right", more=more)
        (ways / "lab.yaml").write_text(task.replace("ways.text", f"ways.{text}"))
        (tmp_path / "answers.json").write_text(json.dumps(answers))
        code = "import sys; from lmms_eval.__main__ import cli_evaluate; sys.exit(cli_evaluate())"
        arguments = model or f"responder=fakes.answering.Answering,file={tmp_path / 'answers.json'}"
        words = ["--model", "embodied", "--model_args", arguments, "--tasks", "lab", *words, "--batch_size", "2"]
        words += ["--include_path", str(ways), "--output_path", str(tmp_path / "out"), "--verbosity", "ERROR"]
        home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "EMBODIED_PLUGINS": "fakes"}
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=TESTS.parent,
            env=os.environ | home | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            timeout=280,
        )
        found = sorted((tmp_path / "out").rglob("*results.json"))
        assert found, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(found[-1].read_text())["results"]["lab"]["right,none"]

    return run


def test_lmms_eval_is_installed_where_everything_is_tested():
    assert find_spec("lmms_eval"), f"lmms-eval is missing: {INSTALL}"


def test_the_entry_point_names_the_model():
    found = [point for point in entry_points(group="lmms_eval.models") if point.name == "embodied"]
    assert found, "the project's metadata is older than its pyproject.toml: run make setup"
    made = found[0].load()()
    assert made.model_id == "embodied" and made.chat_class_path == "embodied.evaluation.lmms.Embodied"


def test_it_answers_questions_about_pictures(harness):
    assert harness("generate_until", QUESTIONS | {"How many?": "4"}) == pytest.approx(2 / 3)


def test_it_goes_on_for_several_rounds(harness):
    answers = QUESTIONS | {"Really red?": "yes", "Really 3?": "yes", "Really yes?": "no"}
    assert harness("generate_until_multi_round", answers, "of_rounds", text="rounds") == pytest.approx(2 / 3)


def test_it_weighs_continuations(harness):
    right = QUESTIONS | {"Is it round?": "no"}
    assert harness("loglikelihood", right, "loglikelihoods", words=["--force_simple"]) == pytest.approx(2 / 3)
