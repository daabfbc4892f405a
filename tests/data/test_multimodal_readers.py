"""Each reader takes the official files: tiny ones in their form are written here, field by field."""

import json
from pathlib import Path

import numpy as np
import pytest
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
from embodied.data.multimodal.readers.gqa import GQA
from embodied.data.multimodal.readers.interleaved import MMC4, Obelics
from embodied.data.multimodal.readers.llava import LLaVA
from embodied.data.multimodal.readers.refcoco import RefCOCO
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.readers.scienceqa import ScienceQA
from embodied.data.multimodal.readers.textvqa import TextVQA
from embodied.data.multimodal.readers.vqa import VQA

CONFIGS = Path(__file__).resolve().parents[2] / "conf" / "multimodal"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def draw(path, size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)
    return str(path)


def conversation(sample):
    """`[(role, [text, or <the picture's name>])]`."""
    return [
        (m["role"], [p["text"] if p["type"] == "text" else f"<{Path(p[p['type']]).name}>" for p in m["content"]])
        for m in sample.messages
    ]


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


def test_gqa_is_read_from_a_file_or_from_the_folder_it_comes_in(tmp_path):
    record = {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
        "entailed": ["02930160"],
        "equivalent": ["02930152"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {"2": "2486325"}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    }
    write(tmp_path / "all" / "train_0.json", {"02930152": record})
    write(tmp_path / "all" / "train_1.json", {"5": {**record, "imageId": "n1"}, "6": {"question": "?", "imageId": "1"}})
    read = GQA(tmp_path / "all", tmp_path)
    assert [sample.id for sample in read] == ["02930152", "5", "6"]
    assert conversation(read[0]) == [("user", ["<2354786.jpg>", "Is the sky dark?"]), ("assistant", ["yes"])]
    assert (read[0].meta["question_type"], read[0].meta["category"]) == ("verify", "attr")
    assert not read[2].answered
    whole = GQA(tmp_path / "all" / "train_0.json", tmp_path, full_answer=True)
    assert whole[0].answer() == "Yes, the sky is dark." and whole[0].meta["answers"] == ["yes"]


def test_textvqa_learns_what_most_people_said(tmp_path):
    record = {
        "question": "what brand?",
        "image_id": "0054c91397f2fe05",
        "image_classes": ["Clock"],
        "image_width": 1024,
        "image_height": 730,
        "answers": ["nous", "dakota", "dakota", ""],
        "question_tokens": ["what", "brand"],
        "question_id": 0,
        "set_name": "train",
    }
    test = {k: v for k, v in record.items() if k != "answers"} | {"question_id": 1, "set_name": "test"}
    file = write(tmp_path / "t.json", {"dataset_type": "train", "data": [record, test]})
    read = TextVQA(file, tmp_path)
    assert conversation(read[0]) == [("user", ["<0054c91397f2fe05.jpg>", "what brand?"]), ("assistant", ["dakota"])]
    assert read[0].meta["answers"] == record["answers"] and read[0].meta["split"] == "train"
    assert not read[1].answered and "answers" not in read[1].meta


def test_docvqa_learns_the_first_answer_and_accepts_all(tmp_path):
    record = {
        "questionId": 337,
        "question": "what is the date?",
        "question_types": ["handwritten", "form"],
        "image": "documents/xnbl0037_1.png",
        "docId": 279,
        "ucsf_document_id": "xnbl0037",
        "ucsf_document_page_no": "1",
        "answers": ["1/8/93", "Jan 8"],
        "data_split": "train",
    }
    other = {"questionId": 2, "question": "q", "image_local_name": "5.jpeg", "answers": [], "data_split": "val"}
    file = write(tmp_path / "d.json", {"dataset_name": "docvqa", "data": [record, other]})
    read = DocVQA(file, tmp_path, on_error="skip")
    assert read[0].images() == [str(tmp_path / "documents/xnbl0037_1.png")] and read[0].answer() == "1/8/93"
    assert read[0].meta["answers"] == ["1/8/93", "Jan 8"] and read[0].meta["question_type"] == "handwritten, form"
    assert len(list(read)) == 1 and read.faults.reasons == {"empty answer": 1}


def test_chartqa_tells_human_from_augmented_by_its_file(tmp_path):
    records = [
        {"imgname": "4.png", "query": "How many?", "label": "14"},
        {"imgname": "4.png", "query": "?", "label": 3},
    ]
    read = ChartQA(write(tmp_path / "test_human.json", records), tmp_path)
    assert conversation(read[0]) == [("user", ["<4.png>", "How many?"]), ("assistant", ["14"])]
    assert [s.meta["question_type"] for s in read] == ["human", "human"]
    assert [s.id for s in read] == ["human-0", "human-1"] and read[1].meta["answers"] == ["3"]


PROBLEM = {
    "question": "Which is a reptile?",
    "choices": ["frog", "gecko"],
    "answer": 1,
    "hint": "",
    "image": "image.png",
    "task": "closed choice",
    "grade": "grade3",
    "subject": "natural science",
    "topic": "biology",
    "category": "Classification",
    "skill": "Identify",
    "lecture": "Reptiles have scales.",
    "solution": "A gecko has.",
    "split": "train",
}


def test_scienceqa_is_read_by_split_with_and_without_pictures(tmp_path):
    problems = {
        "1": PROBLEM,
        "2": {**PROBLEM, "image": None, "hint": "Think."},
        "3": {**PROBLEM, "split": "test", "answer": 0},
    }
    file = write(tmp_path / "problems.json", problems)
    read = ScienceQA(file, tmp_path)
    assert conversation(read[0]) == [
        ("user", ["<image.png>", "Which is a reptile?\nA. frog\nB. gecko"]),
        ("assistant", ["B"]),
    ]
    assert read[0].images() == [str(tmp_path / "train/1/image.png")]
    assert conversation(read[1])[0] == ("user", ["Think.\nWhich is a reptile?\nA. frog\nB. gecko"])
    assert (read[0].meta["options"], read[0].meta["answer"]) == (["frog", "gecko"], 1)
    assert [s.meta["context"] for s in read] == ["image", "text"]
    assert len(ScienceQA(file, tmp_path, with_image=True)) == 1
    assert ScienceQA(file, tmp_path, "test", answer_by="text")[0].answer() == "frog"
    splits = write(tmp_path / "pid_splits.json", {"minival": ["3", "1", "9"]})
    small = ScienceQA(file, tmp_path, "minival", splits, on_error="skip")
    assert [s.id for s in small] == ["3", "1"] and "sample '9'" in str(small.faults.examples)
    with pytest.raises(ValueError, match="no split 'minval'; did you mean 'minival'"):
        ScienceQA(file, tmp_path, "minval", splits)
    with pytest.raises(ValueError, match="no problems of the split 'trian'"):
        ScienceQA(file, tmp_path, "trian")


def test_ai2d_is_read_in_the_order_of_its_diagrams_and_split_by_its_list(tmp_path):
    asked = {"abcLabel": True, "answerTexts": ["ears", "nose"], "correctAnswer": 1, "questionId": "2.png-0"}
    write(
        tmp_path / "questions/10.png.json", {"imageName": "10.png", "questions": {"B?": {**asked, "abcLabel": False}}}
    )
    write(tmp_path / "questions/2.png.json", {"imageName": "2.png", "questions": {"What is A?": asked, "C?": asked}})
    read = AI2D(tmp_path)
    assert [Path(s.images()[0]).name for s in read] == ["2.png", "2.png", "10.png"]
    assert conversation(read[0]) == [("user", ["<2.png>", "What is A?\nA. ears\nB. nose"]), ("assistant", ["B"])]
    (tmp_path / "abc_images").mkdir()
    assert [Path(s.images()[0]).parent.name for s in AI2D(tmp_path)] == ["abc_images", "abc_images", "images"]
    (tmp_path / "ids.csv").write_text("10\n")
    assert len(AI2D(tmp_path, tmp_path / "ids.csv", test=True)) == 1
    assert len(AI2D(tmp_path, tmp_path / "ids.csv")) == 2
    with pytest.raises(ValueError, match="test_ids"):
        AI2D(tmp_path, test=True)


def refcoco_files(tmp_path):
    refs = [
        {
            "sent_ids": [0, 1],
            "file_name": "COCO_train2014_000000581857_16.jpg",
            "ann_id": 1719310,
            "ref_id": 0,
            "image_id": 581857,
            "split": "val",
            "sentences": [
                {"tokens": ["lady"], "raw": "THE LADY", "sent_id": 0, "sent": "the lady"},
                {"tokens": ["left"], "raw": "left", "sent_id": 1, "sent": "left one"},
            ],
            "category_id": 1,
        },
        {"ref_id": 1, "ann_id": 5, "image_id": 581857, "split": "val", "sentences": [{"sent_id": 2, "sent": "gone"}]},
        {"ref_id": 2, "ann_id": 1719310, "image_id": 581857, "split": "testA", "sentences": []},
    ]
    instances = {
        "images": [{"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "width": 640, "height": 400}],
        "annotations": [{"id": 1719310, "bbox": [64.0, 100.5, 128, 200], "image_id": 581857, "category_id": 1}],
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }
    return write(tmp_path / "refs.json", refs), write(tmp_path / "instances.json", instances)


def test_refcoco_boxes_are_corners_in_pixels_and_answers_in_the_model_s_scale(tmp_path):
    refs, instances = refcoco_files(tmp_path)
    read = RefCOCO(refs, instances, tmp_path, "val", on_error="skip")
    lady, left = read
    assert conversation(lady)[0][1] == [
        "<COCO_train2014_000000581857.jpg>",
        "Where is the lady? Answer with its box.",
    ]
    assert lady.answer() == "[0.10, 0.25, 0.30, 0.75]"  # 64/640, 100.5/400, 192/640, 300.5/400
    assert lady.meta["box"] == [64.0, 100.5, 192.0, 300.5]
    assert (lady.meta["width"], lady.meta["height"], lady.meta["split"]) == (640, 400, "val")
    assert (lady.id, left.id) == ("0-0", "0-1") and left.meta["question"] == "left one"
    assert "no annotation 5" in str(read.faults.examples)
    qwen = RefCOCO(refs, instances, tmp_path, "val", answer="({x1},{y1}),({x2},{y2})", scale=999, decimals=0)
    assert qwen[0].answer() == "(100,251),(300,750)"
    assert RefCOCO(refs, instances, tmp_path, "val", scale=0, decimals=1)[0].answer() == "[64.0, 100.5, 192.0, 300.5]"


def test_refcoco_s_pickle_is_refused_with_the_way_out(tmp_path):
    _, instances = refcoco_files(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p is a pickle.*write it as JSON") as caught:
        RefCOCO(tmp_path / "refs(unc).p", instances, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no expressions of the split 'testB'"):
        RefCOCO(tmp_path / "refs.json", instances, tmp_path, "testB")


# Web pages


def test_obelics_rows_become_documents_in_their_order(tmp_path):
    url = "https://example.org/a.jpg"
    rows = [
        {"images": [url, None, "b.png"], "texts": [None, "Text.", None], "metadata": "[]", "general_metadata": "{}"},
        {"images": ["x", None], "texts": ["both", "t"]},
        {"images": [None], "texts": ["t", "u"]},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    index = write(tmp_path / "index.json", {url: "00/1.jpg"})
    read = Obelics(tmp_path / "x.jsonl", tmp_path, index, on_error="skip")
    assert conversation(read[0]) == [("assistant", ["<1.jpg>", "Text.", "<b.png>"])]
    assert len(list(read)) == 1 and read.faults.total == 2
    assert "either an image or a text" in str(read.faults.examples)
    # SHA-256 of the URL, by coreutils' sha256sum
    named = Obelics(tmp_path / "x.jsonl", tmp_path)[0].images()[0]
    assert Path(named).name == "700caca5ae8f856fc70b39312664d5c97f25108545c8f774199da1edfcc4ac60.jpg"
    with pytest.raises(BrokenSample, match="not on disk: give images"):
        Obelics(tmp_path / "x.jsonl")[0]
    with pytest.raises(BrokenSample, match="it has 2 images, more than 1"):
        Obelics(tmp_path / "x.jsonl", tmp_path, index, max_images=1)[0]


def test_mmc4_pictures_stand_beside_the_sentence_they_were_matched_with(tmp_path):
    page = {
        "text_list": ["One.", "Two.", "Three."],
        "url": "https://example.org",
        "image_info": [
            {"image_name": "a.jpg", "raw_url": "u", "matched_text_index": 2, "matched_sim": 0.3},
            {"image_name": "b.jpg", "raw_url": "u", "matched_text_index": 0, "matched_sim": 0.2},
            {"image_name": "c.jpg", "raw_url": "u", "matched_text_index": 2, "matched_sim": 0.4},
        ],
        "similarity_matrix": [[0, 0, 0.3], [0.2, 0, 0], [0, 0, 0.4]],
        "could_have_url_duplicate": 0,
    }
    wrong = {"text_list": ["One."], "image_info": [{"image_name": "a.jpg", "matched_text_index": 1}]}
    (tmp_path / "x.jsonl").write_text(json.dumps(page) + "\n" + json.dumps(wrong) + "\n{cut")
    read = MMC4(tmp_path / "x.jsonl", tmp_path, on_error="skip")
    before = ["<b.jpg>", "One.", "Two.", "<a.jpg>", "<c.jpg>", "Three."]
    assert conversation(read[0]) == [("assistant", before)]
    after = MMC4(tmp_path / "x.jsonl", tmp_path, "after", min_similarity=0.24)[0]
    assert conversation(after) == [("assistant", ["One.", "Two.", "Three.", "<a.jpg>", "<c.jpg>"])]
    assert len(list(read)) == 1 and read.faults.reasons == {"wrong field": 1, "broken record": 1}
    assert "'matched_text_index' is 1, of sentences 0 to 0" in str(read.faults.examples)


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
