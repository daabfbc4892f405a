"""RefCOCO, RefCOCO+ and RefCOCOg: which object an expression means (Kazemzadeh et al. 2014; Yu et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, mapping_of, within
from embodied.data.multimodal.readers.fields import Fields, Prompt
from embodied.data.multimodal.readers.llava import listed
from embodied.data.multimodal.readers.questions import QuestionReader
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json

PICKLES = (".p", ".pkl", ".pickle")


class RefCOCO(QuestionReader):
    """The official `refs(...)` as JSON, and `instances.json`: one sample per sentence.

    The official refs are a pickle, which can run anything when it is read, so it is refused. As JSON it is the same
    list: `[{"ref_id", "ann_id", "image_id", "split", "sentences": [{"sent_id", "sent"}]}]`.

    `meta["box"]` is x1, y1, x2, y2 in pixels, with the picture's `width` and `height`.

    Args:
        refs: the expressions, JSON.
        instances: `instances.json`, with the boxes (x, y, width, height in pixels) and the pictures' names.
        images: folder of the pictures (`train2014`).
        split: `train`, `val`, `testA`, `testB` (`test` in RefCOCOg).
        prompt: what is asked, with `{question}`, the expression.
        answer: the answer, with `{x1}`, `{y1}`, `{x2}`, `{y2}`.
        scale: what the width and the height of the picture count as in the answer; 0 for pixels.
        decimals: of the numbers in the answer.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: the refs are a pickle, a file is missing or something else, or nothing is of the split.
    """

    def __init__(
        self,
        refs: str | Path,
        instances: str | Path,
        images: str | Path,
        split: str = "train",
        prompt: str = "Where is {question}? Answer with its box.",
        answer: str = "[{x1}, {y1}, {x2}, {y2}]",
        scale: float = 1.0,
        decimals: int = 2,
        name: str = "refcoco",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        if Path(refs).suffix in PICKLES:
            raise ValueError(
                f"{refs} is a pickle, which can run anything when it is read: where you trust it, write it as JSON "
                "once (json.dump(pickle.load(open('refs(unc).p', 'rb')), open('refs.json', 'w'))) and give that"
            )
        content = mapping_of(read_json(instances), instances, "COCO's instances", "images", "annotations")
        rows = Rows(_sentences(listed(refs), content, split))
        if not len(rows):
            raise ValueError(f"{refs} has no expressions of the split '{split}'")
        super().__init__(name, refs, rows, images, prompt, on_error, look)
        self.answer = Prompt(answer, ("x1", "y1", "x2", "y2"), "answer")
        self.scale, self.decimals, self.split = scale, decimals, split

    def sample(self, record: Fields) -> Sample:
        name = f"{record.label('ref_id', str(record.number))}-{record.label('sent_id', '0')}"
        try:
            for key, what in (("instance", "annotation"), ("image", "image")):
                if key not in record:
                    raise BrokenSample("wrong field", f"the instances have no {what} {record.get(what + '_id')}")
            picture, instance = Fields(record.get("image")), Fields(record.get("instance"))
            box = instance.get("bbox")
            if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
                raise BrokenSample("wrong field", f"'bbox' is x, y, width and height, got {box!r:.60}")
            width, height = picture.whole("width"), picture.whole("height")
            corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
            told = corners
            if self.scale:
                told = [c * self.scale / side for c, side in zip(corners, (width, height) * 2, strict=True)]
            numbers = [f"{value:.{self.decimals}f}" for value in told]
            said = self.answer.fill(**dict(zip(("x1", "y1", "x2", "y2"), numbers, strict=True)))
            meta = {"box": corners, "width": width, "height": height, "split": self.split}
            meta |= {"image_id": picture.get("id"), "question_id": record.get("sent_id")}
            path = within(self.folder, picture.text("file_name"))
            return self.asked(name, [path], said, meta, question=record.text("sent"))
        except BrokenSample as fault:
            raise fault.at(sample=name) from None


def _sentences(refs: list[Any], instances: Any, split: str) -> Iterator[dict[str, Any]]:
    pictures = {one["id"]: one for one in instances["images"]}
    annotations = {one["id"]: {"bbox": one.get("bbox")} for one in instances["annotations"]}
    for ref in refs:
        if ref.get("split") != split:
            continue
        shared = {"ref_id": ref.get("ref_id"), "annotation_id": ref.get("ann_id"), "image_id": ref.get("image_id")}
        shared |= {"instance": annotations.get(ref.get("ann_id")), "image": pictures.get(ref.get("image_id"))}
        for sentence in ref.get("sentences", []):
            yield shared | {"sent_id": sentence.get("sent_id"), "sent": sentence.get("sent")}
