"""Each reader takes the official files: tiny ones in their form are written here, field by field."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes.multimodal import conversation, write
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from embodied.building import build
from embodied.data.multimodal import BrokenSample
from embodied.data.multimodal.readers.ai2d import AI2D
from embodied.data.multimodal.readers.base import Reader
from embodied.data.multimodal.readers.chartqa import ChartQA
from embodied.data.multimodal.readers.coco import CocoCaptions
from embodied.data.multimodal.readers.docvqa import DocVQA
from embodied.data.multimodal.readers.interleaved import MMC4
from embodied.data.multimodal.readers.llava import LLaVA
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.readers.textvqa import TextVQA
from embodied.data.multimodal.readers.vqa import VQA

CONFIGS = Path(__file__).resolve().parents[2] / "conf" / "multimodal"


def draw(path, size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)
    return str(path)


def test_every_reader_has_a_config_that_builds_it(tmp_path):
    """Built from its YAML, on files that are missing: the reader's own words, not a wrong argument."""
    files = sorted(CONFIGS.glob("*.yaml"))
    assert len(files) == 16
    for file in files:
        node = {
            key: str(tmp_path / "none.json") if value == "???" else value
            for key, value in OmegaConf.to_container(OmegaConf.load(file)).items()
        }
        with pytest.raises((ValueError, OSError)) as caught:
            build(node, (Reader,))
        assert "takes no" not in str(caught.value) and "needs" not in str(caught.value), file


# LLaVA


LLAVA = [
    {
        "id": "a",
        "image": "coco/1.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "A cat."},
            {"from": "human", "value": "Sure?"},
            {"from": "gpt", "value": "Yes."},
        ],
    },
    {"id": "a", "conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]},
    {
        "id": "b",
        "image": ["1.jpg", "2.jpg"],
        "conversations": [
            {"from": "system", "value": "Be short."},
            {"from": "human", "value": "Compare <image> with <image>, please."},
            {"from": "gpt", "value": "Equal."},
        ],
    },
    {
        "id": "c",
        "video": "x.mp4",
        "conversations": [
            {"from": "gpt", "value": "Hello!"},
            {"from": "human", "value": "When?\n<video>"},
            {"from": "gpt", "value": "Now."},
        ],
    },
]


@pytest.mark.parametrize("lines", [False, True])
def test_llava_conversations_keep_their_turns_and_their_pictures(tmp_path, lines):
    file = tmp_path / ("x.jsonl" if lines else "x.json")
    file.write_text("\n\n".join(map(json.dumps, LLAVA)) if lines else json.dumps(LLAVA))
    read = LLaVA(file, tmp_path, images_first=False)
    assert [sample.id for sample in read] == ["a#0", "a#1", "b#2", "c#3"]
    assert read[0].images() == [str(tmp_path / "coco/1.jpg")]
    assert conversation(read[0]) == [
        ("user", ["<1.jpg>", "What is it?"]),
        ("assistant", ["A cat."]),
        ("user", ["Sure?"]),
        ("assistant", ["Yes."]),
    ]
    assert conversation(read[1]) == [("user", ["1 + 1?"]), ("assistant", ["2"])]
    assert conversation(read[2])[1] == ("user", ["Compare ", "<1.jpg>", " with ", "<2.jpg>", ", please."])
    assert conversation(read[3]) == [("user", ["When?", "<x.mp4>"]), ("assistant", ["Now."])]


def test_llava_puts_pictures_first_as_its_training_did(tmp_path):
    read = LLaVA(write(tmp_path / "x.json", LLAVA), tmp_path)
    assert conversation(read[3])[0] == ("user", ["<x.mp4>", "When?"])
    assert conversation(read[0])[0] == ("user", ["<1.jpg>", "What is it?"])


