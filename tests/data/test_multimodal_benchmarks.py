"""Readers of benchmarks and of web pages take the official files: tiny ones in their form, written field by field."""

import json
from pathlib import Path

import pytest
from fakes.multimodal import conversation, write

from embodied.data.multimodal import BrokenSample
from embodied.data.multimodal.readers.ai2d import AI2D
from embodied.data.multimodal.readers.chartqa import ChartQA
from embodied.data.multimodal.readers.docvqa import DocVQA
from embodied.data.multimodal.readers.gqa import GQA
from embodied.data.multimodal.readers.interleaved import MMC4, Obelics
from embodied.data.multimodal.readers.refcoco import RefCOCO
from embodied.data.multimodal.readers.scienceqa import ScienceQA
from embodied.data.multimodal.readers.textvqa import TextVQA


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
