"""Filters leave out what they say, remember what stays, and account for every sample."""

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embodied.data.multimodal import BrokenSample, Sample, image, message
from embodied.data.multimodal.filters.base import Opened
from embodied.data.multimodal.filters.duplicates import ExactDuplicates, ImageNearDuplicates, TextNearDuplicates
from embodied.data.multimodal.filters.image import AspectRatio, ImageCount, ImageSize
from embodied.data.multimodal.filters.pipeline import Pipeline
from embodied.data.multimodal.filters.text import CharacterRatio, FlaggedWords, Script, TextLength, WordRepetition


def caption(text, *pictures, id="1", asked="What is it?"):
    return Sample(id, [message("user", *map(image, pictures), asked), message("assistant", text)], "here")


def refused(one, *args, **kwargs):
    return one.refuse(Opened(caption(*args, **kwargs)))


def kept(filters, samples):
    return [sample.id for sample in Pipeline(filters)(samples)]


@pytest.fixture
def draw(tmp_path):
    """`draw(width, height)`: the path of such a picture, of smooth noise by `seed`."""

    def drawn(width=64, height=64, seed=0, name=None, change=0):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        if change:
            picture = picture.point(lambda value: min(value + change, 255))
        path = tmp_path / (name or f"{width}x{height}-{seed}.png")
        picture.save(path)
        return str(path)

    return drawn


# Pictures


def test_pictures_are_measured_as_they_are_shown(draw, tmp_path):
    assert refused(ImageSize(50), "x", draw(50, 80)) is None
    assert refused(ImageSize(51), "x", draw(50, 80)) == "image too small"
    assert refused(ImageSize(1, max_side=79), "x", draw(50, 80)) == "image too large"
    assert refused(ImageSize(1, max_pixels=3999), "x", draw(50, 80)) == "image too large"
    assert refused(AspectRatio(1.6), "x", draw(50, 80)) is None
    for size in ((50, 80), (80, 50)):
        assert refused(AspectRatio(1.59), "x", draw(*size)) == "image too long and thin"
    assert refused(AspectRatio(2), "x", draw(50, 80), draw(10, 90)) == "image too long and thin"
    assert refused(ImageCount(), "x") == "no image"
    assert refused(ImageCount(2, 2), "x", "a") == "too few images"
    assert refused(ImageCount(0, 1), "x", "a", "b") == "too many images"


# Text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["ab", "cd", "ef"]), max_size=30), st.integers(1, 4), st.floats(0, 1))
def test_repeated_runs_of_words_are_counted_as_one_would_by_hand(words, length, most):
    runs = [words[i : i + length] for i in range(len(words) - length + 1)]
    again = sum(runs.count(run) > 1 for run in runs)
    expected = bool(runs) and again > most * len(runs)
    assert (refused(WordRepetition(length, most), " ".join(words) or "!") == "words repeat") == expected


@pytest.mark.parametrize(
    "one, text, why",
    [
        (TextLength(3, 5), "one two three", None),
        (TextLength(3, 5), "one two", "text too short"),
        (TextLength(3, 5), "1 2 3 4 5 6", "text too long"),
        (TextLength(None, None, 4, 6), "abcdefg", "text too long"),
        (TextLength(None, None, 4, 6), "abc", "text too short"),
        (TextLength(6, None, of="all"), "one two three", None),
        (CharacterRatio(0.5), "abc 123", None),
        (CharacterRatio(0.51), "abc 123", "too few letters"),
        (CharacterRatio(0, 0.4), "abc 123", "too many digits"),
        (CharacterRatio(0, 1, 0.3), "ab ##", "too many signs"),
        (CharacterRatio(1.0), "नमस्ते", None),
        (Script(), "Ünïcödé and more", None),
        (Script(), "это по-русски", "another script"),
        (Script(["CYRILLIC"]), "это по-русски", None),
        (Script(["CJK", "HIRAGANA"]), "猫がいる", None),
        (Script(), "123!", None),
        (FlaggedWords(["spam"]), "Some SPAM, here", "flagged words"),
        (FlaggedWords(["spam"]), "some spams here", None),
        (FlaggedWords(["buy now"]), "Buy NOW!", "flagged words"),
        (FlaggedWords(["buy now"]), "buy it now", None),
        (FlaggedWords(["spam"], most=0.25, of="answer"), "spam and three more", None),
        (FlaggedWords(["spam"], most=0.24, of="answer"), "spam and three more", "flagged words"),
    ],
)
def test_texts_are_judged_by_their_words_and_characters(one, text, why):
    assert refused(one, text) == why


