"""A task asks its samples in its own words, and a model that answers from the references scores 100 %."""

import json

import pytest
from fakes.answering import Answering, said
from PIL import Image

from embodied.cli import eval as module
from embodied.cli.app import command
from embodied.data.multimodal.sample import Sample, image, message
from embodied.evaluation.scorers.choice import MultipleChoice
from embodied.evaluation.scorers.text import ExactMatch
from embodied.evaluation.tasks.answers import FILE, Answers
from embodied.evaluation.tasks.base import First, Generation, Responder, Task
from embodied.evaluation.tasks.run import run_task

QUESTIONS = {"What colour is it?": "red", "How many?": "3", "Is it round?": "yes"}


def a_sample(name, question, right, **meta):
    return Sample(name, [message("user", image("a.png"), question), message("assistant", right)], "lab", meta)


def samples():
    return [a_sample(str(i), question, answer) for i, (question, answer) in enumerate(QUESTIONS.items())]


def knowing(answers):
    made = Answering()
    made.answers = answers
    return made


def test_the_fake_is_a_responder_and_a_dict_is_none():
    assert isinstance(Answering(), Responder) and not isinstance({}, Responder)


def test_who_knows_the_references_scores_everything_and_who_does_not_nothing():
    task = Task("colours", samples(), ExactMatch())
    assert run_task(task, knowing(QUESTIONS)).headline[1].value == 1
    scores = run_task(task, Answering(default="wrong"))
    assert scores.headline[1].value == 0 and scores.headline[1].low == 0 and scores.headline[1].high > 0.5


def test_the_result_does_not_depend_on_the_batch_size():
    outcomes = []
    for size in (1, 2, 8):
        responder = knowing(QUESTIONS | {"How many?": "4"})
        outcomes.append(run_task(Task("t", samples(), ExactMatch()), responder, size).samples)
        assert [len(batch) for batch in responder.asked] == {1: [1, 1, 1], 2: [2, 1], 8: [3]}[size]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_the_prompt_takes_the_questions_place_and_pictures_stay_in_front():
    task = Task("t", samples(), ExactMatch(), prompt="Look. {question}\n{hint}\nOne word.", system="Be brief.")
    question = next(iter(task.questions()))
    system, user = question.conversation
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert user["content"] == [image("a.png"), {"type": "text", "text": "Look. What colour is it?\nOne word."}]


def test_a_question_cannot_fill_another_place_of_the_prompt():
    asked = a_sample("1", "What is {options}?", "x", options=["a", "b"], hint="{question}")
    task = Task("t", [asked], ExactMatch(), prompt="{hint}\n{question}\n{options}")
    assert said(next(iter(task.questions())).conversation) == "{question}\nWhat is {options}?\nA. a\nB. b"


def test_the_answer_is_not_shown_and_earlier_turns_are():
    turns = [message("user", image("a.png"), "One?"), message("assistant", "1"), message("user", "Two?")]
    task = Task("t", [Sample("1", [*turns, message("assistant", "2")], "lab")], ExactMatch())
    responder = knowing({"Two?": "2"})
    assert run_task(task, responder).headline[1].value == 1
    assert [turn["role"] for turn in responder.asked[0][0]] == ["user", "assistant", "user"]


def test_the_settings_of_the_generation_reach_the_model():
    responder = knowing(QUESTIONS)
    settings = Generation(5, 0.7, 0.9, ("\n",), 3)
    run_task(Task("t", samples(), ExactMatch(), generation=settings), responder)
    assert responder.settings[0] == {"max_new_tokens": 5, "temperature": 0.7, "top_p": 0.9, "stop": ["\n"], "seed": 3}


def test_what_is_asked_first_is_answered_once_a_picture_and_stands_before_the_question():
    task = Task("t", samples(), ExactMatch(), generation=Generation(5), first=First("List all.", 40))
    responder = knowing(QUESTIONS | {"List all.": "a red ball"})
    assert run_task(task, responder).headline[1].value == 1
    first, then = responder.asked
    assert [said(c) for c in first] == ["List all."] and [
        settings["max_new_tokens"] for settings in responder.settings
    ] == [40, 5]
    assert then[1] == [
        message("user", image("a.png"), "List all."), message("assistant", "a red ball"), message("user", "How many?"),
    ]  # fmt: skip


