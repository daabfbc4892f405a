"""Who never looks at the pictures doesn't do well."""

import numpy as np
import pytest

from envs.scenes.balance import Balance, cap, trimmed
from envs.scenes.language_only import language_only
from envs.scenes.probes import Probes
from envs.scenes.questions import KINDS, Asker, Question
from envs.scenes.scene import SceneDrawer
from envs.scenes.visibility import Fact
from envs.scenes.vocabulary import Vocabulary

WORDS = Vocabulary()
PAIRS = WORDS.pairs("train")


def facts_of(number):
    """What a picture would show if it were drawn."""
    scene = SceneDrawer(WORDS, 8, 2, 6).draw(number, "train")
    away = scene.camera.ground()[1]
    found = []
    for thing in scene.things:
        column, row = scene.camera.project(np.array([thing.middle]))[0]
        words = (thing.shape, thing.colour, thing.size, thing.texture)
        found.append(Fact(*words, True, 200, 1.0, (0, 0, 9, 9), column, row, float(np.array(thing.place) @ away)))
    return found


@pytest.fixture(scope="module")
def pictures():
    return {number: facts_of(number) for number in range(500)}


def asked_about(pictures, numbers):
    asker, balance = Asker(WORDS, PAIRS, 2, 6), Balance(2)
    for number in numbers:
        balance.add(number, asker.candidates(np.random.default_rng([1, number]), pictures[number]))
    return balance.balanced()


def test_a_reader_of_the_questions_alone_is_near_chance(pictures):
    train, test = asked_about(pictures, range(350)), asked_about(pictures, range(350, 500))
    blind = language_only(train, test)
    assert set(blind) == set(KINDS)
    for kind, scores in blind.items():
        limit = scores["chance"] + 0.12 + 2 * np.sqrt(0.25 / scores["n"])
        assert scores["accuracy"] < limit, (kind, scores)
    unbalanced = [(n, q) for n in range(500) for q in asked_candidates(pictures, n)]
    easy = language_only([one for one in unbalanced if one[0] < 350], [one for one in unbalanced if one[0] >= 350])
    assert easy["count"]["accuracy"] > blind["count"]["accuracy"] + 0.15  # so there is something to balance


def asked_candidates(pictures, number):
    return Asker(WORDS, PAIRS, 2, 6).candidates(np.random.default_rng([1, number]), pictures[number])


def test_words_of_probes_alone_do_not_tell_either(pictures):
    probes = Probes(PAIRS, list(pictures.values()))
    asked = [(n, q) for n, facts in pictures.items() for q in probes.ask(np.random.default_rng(n), facts, "random")]
    blind = language_only([one for one in asked if one[0] < 350], [one for one in asked if one[0] >= 350])["probe"]
    assert blind["accuracy"] < 0.65


def test_most_questions_survive_balancing(pictures):
    asked = asked_about(pictures, range(350))
    assert len(asked) > 0.7 * 350 * 2 * len(KINDS)
    assert [number for number, _ in asked] == sorted(number for number, _ in asked)


def test_the_commonest_answer_is_limited_and_yes_equals_no():
    def many(answer, count, possible, kind="kind"):
        return [(i, Question(kind, "key", "?", answer, possible)) for i in range(count)]

    kept = trimmed([*many("yes", 10, ("yes", "no")), *many("no", 4, ("yes", "no"))])
    assert [q.answer for _, q in kept].count("yes") == [q.answer for _, q in kept].count("no") == 4
    colours = ("red", "green", "blue")
    kept = trimmed([*many("red", 90, colours), *many("green", 30, colours), *many("blue", 30, colours)])
    counts = [sum(q.answer == colour for _, q in kept) for colour in colours]
    assert counts[1:] == [30, 30] and 30 <= counts[0] <= 1.4 * sum(counts) / 3 + 1e-9
    assert len(trimmed(many("anything", 5, ()))) == 5
    assert cap([0, 0], 1.4) == 0 and cap([7, 7], 1.0) == 7 and cap([9, 0], 1.0) == 0