def test_flagged_words_come_from_a_file_too(tmp_path):
    (tmp_path / "bad.txt").write_text("spam\n\n free money \n", encoding="utf-8")
    assert refused(FlaggedWords(file=tmp_path / "bad.txt"), "Free money here") == "flagged words"


# Duplicates


def test_exact_duplicates_are_of_text_or_of_images_or_of_both(draw, tmp_path):
    first, again = draw(name="a.png"), draw(name="b.png")  # two files of equal bytes
    other = draw(seed=1)
    samples = [
        caption("A cat.", first, id="0"),
        caption("A cat. ", again, id="1"),  # the same, but for a space
        caption("A cat.", other, id="2"),
        caption("A dog.", first, id="3"),
        caption("No picture.", id="4"),
        caption("No picture.", id="5"),
    ]
    assert kept({"x": ExactDuplicates("both")}, samples) == ["0", "2", "3", "4"]
    assert kept({"x": ExactDuplicates("text")}, samples) == ["0", "3", "4"]
    assert kept({"x": ExactDuplicates("images")}, samples) == ["0", "2", "4", "5"]


def test_memory_is_bounded_so_duplicates_are_found_within_a_window(draw):
    samples = [caption(text, id=str(i)) for i, text in enumerate(["a b c", "d e f", "g h i", "a b c", "g h i"])]
    for make in (lambda n: ExactDuplicates("text", n), lambda n: TextNearDuplicates(0.8, 2, of="answer", remember=n)):
        assert kept({"x": make(3)}, samples) == ["0", "1", "2"]
        assert kept({"x": make(2)}, samples) == ["0", "1", "2", "3"]
    pictures = [caption("x", draw(seed=s, name=f"{i}.png"), id=str(i)) for i, s in enumerate([0, 1, 2, 0, 2])]
    assert kept({"x": ImageNearDuplicates(remember=3)}, pictures) == ["0", "1", "2"]
    window = ImageNearDuplicates(remember=2)
    assert kept({"x": window}, pictures) == ["0", "1", "2", "3"]
    assert sum(len(found) for band in window._bands for found in band.values()) == 2 * len(window._bands)


def test_pictures_that_look_alike_are_found_whatever_their_size_and_file(draw):
    samples = [
        caption("first", draw(seed=0), id="0"),
        caption("larger", draw(160, 160, seed=0), id="1"),
        caption("brighter, as JPEG", draw(seed=0, name="x.jpg", change=6), id="2"),
        caption("another", draw(seed=1), id="3"),
        caption("the same file, another question", draw(seed=0), id="4"),
        caption("one old and one new", draw(seed=0, name="c.png"), draw(seed=2), id="5"),
        caption("no picture", id="6"),
    ]
    assert kept({"x": ImageNearDuplicates()}, samples) == ["0", "3", "4", "5", "6"]
    assert kept({"x": ImageNearDuplicates(several_per_image=False)}, samples) == ["0", "3", "5", "6"]


