"""How far an LVLM is from its reference: in what becomes of pictures, in logits, and in weights after both ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from embodied.lvlm.interop.checkpoints import from_reference, to_reference
from embodied.lvlm.model import LVLM, Batch
from fakes.references import IMAGE, INSTRUCTION, SAID, Case


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences.

    Attributes:
        pixels: between our views and the official processor's.
        logits: between our logits and the reference's, from the picture on.
        round_trip: whether weights come back bit for bit.
    """

    pixels: float
    logits: float
    round_trip: bool


SAMPLES = [[(31, 40)], [(75, 33)], [(31, 40), (20, 90)]]
"""(height, width) of the pictures of each sample."""


def a_picture(height: int, width: int) -> Image.Image:
    """Smooth shapes with noise, so that a filter or an offset that differs shows."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 3)], -1) * 100 + 128
    return Image.fromarray((waves + rng.normal(0, 20, waves.shape)).clip(0, 255).astype(np.uint8))


def measure(case: Case) -> Difference:
    """Compare a tiny reference with the LVLM that its weights make."""
    theirs = case.reference()
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    processor = case.processor()
    model = from_reference(theirs, processor.to_dict())
    pixels = logits = 0.0
    for sizes in SAMPLES:
        if len(sizes) > 1 and not case.several:
            continue
        pictures = [a_picture(*size) for size in sizes]
        processed = processor(pictures if case.flat else [pictures], return_tensors="pt")
        batch = a_batch(model, pictures, case)
        ours = [pixel for picture in batch.pictures for view in picture.views for pixel in view]
        views = case.views(processed, [len(picture.views) for picture in batch.pictures])
        assert [view.shape for view in ours] == [view.shape for view in views]
        pixels = max(pixels, *(float((a - b).abs().max()) for a, b in zip(ours, views, strict=True)))
        call = case.call(processed, batch.ids)
        with torch.no_grad():
            expected = theirs(**call).logits if "input_ids" in call else theirs(input_ids=batch.ids, **call).logits
            found = model(batch)
        assert found.shape == expected.shape
        logits = max(logits, float((found - expected).abs().max()))
    after = to_reference(model, theirs.config).state_dict()
    same = before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    return Difference(pixels, logits, same)


def a_batch(model: LVLM, pictures: list[Image.Image], case: Case) -> Batch:
    """One conversation: a word, then each picture with two words behind."""
    assert model.vision is not None
    seen = [model.vision.prepare(picture) for picture in pictures]
    row = [1]
    for picture in seen:
        row += [IMAGE] * (1 if model.placement == "beside" else model.vision.count(picture.layout)) + [5, 6]
    ids = torch.tensor([row])
    return Batch(
        ids,
        torch.ones_like(ids, dtype=torch.bool),
        ids == IMAGE,
        seen,
        labels=SAID if case.says else None,
        text=INSTRUCTION.expand(len(seen), -1) if case.told else None,
    )