def test_what_was_answered_first_may_be_all_that_is_left_of_the_pictures():
    last = message("user", image("b.png"), "Two?")
    turns = [message("user", image("a.png"), "One?"), message("assistant", "1"), last]
    first = First("List all.", pictures=False)
    task = Task("t", [Sample("1", [*turns, message("assistant", "2")], "lab")], ExactMatch(), first=first)
    responder = knowing({"Two?": "2", "List all.": "a red ball"})
    assert run_task(task, responder).headline[1].value == 1
    (asked,), (then,) = responder.asked
    assert asked[-1] == message("user", image("b.png"), "List all.") and asked[:2] == turns[:2]
    assert [said([turn]) for turn in then] == ["One?", "1", "List all.", "a red ball", "Two?"]
    assert all(part["type"] == "text" for turn in then for part in turn["content"])
    silent = knowing({"Two?": "2", "List all.": " "})
    run_task(task, silent)
    assert silent.asked[1][0] == turns  # who said nothing is asked with the pictures


def test_what_was_answered_first_is_not_asked_again_after_an_interruption(tmp_path):
    task = Task("t", samples(), ExactMatch(), first=First("List all."))
    run_task(task, knowing(QUESTIONS | {"List all.": "a red ball"}), answers=Answers(tmp_path, {}, resume=False))
    lines = (tmp_path / FILE).read_text().splitlines()
    (tmp_path / FILE).write_text("\n".join(line for line in lines if "a red ball" in line or line == "{}") + "\n")
    again = knowing(QUESTIONS)
    scores = run_task(task, again, answers=Answers(tmp_path, {}, resume=True))
    assert scores.headline[1].value == 1 and "List all." not in [said(c) for batch in again.asked for c in batch]
    assert all(conversation[1] == message("assistant", "a red ball") for batch in again.asked for conversation in batch)


def test_a_question_is_asked_alone_where_the_first_answer_was_empty():
    responder = knowing(QUESTIONS)
    assert run_task(Task("t", samples(), ExactMatch(), first=First("List all.")), responder).headline[1].value == 1
    assert responder.asked[1][0] == [message("user", image("a.png"), "What colour is it?")]
    with pytest.raises(ValueError, match="first needs a prompt"):
        First(" ")


def test_what_stands_behind_a_thought_is_scored():
    given = {question: f"Answer: it may be X. So, ANSWER: {answer} " for question, answer in QUESTIONS.items()}
    task = Task("t", samples(), ExactMatch(), answer_after="Answer:")
    assert run_task(task, knowing(given)).headline[1].value == 1
    assert run_task(task, knowing(QUESTIONS)).headline[1].value == 1  # who does not think is scored as before
    assert run_task(Task("t", samples(), ExactMatch()), knowing(given)).headline[1].value == 0
    with pytest.raises(ValueError, match="answer_after is a text, or null"):
        Task("t", samples(), ExactMatch(), answer_after=" ")


def test_circular_evaluation_asks_every_rotation_and_a_constant_letter_scores_nothing():
    choice = a_sample("q", "Which?", "B", options=["cube", "ball", "cone"], answer=1)
    task = Task("t", [choice], MultipleChoice(), prompt="{question}\n{options}", circular=True)

    class Reads(Answering):
        def respond(self, conversations, **settings):
            super().respond(conversations, **settings)
            return [next(line[0] for line in said(c).split("\n") if line.endswith("ball")) for c in conversations]

    responder = Reads()
    metrics = run_task(task, responder).metrics
    assert metrics["circular_accuracy"].value == 1 and metrics["every_rotation"].n == 3
    assert [said(c).split("\n")[1] for c in responder.asked[0]] == ["A. cube", "A. ball", "A. cone"]
    assert run_task(task, Answering(default="B")).metrics["circular_accuracy"].value == 0
    assert run_task(task, Answering(default="B")).metrics["accuracy"].value == 1