@pytest.mark.parametrize("distance", [0, 1, 5, 20])
def test_similar_pictures_are_those_that_comparing_all_pairs_would_find(draw, distance):
    paths = [draw(seed=i // 3, name=f"{i}.jpg", change=40 * (i % 3)) for i in range(18)]
    hashes = [imagehash.dhash(Image.open(path)) for path in paths]
    wanted: list[int] = []
    for i, code in enumerate(hashes):
        if not any(code - hashes[j] <= distance for j in wanted):
            wanted.append(i)
    samples = [caption("x", path, id=str(i)) for i, path in enumerate(paths)]
    assert kept({"x": ImageNearDuplicates(distance, "dhash")}, samples) == [str(i) for i in wanted]
    assert len(wanted) < 18


def test_similar_texts_are_those_whose_runs_of_words_overlap():
    rng = np.random.default_rng(0)
    words = [str(n) for n in rng.integers(0, 10_000, 300)]
    changed = list(words)
    changed[10] = "else"  # of 296 runs of 5, 5 differ on each side: Jaccard 291 / 301 = 0.967
    half = words[:150] + [str(n) for n in rng.integers(10_000, 20_000, 150)]  # about 146 / 446 = 0.33
    samples = [caption(" ".join(text), id=str(i)) for i, text in enumerate([words, changed, half, half])]
    assert kept({"x": TextNearDuplicates(0.8, of="answer")}, samples) == ["0", "2"]
    assert kept({"x": TextNearDuplicates(0.99, of="answer")}, samples) == ["0", "1", "2"]
    assert kept({"x": TextNearDuplicates(0.2, of="answer")}, samples) == ["0"]


# The pipeline


def test_the_report_accounts_for_every_sample(draw):
    samples = [
        caption("a good caption", draw(seed=0), id="good"),
        caption("a good caption", draw(seed=0), id="again"),
        caption("short", draw(seed=1), id="short"),
        caption("a long and thin one", draw(20, 200), id="thin"),
        caption("a missing one", "gone.png", id="gone"),
        caption("tiny as it is", draw(8, 8), id="tiny"),
    ]
    pipeline = Pipeline(
        {"length": TextLength(3), "size": ImageSize(16), "aspect": AspectRatio(), "exact": ExactDuplicates()}
    )
    assert [sample.id for sample in pipeline(samples)] == ["good"]
    report = pipeline.report.to_dict()
    assert (report["seen"], report["kept"], report["broken"]["total"]) == (6, 1, 1)
    removed = {name: part["reasons"] for name, part in report["filters"].items()}
    assert removed == {
        "length": {"text too short": {"removed": 1, "examples": ["here/short"]}},
        "size": {"image too small": {"removed": 1, "examples": ["here/tiny"]}},
        "aspect": {"image too long and thin": {"removed": 1, "examples": ["here/thin"]}},
        "exact": {"exact duplicate": {"removed": 1, "examples": ["here/again"]}},
    }
    assert "gone.png, sample 'gone': the image is missing" in report["broken"]["examples"]["missing image"]
    lines = str(pipeline.report).splitlines()
    assert lines[1].split()[:3] == ["length", "5", "1"] and lines[-2].split() == ["kept", "1", "of", "6"]
    with pytest.raises(BrokenSample, match=r"gone\.png"):
        list(Pipeline({"size": ImageSize(16)}, on_error="raise")(samples))


def test_what_another_filter_left_out_makes_no_duplicate_of_a_good_one(draw):
    samples = [caption("same words here", draw(8, 8), id="tiny"), caption("same words here", draw(), id="good")]
    assert kept({"exact": ExactDuplicates("text"), "size": ImageSize(16)}, samples) == ["good"]


def test_samples_pass_one_at_a_time():
    asked = []

    def endless():
        for number in range(10**9):
            asked.append(number)
            yield caption(f"caption number {number}", id=str(number))

    passing = Pipeline({"length": TextLength(2)})(endless())
    assert [next(passing).id for _ in range(3)] == ["0", "1", "2"] and len(asked) == 3


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: ImageSize(10, 5), "keeps nothing"),
        (lambda: ImageSize(10, None, 99), "keeps nothing"),
        (lambda: ImageCount(2, 1), "keeps nothing"),
        (lambda: AspectRatio(0.5), "at least 1"),
        (lambda: TextLength(5, 3), "keeps nothing"),
        (lambda: TextLength(of="question"), "of is answer"),
        (lambda: WordRepetition(0), "length is at least 1"),
        (lambda: WordRepetition(3, 2), "from 0 to 1"),
        (lambda: CharacterRatio(50), "from 0 to 1"),
        (lambda: Script([]), "list of names"),
        (lambda: FlaggedWords(), "give words"),
        (lambda: FlaggedWords(file="none.txt"), "none.txt does not exist"),
        (lambda: ExactDuplicates("pixels"), "of is one of text, images, both"),
        (lambda: ExactDuplicates(remember=0), "at least 1"),
        (lambda: ImageNearDuplicates(64), "0 to 63 bits"),
        (lambda: ImageNearDuplicates(hash="md5"), "phash"),
        (lambda: TextNearDuplicates(0), "above 0"),
        (lambda: TextNearDuplicates(permutations=8), "permutations is at least 32"),
        (lambda: Pipeline({}), "at least one filter"),
        (lambda: Pipeline({"x": 3}), "filter 'x' is a int"),
        (lambda: Pipeline({"x": ImageCount()}, "drop"), "on_error is raise"),
    ],
)
def test_a_mistake_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
