"""How far an LVLM is from its reference: in what becomes of pictures, in logits, and in weights after both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from embodied.lvlm.chat.media import Film
from embodied.lvlm.interop.checkpoints import from_reference, to_reference
from embodied.lvlm.model import LVLM, Batch
from embodied.lvlm.vision import Clip
from fakes.references import IMAGE, INSTRUCTION, SAID, VIDEO, Case, stacked


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
FILMS = [[(31, 40)] * 2, [(75, 33)] * 3]
"""The same of the frames of films."""
Seen = Image.Image | list[Image.Image]
"""A picture, or a film's frames."""


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
    for sizes in SAMPLES if case.call is not None else ():
        assert case.call is not None
        if len(sizes) > 1 and not case.several:
            continue
        pictures = [a_picture(*size) for size in sizes]
        processed = processor(pictures if case.flat else [pictures], return_tensors="pt")
        batch = a_batch(model, pictures, case)
        ours = [pixel for picture in batch.pictures for view in picture.views for pixel in view]
        views = case.views(processed, [len(picture.views) for picture in batch.pictures])
        pixels = max(pixels, apart(ours, views))
        logits = max(logits, unlike(model, batch, theirs, case.call(processed, batch.ids)))
    for sizes in FILMS if case.film is not None else ():
        assert case.film is not None
        frames = [a_picture(*size).rotate(90 * i) for i, size in enumerate(sizes)]
        batch = a_batch(model, [frames], case)
        (clip,) = batch.pictures
        assert isinstance(clip, Clip)
        processed = (case.frames or case.processor)()(frames, return_tensors="pt")
        views = (case.views if case.frames is None else stacked)(processed, [1] * len(frames))
        pixels = max(pixels, apart([frame.views[0][0] for frame in clip.frames], views))
        logits = max(logits, unlike(model, batch, theirs, case.film(torch.stack(views), batch.ids)))
    after = to_reference(model, theirs.config).state_dict()
    same = before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    return Difference(pixels, logits, same)


def apart(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """Largest difference of views' pixels."""
    assert [view.shape for view in ours] == [view.shape for view in theirs]
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def unlike(model: LVLM, batch: Batch, theirs: Any, call: dict[str, Any]) -> float:
    """Largest difference of logits."""
    with torch.no_grad():
        expected = theirs(**call).logits if "input_ids" in call else theirs(input_ids=batch.ids, **call).logits
        found = model(batch)
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


def a_batch(model: LVLM, pictures: Sequence[Seen], case: Case) -> Batch:
    """One conversation: a word, then each picture or film with two words behind."""
    assert model.vision is not None
    seen = [
        model.vision.film(each, range(len(each))) if isinstance(each, list) else model.vision.prepare(each)
        for each in pictures
    ]
    row = [1]
    for each in seen:
        found = model.vision.measured(each)
        count = sum(run.count for run in found.frames) if isinstance(found, Film) else found.count
        row += [VIDEO if isinstance(each, Clip) else IMAGE] * (1 if model.placement == "beside" else count) + [5, 6]
    ids = torch.tensor([row])
    return Batch(
        ids,
        torch.ones_like(ids, dtype=torch.bool),
        (ids == IMAGE) | (ids == VIDEO) if any(isinstance(each, Clip) for each in seen) else ids == IMAGE,
        seen,
        labels=SAID if case.says else None,
        text=INSTRUCTION.expand(len(seen), -1) if case.told else None,
    )