def turns(*values):
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    "record, reason, says",
    [
        ({"image": "1.jpg", "conversations": turns("Hi", "x")}, "image count mismatch", "0 <image> marks for 1 images"),
        ({"conversations": turns("<image> Hi", "x")}, "image count mismatch", "1 <image> marks for 0 images"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "unknown role", "turn 0 is from 'bot'"),
        ({"conversations": turns("Hi", " ")}, "empty answer", "says nothing"),
        ({"conversation": []}, "wrong field", "no 'conversations'; did you mean 'conversation'"),
        ({"conversations": [{"from": "human", "text": "x"}]}, "wrong field", "no 'value'"),
        ({"image": "../1.jpg", "conversations": turns("<image>", "x")}, "wrong field", "leads out of"),
        ({"image": 3, "conversations": turns("<image>", "x")}, "wrong field", "'image' is a path or a list"),
        ("text", "wrong field", "a record is a mapping"),
    ],
)
def test_a_broken_llava_record_is_told_with_file_and_sample(tmp_path, record, reason, says):
    record = {"id": "q9", **record} if isinstance(record, dict) else record
    read = LLaVA(write(tmp_path / "x.json", [record]), tmp_path)
    with pytest.raises(BrokenSample) as caught:
        read[0]
    assert caught.value.reason == reason and says in str(caught.value)
    assert str(tmp_path / "x.json") in str(caught.value) and "\n" not in str(caught.value)
    assert "sample 'q9#0'" in str(caught.value) or record == "text"


# What happens to broken ones


def test_broken_samples_stop_a_run_or_are_counted_by_reason_and_by_file(tmp_path):
    draw(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    names = ["good.jpg", "bad.jpg", "gone.jpg", "good.jpg"]
    records = [{"id": str(i), "image": n, "conversations": turns("<image>", "x")} for i, n in enumerate(names)]
    records.append({"id": "4", "conversations": turns("Hi", "")})
    file = write(tmp_path / "x.json", records)

    read = LLaVA(file, tmp_path, on_error="skip", look="decoded")
    assert [sample.id for sample in read] == ["0#0", "3#3"]
    for _ in range(2):  # going through again counts none twice
        list(read)
        assert read.faults.to_dict()["reasons"] == {"corrupt image": 1, "missing image": 1, "empty answer": 1}
    assert read.faults.files == {str(tmp_path / "bad.jpg"): 1, str(tmp_path / "gone.jpg"): 1, str(file): 1}
    assert "sample '1#1': the picture is damaged" in read.faults.examples["corrupt image"][0]
    assert str(read.faults).startswith("3 samples left out: ")

    assert len(list(LLaVA(file, tmp_path, on_error="skip", look="present"))) == 3
    assert len(list(LLaVA(file, tmp_path, on_error="skip"))) == 4
    with pytest.raises(BrokenSample, match=r"bad\.jpg, sample '1#1'"):
        list(LLaVA(file, tmp_path, look="decoded"))
    with pytest.raises(BrokenSample, match=r"gone\.jpg, sample '2#2'"):
        read[2]
    with pytest.raises(IndexError, match="samples 0 to 4"):
        read[5]
    with pytest.raises(ValueError, match="on_error is raise"):
        LLaVA(file, tmp_path, on_error="ignore")
    with pytest.raises(ValueError, match="look is one of"):
        LLaVA(file, tmp_path, look="closely")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.none(), max_size=4), max_size=8))
def test_records_come_back_from_their_block_of_bytes(records):
    assert list(Rows(records)) == records and Rows(records)[1:3] == records[1:3]


# Captions and questions


def coco_files(tmp_path):
    return write(
        tmp_path / "captions_val2017.json",
        {
            "info": {},
            "licenses": [],
            "images": [
                {"id": 139, "file_name": "000000000139.jpg", "width": 640, "height": 426, "license": 2},
                {"id": 285, "file_name": "000000000285.jpg", "width": 586, "height": 640, "license": 4},
            ],
            "annotations": [
                {"image_id": 285, "id": 2, "caption": "A bear. "},
                {"image_id": 139, "id": 1, "caption": "A room."},
                {"image_id": 139, "id": 3, "caption": "A chair by a table."},
                {"image_id": 999, "id": 4, "caption": "Nothing."},
            ],
        },
    )


def test_coco_has_a_sample_per_caption_to_train_on_and_one_per_image_to_score(tmp_path):
    file = coco_files(tmp_path)
    each = CocoCaptions(file, tmp_path, on_error="skip")
    assert [sample.id for sample in each] == ["2", "1", "3"]
    assert conversation(each[0]) == [
        ("user", ["<000000000285.jpg>", "Describe the image in one sentence."]),
        ("assistant", ["A bear."]),
    ]
    assert each.faults.reasons == {"missing image": 1} and "lists no image 999" in str(each.faults.examples)
    whole = CocoCaptions(file, tmp_path, per="image", prompt="")
    assert [(s.id, s.meta["captions"]) for s in whole] == [
        ("139", ["A room.", "A chair by a table."]),
        ("285", ["A bear."]),
    ]
    assert conversation(whole[0])[0] == ("user", ["<000000000139.jpg>"])
    assert (whole[0].meta["width"], whole[0].meta["height"]) == (640, 426)