def test_an_empty_answer_is_wrong_and_counted():
    scores = run_task(Task("t", samples(), ExactMatch()), knowing({"How many?": "3"}))
    assert scores.headline[1].value == pytest.approx(1 / 3) and "2 answers were empty" in scores.notes


def test_a_limit_asks_the_first_samples_only():
    assert [q.id for q in Task("t", samples(), ExactMatch(), limit=2).questions()] == ["0", "1"]


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Task("t", [], ExactMatch(), prompt="what?"), "the prompt has no {question}"),
        (lambda: Task("t", [], ExactMatch(), limit=0), "limit is 1 or more"),
        (lambda: list(Task("t", [], ExactMatch()).questions()), "task t has no samples"),
        (lambda: list(Task("t", samples() * 2, ExactMatch()).questions()), "lab: sample 0 is there twice"),
        (lambda: list(Task("t", samples(), MultipleChoice()).questions()), "sample 0 has no options"),
        (lambda: Generation(0), "max_new_tokens >= 1"),
        (lambda: run_task(Task("t", samples(), ExactMatch()), Answering(), batch_size=0), "batch_size is 1 or more"),
    ],
)
def test_a_mistake_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_model_that_answers_too_little_is_named():
    class Silent(Answering):
        def respond(self, conversations, **settings):
            return []

    with pytest.raises(ValueError, match="was asked 3 questions and gave 0 answers"):
        run_task(Task("t", samples(), ExactMatch()), Silent())


# From the command line, on a data set as embodied-make-scenes writes it


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """A data set with one task of each kind; `answers.json` holds what is right by what is asked."""
    monkeypatch.chdir(tmp_path)
    chat = tmp_path / "d" / "chat" / "test"
    chat.mkdir(parents=True)
    (tmp_path / "d/images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "d/images/0.png")
    asked = {
        "vqa": [("How many?", "3", {"answers": ["3"], "question_type": "count"})],
        "pope_adversarial": [(f"Is there a {w}?", a, {"label": a}) for w, a in (("cube", "yes"), ("ball", "no"))],
        "refer": [("Find it.", "[0,0,500,500]", {"box": [0, 0, 50, 50], "width": 100, "height": 100})],
        "caption": [("Describe.", "a red cube", {"captions": ["a red cube", "one cube"]})],
        "video": [("Which moves?", "the cube", {"answers": ["the cube"]})],
    }
    for task, rows in asked.items():
        lines = [
            {"id": f"{task}/{i}", "source": "scenes", "meta": meta}
            | {"messages": [message("user", image("images/0.png"), question), message("assistant", answer)]}
            for i, (question, answer, meta) in enumerate(rows)
        ]
        (chat / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    right = {question: answer for rows in asked.values() for question, answer, _ in rows}
    (tmp_path / "answers.json").write_text(json.dumps(right))
    return tmp_path


RIGHT = ["responder={_target_: fakes.answering.Answering, file: answers.json}", "policy=runs/vlm", "data.root=d"]


@pytest.fixture
def evaluate(plugins, monkeypatch, scenes, capsys):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["embodied-eval", *words])
        status = 0
        try:
            command("eval", module.work)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "task, says, more",
    [
        ("pope", "f1: 100.0 %", []),
        ("vqa", "vqa_accuracy: 100.0 %", []),
        ("refcoco", "acc@0.5: 100.0 %", []),
        ("video", "exact_match_lenient: 100.0 %", []),
        ("captions", "bleu_1: 1", ["task.scoring.scorer.tokenizer=simple", "task.scoring.scorer.meteor=false"]),
    ],
)
def test_who_answers_from_the_references_scores_everything(evaluate, scenes, task, says, more):
    if task == "captions":
        pytest.importorskip("pycocoevalcap", reason="the extra 'score' is not installed")
    status, shown, error = evaluate(f"task={task}", *RIGHT, *more)
    assert status == 0, error
    assert says in shown
    out = scenes / "runs/vlm/eval" / task
    info = json.loads((out / "eval_info.json").read_text())
    assert info["prompt"] == "{question}" and info["generation"]["temperature"] == 0
    assert info["model"] == {"name": "answering", "template": "{{ messages }}"}
    assert (out / "report.html").is_file() and not (out / FILE).exists()


