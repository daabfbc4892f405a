"""CHAIR and AMBER count objects that are not there, by the rules of their scripts."""

import json

import pytest

from embodied.evaluation.scorers import amber as module
from embodied.evaluation.scorers.amber import AMBER
from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.chair import CHAIR
from embodied.evaluation.scorers.coco import COCO
from embodied.evaluation.scorers.words import plurals, read_synonyms, words_of


def names(caption, scorer=None):
    return [name for _, name in (scorer or CHAIR()).objects_in(caption)]


def test_there_are_cocos_80_objects_and_no_word_means_two_of_them():
    words = [word for name, others in COCO.items() for word in (name, *others)]
    assert len(COCO) == 80 and len(words) == len(set(words))


@pytest.mark.parametrize(
    "caption, objects",
    [
        ("Two dogs and a kitten.", ["dog", "cat"]),
        ("Women with knives; children on couches", ["person", "knife", "person", "couch"]),
        ("A hot dog on a table", ["hot dog", "dining table"]),  # no dog
        ("A dog that is hot", ["dog"]),
        ("A baby elephant", ["elephant"]),  # no person
        ("The toilet seat is up", ["toilet"]),  # no chair
        ("the seat of the toilet", ["toilet"]),
        ("a passenger train on train tracks", ["train"]),  # a passenger train is no person, a track no train
        ("glasses of wine", []),
        ("wine glasses", ["wine glass"]),
        ("a bow tie", ["tie"]),
        ("The man's bike", ["person", "bicycle"]),
        ("buses, benches, skis and sandwiches", ["bus", "bench", "skis", "sandwich"]),
        ("a dogged cattle-dog", []),
    ],
)
def test_the_objects_that_a_caption_names(caption, objects):
    assert names(caption) == objects


def test_chair_counts_mentions_and_captions():
    records = [
        Record("1", "A dog beside a cat and two dogs", {"objects": ["dog"]}),  # 3 mentions, 1 invented
        Record("2", "A man on a bench", {"objects": ["person"], "captions": ["someone sits on a bench"]}),  # 2, 0
        Record("3", "It is sunny", {"objects": ["car"]}),  # 0, 0
    ]
    scores = CHAIR().score(records)
    assert scores.metrics["chair_i"].value == pytest.approx(1 / 5)
    assert scores.metrics["chair_s"].value == pytest.approx(1 / 3)
    assert scores.samples[0]["hallucinated"] == ["cat"] and scores.samples[1]["objects"] == ["bench", "person"]
    assert "1 captions name no object at all" in scores.notes[0] and "built-in list" in scores.notes[1]


def test_the_users_synonyms_replace_the_built_in_list(tmp_path):
    file = tmp_path / "synonyms.txt"
    file.write_text("vehicle, car, bus\ncoffee cup, mug\nphone, car\n")
    scorer = CHAIR(str(file))
    assert names("cars, buses and a coffee cup", scorer) == ["phone", "vehicle", "coffee cup"]  # the last line wins
    assert names("a dog", scorer) == []
    assert scorer.score([Record("1", "a bus", {"objects": ["vehicle"]})]).tools == {"synonyms": str(file)}
    file.write_text("\n")
    with pytest.raises(ValueError, match=r"synonyms\.txt holds no synonyms"):
        read_synonyms(file)


@pytest.mark.parametrize(
    "word, plural",
    [
        *(("dog", "dogs"), ("bus", "buses"), ("lady", "ladies"), ("boy", "boys"), ("policeman", "policemen")),
        *(("grandchild", "grandchildren"), ("potted plant", "potted plants"), ("knife", "knives")),
    ],
)
def test_plurals(word, plural):
    assert plural in plurals(word)


def test_words_lose_punctuation_and_possession():
    assert words_of("The dog's ball, isn’t it? (A t-shirt!)") == ["the", "dog", "ball", "isn't", "it", "a", "t-shirt"]


@pytest.mark.parametrize(
    "reference, says",
    [
        ({"objects": ["unicorn"]}, "has the object 'unicorn'"),
        ({"objects": "dog"}, "no list of texts"),
        ({}, "has no objects or captions"),
    ],
)
def test_a_picture_without_known_objects_is_named(reference, says):
    with pytest.raises(ValueError, match=f"sample 1 .*{says}"):
        CHAIR().score([Record("1", "a dog", reference)])


