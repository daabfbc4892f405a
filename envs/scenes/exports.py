"""The same questions, captions and boxes in the formats that official scorers and readers take.

- COCO captions: `captions/<split>.json`.
- VQAv2: `vqa/<split>_questions.json` and `vqa/<split>_annotations.json`; ten equal answers to each question.
- POPE: `pope/<split>_<setting>.jsonl`, one question a line.
- RefCOCO as converted to JSON: `refs/<split>.json`, and `refs/<split>_instances.json` with COCO's boxes
  (x, y, width, height, in pixels).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from envs.scenes.probes import SETTINGS
from envs.scenes.samples import Picture, Written
from envs.scenes.settings import Settings
from envs.scenes.vocabulary import SHAPES

HUMANS = 10
"""Answers to a question of VQAv2."""
INFO = {"description": "Table-top scenes rendered in simulation; answers are true by construction", "version": "1.0"}
LICENSES = [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}]


def export(folder: Path, settings: Settings, split: str, pictures: Sequence[Picture], written: Written) -> None:
    """Write a split in all formats into a folder."""
    for name in ("captions", "vqa", "pope", "refs"):
        (folder / name).mkdir(exist_ok=True)
    images = [
        {"id": p.number, "file_name": Path(p.file).name, "width": settings.size, "height": settings.size, "license": 1}
        for p in pictures
    ]
    _captions(folder / "captions", split, images, written)
    _vqa(folder / "vqa", split, written)
    _references(folder / "refs", split, images, written)
    names = {image["id"]: image["file_name"] for image in images}
    for setting in SETTINGS:
        asked = written.asked[f"pope_{setting}"]
        rows = [
            {"question_id": i + 1, "image": names[number], "text": question.text, "label": question.answer}
            for i, (number, question) in enumerate(asked)
        ]
        write_lines(folder / "pope" / f"{split}_{setting}.jsonl", rows)


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _captions(folder: Path, split: str, images: list[dict[str, Any]], written: Written) -> None:
    texts = [(number, text) for number, captions in written.captions.items() for text in captions]
    annotations = [{"id": i + 1, "image_id": number, "caption": text} for i, (number, text) in enumerate(texts)]
    _write(folder / f"{split}.json", {"images": images, "licenses": LICENSES, "annotations": annotations})


def _vqa(folder: Path, split: str, written: Written) -> None:
    common = {"data_type": "scenes", "data_subtype": split, "license": LICENSES[0]}
    questions, annotations = [], []
    for i, (number, question) in enumerate(written.asked["vqa"]):
        ids = {"image_id": number, "question_id": i + 1}
        questions.append(ids | {"question": question.text})
        answers = [
            {"answer": question.answer, "answer_confidence": "yes", "answer_id": person + 1} for person in range(HUMANS)
        ]
        kinds = {"question_type": question.kind, "answer_type": question.answer_type}
        annotations.append(ids | kinds | {"multiple_choice_answer": question.answer, "answers": answers})
    _write(folder / f"{split}_questions.json", {**common, "task_type": "Open-Ended", "questions": questions})
    _write(folder / f"{split}_annotations.json", {**common, "annotations": annotations})


def _references(folder: Path, split: str, images: list[dict[str, Any]], written: Written) -> None:
    shapes = {shape: i + 1 for i, shape in enumerate(SHAPES)}
    names = {image["id"]: image["file_name"] for image in images}
    refs, annotations, sentence = [], [], 0
    for i, (number, _, fact, phrases) in enumerate(written.references):
        x1, y1, x2, y2 = fact.box
        ids = {"image_id": number, "category_id": shapes[fact.shape]}
        box = [x1, y1, x2 - x1, y2 - y1]
        annotations.append({"id": i + 1, **ids, "bbox": box, "area": fact.pixels, "iscrowd": 0})
        sentences = [
            {"sent_id": sentence + j, "sent": text, "raw": text, "tokens": text.split()}
            for j, text in enumerate(phrases)
        ]
        sentence += len(phrases)
        sent_ids = [one["sent_id"] for one in sentences]
        where = {"ref_id": i + 1, "ann_id": i + 1, **ids, "file_name": names[number], "split": split}
        refs.append({**where, "bbox": box, "sent_ids": sent_ids, "sentences": sentences})
    (folder / f"{split}.json").write_text(json.dumps(refs) + "\n", encoding="utf-8")
    categories = [{"id": number, "name": shape, "supercategory": "thing"} for shape, number in shapes.items()]
    content = {"images": images, "licenses": LICENSES, "annotations": annotations, "categories": categories}
    _write(folder / f"{split}_instances.json", content)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps({"info": INFO, **content}) + "\n", encoding="utf-8")
