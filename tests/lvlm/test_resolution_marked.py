"""Ovis's tiles and marks, against transformers' own image processor and processor."""

import pytest
import torch
import transformers as hf
from fakes.parity import a_picture
from torch.testing import assert_close

from embodied.lvlm.encoders.base import Preprocess
from embodied.lvlm.resolution.marked import MarkedTiles

SIZES = [(60, 60), (61, 37), (40, 133), (131, 45), (28, 29), (200, 150), (19, 250), (13, 14), (90, 91)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("most", [1, 4, 9])
def test_tiles_are_those_of_ovis(size, most):
    processor = hf.Ovis2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=most)
    picture = a_picture(*size)
    made = processor(picture, return_tensors="pt")
    strategy = MarkedTiles(8, 28, most)
    layout = strategy.plan(*size)
    read = Preprocess((28, 28), tuple(processor.image_mean), tuple(processor.image_std))
    ours = torch.stack([read(view) for view in strategy.cut(picture, layout)])
    assert_close(ours, made["pixel_values"], rtol=0, atol=1e-6)
    assert list(layout.tiles) == made["grids"][0].tolist() or layout.tiles == (0, 0)


def test_marks_stand_between_the_parts():
    strategy = MarkedTiles(8, 28, 4)
    layout = strategy.plan(56, 56)
    assert layout.tiles == (2, 2)
    tokens = [torch.full((1, 8), float(i)) for i in range(5)]
    sequence = strategy.arrange(tokens, layout, [(1, 1)] * 5)
    assert len(sequence) == strategy.count(layout, [(1, 1)] * 5)
    names = {tuple(mark.tolist()): name for mark, name in zip(strategy.marks, "<g|/>", strict=True)}
    read = "".join(names.get(tuple(token.tolist()), str(int(token[0]))) for token in sequence)
    assert read == "<0g1|2/3|4>"


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="MarkedTiles: a picture of 0 x 5 pixels"):
        MarkedTiles(8, 28).plan(0, 5)