def asked(name, said, truth, kind="discriminative-hallucination"):
    return Record(name, said, {"type": kind, "truth": truth})


def test_ambers_precision_and_recall_are_of_no():
    # no: 3 right, 1 wrong (a yes denied), 1 missed; yes: 2 right; and one answer that is neither
    pairs = [("No", "no")] * 3 + [("No", "yes"), ("Yes", "no"), ("Yes", "yes"), ("yes.", "yes"), ("Maybe", "yes")]
    scores = AMBER().score([asked(str(i), said, truth) for i, (said, truth) in enumerate(pairs)])
    values = {name: metric.value for name, metric in scores.metrics.items()}
    assert values["accuracy"] == 5 / 8 and values["precision"] == 3 / 4 and values["recall"] == 3 / 4
    # the script: shares over n + 0.001, rounded to a tenth of a percent, and F1 with 0.0001 below
    assert values["f1"] == pytest.approx(2 * 0.75 * 0.75 / (0.75 + 0.75 + 0.0001), abs=1e-12)
    assert scores.groups["existence"]["f1"].value == pytest.approx(2 * 0.75 * 0.75 / (1.5 + 0.001), abs=1e-12)
    assert "1 answers are neither Yes nor No" in scores.notes[0]


def test_attributes_count_for_their_kind_and_for_all_attributes():
    kinds = ["discriminative-attribute-state", "discriminative-attribute-number", "relation"]
    scores = AMBER().score([asked(str(i), "No", "no", kind) for i, kind in enumerate(kinds)])
    assert set(scores.groups) == {"attribute", "state", "number", "relation"}
    assert scores.groups["attribute"]["accuracy"].n == 2


@pytest.fixture
def describing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_likeness", lambda: None)
    association = {"dog": ["puppy"], "grass": ["ground"], "cat": ["kitten"], "sky": [], "ground": [], "bird": []}
    (tmp_path / "relation.json").write_text(json.dumps(association))
    (tmp_path / "safe.txt").write_text("bird\nlight\n")
    return AMBER(str(tmp_path / "relation.json"), str(tmp_path / "safe.txt"))


def test_descriptions_are_scored_by_what_they_invent_and_cover(describing):
    truth = {"type": "generative", "truth": ["dog", "grass", "sky"], "hallu": ["cat"]}
    records = [
        Record("1", "Puppies on the ground chase a kitten and a bird.", truth),  # dog, grass; cat invented; bird safe
        Record("2", "The sky.", truth),
    ]
    scores = describing.score(records)
    values = {name: metric.value for name, metric in scores.metrics.items()}
    assert values["chair"] == pytest.approx(1 / 5)  # puppy, ground, kitten, bird; sky
    assert values["cover"] == pytest.approx(3 / 6)
    assert values["hal"] == 0.5 and values["cog"] == 0.5
    assert scores.samples[0]["hallucinated"] == ["kitten"]
    assert scores.tools["similarity"] == "association list only" and "is not installed" in scores.notes[-1]


def test_both_tasks_together_give_the_amber_score(describing):
    truth = {"type": "generative", "truth": ["dog"], "hallu": ["cat"]}
    scores = describing.score([Record("1", "A dog and a cat", truth), asked("2", "No", "no")])
    f1 = scores.metrics["f1"].value
    assert scores.headline[0] == "amber"
    assert scores.headline[1].value == pytest.approx((100 - 50 + 100 * f1) / 2)
    assert [sample["id"] for sample in scores.samples] == ["1", "2"]


@pytest.mark.parametrize(
    "reference, says",
    [
        ({"type": "generative", "truth": ["dog"]}, "need its association list"),
        ({"type": "relation", "truth": "perhaps"}, "yes or no is needed"),
        ({"type": "other", "truth": "yes"}, "has the type 'other'"),
    ],
)
def test_a_reference_of_another_form_is_named(reference, says):
    with pytest.raises(ValueError, match=says):
        AMBER().score([Record("1", "Yes", reference)])
