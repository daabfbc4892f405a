"""`embodied-dataset action=clean` writes what filters keep, reports the rest, and destroys nothing."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from embodied.cli import dataset as command
from embodied.data.multimodal import load_image
from embodied.data.multimodal.readers.chat import Chat


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(words)`: (exit status, what it printed, its error line)."""

    def ran(*words):
        monkeypatch.setattr(sys, "argv", ["embodied-dataset", *map(str, words)])
        status = 0
        try:
            command.main()
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return ran


@pytest.fixture
def captions(tmp_path):
    """Two good pictures, and one each of: a duplicate, a tiny one, a repetitive text, a missing and a corrupt file."""
    rng = np.random.default_rng(0)
    entries = []
    for number, (side, text) in enumerate(
        [
            (64, "a red block on a table"),
            (64, "a blue ball beside it"),
            (0, "a red block on a table"),
            (8, "a tiny picture of something"),
            (64, "buy it now and " * 9),
            (None, "a missing picture"),
            (-1, "a corrupt picture"),
        ]
    ):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        if side == 0:
            path.write_bytes((tmp_path / "images" / "0.png").read_bytes())
        elif side == -1:
            path.write_bytes(b"\x89PNG cut")
        elif side:
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
        entries.append((path.name, text))
    content = {
        "images": [{"id": i, "file_name": name} for i, (name, _) in enumerate(entries)],
        "annotations": [{"id": i, "image_id": i, "caption": text} for i, (_, text) in enumerate(entries)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    return tmp_path


def words(folder, *more):
    read = ["multimodal=coco", f"multimodal.file={folder}/captions.json", f"multimodal.images={folder}/images"]
    return ["action=clean", *read, f"out={folder}/out/clean", *more]


def test_what_filters_keep_is_a_dataset_that_can_be_read_with_its_pictures(captions, run):
    status, printed, _ = run(*words(captions, "multimodal.on_error=skip"))
    assert status == 0 and "2 samples" in printed
    read = Chat(captions / "out/clean/samples.jsonl")
    assert [sample.id for sample in read] == ["0", "1"] and read[0].source == "coco"
    original = np.asarray(Image.open(captions / "images/1.png"))
    np.testing.assert_array_equal(np.asarray(load_image(read[1].images()[0])), original)
    report = json.loads((captions / "out/clean/report.json").read_text())
    assert (report["seen"], report["kept"]) == (7, 2)
    assert {name: part["removed"] for name, part in report["filters"].items()} == {
        "repetition": 1,
        "size": 1,
        "aspect": 0,
        "exact": 1,
    }
    assert report["broken"]["reasons"] == {"missing image": 1, "corrupt image": 1}
    assert report["settings"]["filters"]["size"]["min_side"] == 28


def test_other_filters_are_one_word_and_their_settings_another(captions, run):
    status, _, _ = run(*words(captions, "multimodal.on_error=skip", "filters=web", "filters.size.min_side=4"))
    assert status == 0
    report = json.loads((captions / "out/clean/report.json").read_text())
    assert set(report["filters"]) > {"similar_images", "similar_texts", "script"} and report["kept"] == 3


@pytest.mark.parametrize(
    "more, says",
    [
        ([], "5.png, sample '5': the image is missing"),
        (["multimodal.on_error=skip", "filters.size.min_side=999"], "none of 7 samples is left to write"),
        (["multimodal.on_error=ignore"], "on_error is raise"),
        (["filters.size.min_sid=3"], "did you mean 'filters.size.min_side'"),
        (["multimodal.fil=3"], "did you mean 'multimodal.file'"),
        (["multimodal.file=none.json"], "none.json"),
        (["filters.size._target_=embodied.data.multimodal.readers.coco.CocoCaptions"], "is not a Filter"),
    ],
)
def test_a_mistake_ends_in_one_line_and_leaves_nothing_behind(captions, run, more, says):
    status, _, error = run(*words(captions, *more))
    told = [line for line in error.splitlines() if " samples  " not in line]  # but for the progress
    assert status == 2 and len(told) == 1 and says in told[0], error
    assert not (captions / "out/clean").exists() and not list(captions.glob("out/*"))


def test_what_is_there_already_is_not_written_over(captions, run):
    (captions / "out/clean").mkdir(parents=True)
    (captions / "out/clean/mine.txt").write_text("mine")
    status, _, error = run(*words(captions, "multimodal.on_error=skip"))
    assert status == 2 and "is there already" in error
    assert [file.name for file in (captions / "out/clean").iterdir()] == ["mine.txt"]


def test_the_format_has_to_be_told(run, tmp_path):
    status, _, error = run("action=clean", f"out={tmp_path}/x")
    assert status == 2 and "multimodal is not given" in error
    status, _, error = run("action=clean", "multimodal=coco", f"out={tmp_path}/x")
    assert status == 2 and "multimodal.file" in error
