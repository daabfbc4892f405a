"""Instructions as ids: nothing is unknown, nothing is lost by saving, and the padding is masked."""

import pytest

from embodied.lvlm.tokenizers.text import TextTokenizer

TASKS = ["press the button from the top", "open the door"]


def test_text_never_seen_in_training_survives_the_round_trip():
    tokenizer = TextTokenizer.train(TASKS)
    ids, mask = tokenizer(["grüße die Katze, 猫!", "open the door"])
    texts = [tokenizer.tokenizer.decode(row[kept]).strip() for row, kept in zip(ids, mask, strict=True)]
    assert texts == ["grüße die Katze, 猫!", "open the door"]


def test_saved_and_loaded_it_gives_the_same_ids(tmp_path):
    tokenizer = TextTokenizer.train(TASKS, template="What should the robot do to {task}?")
    tokenizer.save_pretrained(tmp_path)
    loaded = TextTokenizer.from_pretrained(tmp_path, template=tokenizer.template)
    for a, b in zip(tokenizer(TASKS), loaded(TASKS), strict=True):
        assert a.equal(b)


def test_training_does_not_depend_on_the_order_of_the_data():
    assert TextTokenizer.train(TASKS)(TASKS)[0].equal(TextTokenizer.train(TASKS[::-1] * 3)(TASKS)[0])


def test_an_empty_instruction_is_one_token():
    assert TextTokenizer.train(TASKS)([""])[1].sum() == 1


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer in"):
        TextTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no \{task\} in it"):
        TextTokenizer.train(TASKS, template="do it")
    with pytest.raises(ValueError, match="at most 3 are allowed"):
        TextTokenizer.train(["a"], max_tokens=3)(["a very long instruction indeed"])


def test_words_behind_other_text_are_spelled_and_read_back():
    tokenizer = TextTokenizer.train(TASKS)
    for text in ("128", "-7", "open the door;", "grüße 猫"):
        assert tokenizer.read(tokenizer.spell(text)) == text
        assert tokenizer.spell(f"{text} 5") == tokenizer.spell(text) + tokenizer.spell("5")


def test_numbers_are_spelled_digit_by_digit_where_wanted(tmp_path):
    texts = ["a cube [120,40,480,999]", "a ball [120,41,480,998]"] * 3
    merged, single = (TextTokenizer.train(texts, single_digits=wanted) for wanted in (False, True))
    assert len(merged.spell("480")) < 3
    for number in ("480", "999", "7"):
        spelled = single.spell(f"[{number}")
        assert [single.read([i]) for i in spelled[-len(number) :]] == list(number)
    single.save_pretrained(tmp_path)
    loaded = TextTokenizer.from_pretrained(tmp_path)
    assert loaded.spell(texts[0]) == single.spell(texts[0]) and loaded.read(loaded.spell(texts[0])) == texts[0]


def test_ids_that_are_no_text_leave_a_mark():
    tokenizer = TextTokenizer.train(TASKS)
    ids = tokenizer.spell("128")
    for other in (len(tokenizer), len(tokenizer) + 255, tokenizer.end):
        assert tokenizer.read([*ids, other]) != "128"
