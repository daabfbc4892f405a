"""COCO captions and files of that form: Flickr30k, NoCaps (Chen et al. 2015)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Literal, get_args

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, TableReader, existing, mapping_of, meta_of, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample, image, message
from embodied.files import read_json

Per = Literal["caption", "image"]


class CocoCaptions(TableReader):
    """`{"images": [{"id", "file_name", ...}], "annotations": [{"id", "image_id", "caption"}]}`.

    Args:
        file: such as `captions_train2017.json`.
        images: folder of the pictures.
        per: one sample per `caption` (to train on), or per `image` (to score: `meta["captions"]` has all of them).
        prompt: what is asked; with an empty one, the picture alone is.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: the file is missing or something else.
    """

    def __init__(
        self,
        file: str | Path,
        images: str | Path,
        per: Per = "caption",
        prompt: str = "Describe the image in one sentence.",
        name: str = "coco",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        if per not in get_args(Per):
            raise ValueError(f"per is caption or image, got {per!r}")
        content = mapping_of(read_json(file), file, "a file of COCO captions", "images", "annotations")
        pictures = {record.get("id"): record for record in content["images"] if isinstance(record, dict)}
        captions: dict[Any, list[Any]] = defaultdict(list)
        for annotation in content["annotations"]:
            captions[annotation.get("image_id")].append(annotation.get("caption"))
        if per == "image":
            entries = [{"id": key, "image": one, "captions": captions.get(key, [])} for key, one in pictures.items()]
        else:
            entries = [
                {"id": one.get("id"), "image_id": one.get("image_id"), "caption": one.get("caption")}
                | {"image": pictures.get(one.get("image_id"))}
                for one in content["annotations"]
            ]
        super().__init__(name, file, Rows(entries), on_error, look)
        self.folder, self.prompt, self.per = existing(images), prompt, per

    def sample(self, record: Fields) -> Sample:
        name = record.label("id", str(record.number))
        try:
            if "image" not in record:
                raise BrokenSample("missing image", f"the file lists no image {record.get('image_id')}")
            picture = Fields(record.get("image"))
            asked = [image(within(self.folder, picture.text("file_name")))] + ([self.prompt] if self.prompt else [])
            captions = record.texts("captions") if self.per == "image" else [record.text("caption")]
            meta = {"image_id": picture.get("id"), "captions": [caption.strip() for caption in captions]}
            meta |= meta_of(width=picture.get("width"), height=picture.get("height"))
            messages = [message("user", *asked)]
            if captions:
                messages.append(message("assistant", captions[0].strip()))
            return Sample(name, messages, self.name, meta)
        except BrokenSample as fault:
            raise fault.at(sample=name) from None