def test_coco_captions_are_those_that_the_official_tool_finds(tmp_path):
    official = pytest.importorskip("pycocotools.coco", reason="needs pycocotools").COCO(str(coco_files(tmp_path)))
    for sample in CocoCaptions(coco_files(tmp_path), tmp_path, per="image"):
        theirs = official.loadAnns(official.getAnnIds(imgIds=sample.meta["image_id"]))
        assert sample.meta["captions"] == [one["caption"].strip() for one in theirs]


def vqa_files(tmp_path, subtype="val2014"):
    answers = ["net", "net", "tennis net", "net", "goal", "net", "net", "net", "net", "a net"]
    questions = write(
        tmp_path / "questions.json",
        {
            "info": {},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "data_subtype": subtype,
            "license": {},
            "questions": [
                {"image_id": 262148, "question": "What is behind him?", "question_id": 262148000},
                {"image_id": 262148, "question": "Is it day?", "question_id": 262148001},
            ],
        },
    )
    annotations = write(
        tmp_path / "annotations.json",
        {
            "annotations": [
                {
                    "question_type": "what is",
                    "multiple_choice_answer": "net",
                    "answers": [
                        {"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(answers)
                    ],
                    "image_id": 262148,
                    "answer_type": "other",
                    "question_id": 262148000,
                }
            ]
        },
    )
    return questions, annotations, answers


def test_vqa_questions_meet_their_annotations(tmp_path):
    questions, annotations, answers = vqa_files(tmp_path)
    read = VQA(questions, tmp_path, annotations, prompt="{question}\nAnswer in a word.", on_error="skip")
    (sample,) = read
    assert sample.id == "262148000" and sample.source == "vqav2"
    assert conversation(sample) == [
        ("user", ["<COCO_val2014_000000262148.jpg>", "What is behind him?\nAnswer in a word."]),
        ("assistant", ["net"]),
    ]
    assert sample.meta["answers"] == answers
    assert (sample.meta["question_type"], sample.meta["answer_type"]) == ("what is", "other")
    assert sample.meta["question_id"] == 262148000
    assert "has no annotation of it" in str(read.faults.examples)


def test_a_test_split_of_vqa_ends_with_the_question(tmp_path):
    questions, _, _ = vqa_files(tmp_path, "test-dev2015")
    read = VQA(questions, tmp_path, image_name="{split}/COCO_{split}_{id}.jpg")
    assert not read[0].answered and len(read) == 2
    assert read[0].images() == [str(tmp_path / "test2015/COCO_test2015_000000262148.jpg")]
    with pytest.raises(ValueError, match=r"prompt has a place \{qestion\}.*did you mean 'question'"):
        VQA(questions, tmp_path, prompt="{qestion}")


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda f, d: LLaVA(f, d), "should be a list of records"),
        (lambda f, d: ChartQA(f, d), "should be a list of records"),
        (lambda f, d: CocoCaptions(f, d), "not a file of COCO captions"),
        (lambda f, d: VQA(f, d), "not a file of VQA questions"),
        (lambda f, d: TextVQA(f, d), "not a file of TextVQA questions"),
        (lambda f, d: DocVQA(f, d), "not a file of DocVQA questions"),
        (lambda f, d: LLaVA(d / "list.json", d / "pictures"), "pictures, the folder of the pictures, does not exist"),
        (lambda f, d: LLaVA(d / "cut.json", d), "cut.json is not valid JSON"),
        (lambda f, d: AI2D(d), "no questions/"),
        (lambda f, d: MMC4(d / "none.jsonl"), "none.jsonl does not exist"),
    ],
)
def test_a_file_of_another_format_is_told_at_once(tmp_path, make, says):
    file = write(tmp_path / "x.json", {"rows": []})
    write(tmp_path / "list.json", [{"id": 1}])
    (tmp_path / "cut.json").write_text('[{"id": ')
    with pytest.raises(ValueError, match=says):
        make(file, tmp_path)