def test_who_answers_wrongly_scores_nothing(evaluate):
    wrong = ["responder={_target_: fakes.answering.Answering, default: nonsense}", "policy=p", "data.root=d"]
    assert "vqa_accuracy: 0.0 %" in evaluate("task=vqa", *wrong)[1]
    assert "acc@0.5: 0.0 %" in evaluate("task=refcoco", *wrong)[1]
    shown = evaluate("task=pope", *wrong)[1]
    assert "accuracy: 50.0 %" in shown and "recall: 100.0 %" in shown and "2 answers say neither" in shown


def test_an_interrupted_evaluation_goes_on_where_it_was(evaluate, scenes):
    stop = [f"{RIGHT[0][:-1]}, fails_after: 1}}", *RIGHT[1:]]
    assert evaluate("task=pope", *stop, "batch_size=1")[0] == 130
    out = scenes / "runs/vlm/eval/pope"
    assert len((out / FILE).read_text().splitlines()) == 2 and not (out / "eval_info.json").exists()
    status, shown, error = evaluate("task=pope", *RIGHT, "batch_size=1")
    assert status == 0 and "2/2 questions" in error and "f1: 100.0 %" in shown
    assert evaluate("task=pope", *stop, "batch_size=1", "resume=false")[0] == 130
    other = evaluate("task=pope", *RIGHT, "task.generation.max_new_tokens=9")
    assert other[0] == 2 and "unfinished evaluation with another task" in other[2]


@pytest.mark.parametrize(
    "words, says",
    [
        (["task=pop", *RIGHT], "did you mean"),
        (["task=vqa", *RIGHT[:2]], "data.root is not given"),
        (["task=vqa", *RIGHT[:2], "data.root=nowhere"], "nowhere"),
        (["task=vqa", *RIGHT, "data.split=trian"], "trian"),
        (["task=vqa", *RIGHT, "task.prompt=hello"], "the prompt has no {question}"),
        (["task=vqa", *RIGHT, "task.generation.max_new_tokens=0"], "max_new_tokens >= 1"),
        (["task=vqa", "policy=nowhere", "data.root=d"], "policy=nowhere: there is no such folder"),
        (["task=vqa", "policy=d", "data.root=d"], "policy=d"),
        (
            ["task=vqa", "policy=d", "data.root=d", "responder={_target_: embodied.evaluation.scorers.text.ANLS}"],
            "of a Responder",
        ),
        (["policy=d"], "env is not given: add env="),
        (["task=vqav2", "policy=d"], "task.samples.questions is not given"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(evaluate, scenes, words, says):
    status, _, error = evaluate(*words)
    assert status == 2 and says in error and error.count("\n") == 1
    assert not (scenes / "runs").exists()


@pytest.mark.parametrize(
    "damage, says", [("missing", "images/0.png"), ("not JSON", "vqa.jsonl"), ("empty", "vqa.jsonl")]
)
def test_a_broken_sample_is_named_or_skipped_and_counted(evaluate, scenes, damage, says):
    file = scenes / "d/chat/test/vqa.jsonl"
    good = json.loads(file.read_text())
    broken = json.loads(json.dumps(good)) | {"id": "vqa/broken"}
    if damage == "missing":
        broken["messages"][0]["content"][0]["image"] = "images/1.png"
        says = "images/1.png"
    elif damage == "empty":
        broken["messages"][1]["content"] = ""
    line = "{oops" if damage == "not JSON" else json.dumps(broken)
    file.write_text(json.dumps(good) + "\n" + line + "\n")
    status, _, error = evaluate("task=vqa", *RIGHT)
    assert status == 2 and says in error and error.count("\n") == 1
    status, shown, _ = evaluate("task=vqa", *RIGHT, "task.samples.on_error=skip")
    assert status == 0 and "1 samples left out" in shown and "vqa_accuracy: 100.0 %" in shown
    info = json.loads((scenes / "runs/vlm/eval/vqa/eval_info.json").read_text())
    assert info["skipped"]["count"] == 1 and info["skipped"]["reasons"]
