"""The option an answer names, and circular evaluation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.choice import MultipleChoice, ScienceQA, read_choice, rotations

OPTIONS = {"A": "a red cube", "B": "a blue ball", "C": "a cone", "D": "nothing"}


@pytest.mark.parametrize(
    "said, read",
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("B) a blue ball that lies on the table", "B"),
        ("B: a blue ball", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is **B** because it is round and stands beside the other thing", "B"),
        ("Answer: B", "B"),
        ("I would say B", "B"),
        ("B is what most people who look at this would say", None),  # the letter is not among the last four words
        ("A or B", None),  # two letters
        ("It is a blue ball.", "B"),
        ("a red cube and a blue ball", None),  # two options' texts
        ("b", None),  # no letter in lower case, and no option's text
        ("E", None),
        ("", None),
        ("Cannot determine the answer", "Z"),
        ("Z", "Z"),
        ("a blue ball " * 9, None),  # more than twice as long as all options together
    ],
)
def test_the_option_that_an_answer_names(said, read):
    assert read_choice(said, OPTIONS) == read


def test_a_lone_article_at_the_front_of_a_short_answer_is_read_as_the_letter():
    """VLMEvalKit reads it so too: one letter stands alone, among the last four words."""
    assert read_choice("A blue ball", OPTIONS) == "A"


def choice(name, said, answer=1, **more):
    return Record(name, said, {"options": list(OPTIONS.values()), "answer": answer, **more})


def test_accuracy_counts_unread_answers_as_wrong_and_says_how_many():
    records = [choice("1", "B", category="x"), choice("2", "C", category="x"), choice("3", "who knows", category="y")]
    scores = MultipleChoice().score(records)
    assert scores.headline[0] == "accuracy" and scores.headline[1].value == pytest.approx(1 / 3)
    assert scores.notes == ["1 answers named no option and count as wrong"]
    assert scores.groups["category: x"]["accuracy"].value == 0.5


@pytest.mark.parametrize("answer", [1, "1", "B", "a blue ball"])
def test_the_right_option_may_be_given_by_place_letter_or_text(answer):
    assert MultipleChoice().score([choice("1", "B", answer)]).headline[1].value == 1


def test_a_group_counts_only_if_every_rotation_is_right():
    records = []
    for name, said in {"q1": "the right one", "q2": "always A"}.items():
        for number, (options, answer) in enumerate(rotations(OPTIONS, "A")):
            text = answer if said == "the right one" else "A"
            records.append(Record(f"{name}/{number}", text, {"options": options, "answer": answer, "group": name}))
    metrics = MultipleChoice().score(records).metrics
    assert list(metrics) == ["circular_accuracy", "accuracy", "every_rotation"]
    assert metrics["circular_accuracy"].value == 0.5 and metrics["circular_accuracy"].n == 2
    assert metrics["accuracy"].value == 1.0 and metrics["accuracy"].n == 2
    assert metrics["every_rotation"].value == (4 + 1) / 8


def test_mmbench_numbers_rotations_by_millions():
    records = [
        Record(str(7 + 1_000_000 * number), answer, {"options": options, "answer": answer})
        for number, (options, answer) in enumerate(rotations(OPTIONS, "C"))
    ]
    assert MultipleChoice(modulo=1_000_000).score(records).metrics["circular_accuracy"].n == 1
    assert "circular_accuracy" not in MultipleChoice().score(records).metrics


@given(st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True), st.data())
def test_every_rotation_keeps_the_options_and_which_of_them_is_right(texts, data):
    options = dict(zip("ABCDEF", texts, strict=False))
    answer = data.draw(st.sampled_from(sorted(options)))
    made = rotations(options, answer)
    assert made[0] == (options, answer) and len(made) == len(options)
    assert all(rotated[letter] == options[answer] for rotated, letter in made)
    assert {letter for _, letter in made} == set(options)


def test_scienceqa_gives_the_tables_of_its_paper():
    def problem(name, said, **more):
        return Record(name, said, {"options": ["yes", "no"], "answer": 0, "subject": "natural science", **more})

    scores = ScienceQA().score(
        [
            problem("1", "A", hint="h", image="i.png", grade="grade3"),
            problem("2", "B", hint="", image=None, grade="grade9"),
            problem("3", "The answer is A.", hint="h", image=None, grade="grade6"),
        ]
    )
    values = {part: (metrics["accuracy"].value, metrics["accuracy"].n) for part, metrics in scores.groups.items()}
    assert values["context: text"] == (1.0, 2) and values["context: image"] == (1.0, 1)
    assert values["context: none"] == (0.0, 1)
    assert values["grade: 1 to 6"] == (1.0, 2) and values["grade: 7 to 12"] == (0.0, 1)
    assert values["subject: natural science"] == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize(
    "reference, says",
    [
        ({"options": ["a", "b"], "answer": 2}, "none of its 2 options"),
        ({"options": ["a", "b"], "answer": "c"}, "none of its 2 options"),
        ({"options": ["a"], "answer": 0}, "a choice needs two"),
        ({"options": "ab", "answer": 0}, "a list of texts is needed"),
        ({"answer": 0}, "has no options"),
    ],
)
def test_a_reference_that_is_no_choice_is_named(reference, says):
    with pytest.raises(ValueError, match=f"sample 1 .*{says}"):
        MultipleChoice().score([Record("1", "A", reference)])
