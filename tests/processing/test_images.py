"""Images change size as Pillow would change them, and vary in training by what was drawn for their row."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from embodied.processing.augment import ColorJitter, RandomCrop, RandomShift
from embodied.processing.images import CenterCrop, Resize
from embodied.processing.pipeline import Pipeline
from embodied.spec import ACTION, IMAGES

FRONT, WRIST = IMAGES + "front", IMAGES + "wrist"
VARIATIONS = [RandomShift(3), RandomCrop(20, 24), ColorJitter(0.5, 0.5, 0.5)]


def photos(rows=4, frames=2, height=30, width=40, seed=0):
    """Smooth images with some noise, not all alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (rows * frames, 4, 5, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)) for image in coarse]
    return torch.from_numpy(np.stack(smooth)).view(rows, frames, height, width, 3)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("size", [(17, 23), (30, 20), (64, 96)])
def test_resizing_is_pillows_bilinear_filter(size):
    images = photos()
    scaled = Resize(*size)({FRONT: images})[FRONT]
    assert scaled.shape == (4, 2, *size, 3) and scaled.dtype == torch.uint8
    for row, frame in ((0, 0), (3, 1)):
        image = Image.fromarray(images[row, frame].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(image).astype(int) - scaled[row, frame].int().numpy()).max() <= 1


def test_center_crop_keeps_the_middle():
    images = photos(height=5, width=8)
    assert torch.equal(CenterCrop(3, 4)({FRONT: images})[FRONT], images[:, :, 1:4, 2:6])


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: type(v).__name__)
def test_in_evaluation_nothing_is_random(variation):
    batch = {FRONT: photos(), ACTION: torch.randn(4, 2, 3)}
    result = variation.eval()(batch, generators(0, 1, 2, 3))
    expected = CenterCrop(20, 24)(batch)[FRONT] if isinstance(variation, RandomCrop) else batch[FRONT]
    assert torch.equal(result[FRONT], expected)
    assert torch.equal(variation.inverse(batch[ACTION], batch), batch[ACTION])


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: type(v).__name__)
def test_a_row_is_varied_alike_whoever_shares_its_batch(variation):
    batch = {FRONT: photos(), WRIST: photos(seed=1)}
    together = variation.train()(batch, generators(0, 1, 2, 3))
    alone = variation({key: images[[2]] for key, images in batch.items()}, generators(2))
    again = variation(batch, generators(0, 1, 2, 3))
    other = variation(batch, generators(4, 5, 6, 7))
    for camera in (FRONT, WRIST):
        assert torch.equal(together[camera][2], alone[camera][0]) and torch.equal(together[camera], again[camera])
        assert not torch.equal(together[camera], other[camera])
        assert together[camera].dtype == torch.uint8


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: type(v).__name__)
def test_frames_of_a_camera_move_together_and_cameras_do_not(variation):
    still = photos(frames=1).expand(-1, 3, -1, -1, -1)
    result = variation.train()({FRONT: still, WRIST: still}, generators(0, 1, 2, 3))
    assert torch.equal(result[FRONT][:, 0], result[FRONT][:, 2])
    assert not torch.equal(result[FRONT], result[WRIST])


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda v: type(v).__name__)
def test_without_generators_torchs_own_seed_decides(variation):
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        results.append(variation.train()({FRONT: photos()})[FRONT])
    assert torch.equal(*results)


def test_a_shift_is_a_crop_of_the_image_with_its_edge_repeated():
    images, pixels = photos(rows=300, frames=1, height=6, width=7), 2
    shifted = RandomShift(pixels).train()({FRONT: images}, generators(*range(300)))[FRONT]
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    counts = {}
    for row in range(300):
        fits = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(padded[row, :, y : y + 6, x : x + 7], shifted[row].numpy())
        ]
        assert len(fits) == 1
        counts[fits[0]] = counts.get(fits[0], 0) + 1
    assert len(counts) == 25 and max(counts.values()) < 30  # 12 expected each


def test_a_random_crop_is_a_part_of_the_image_and_reaches_every_corner():
    images = photos(rows=200, frames=1, height=6, width=7)
    crops = RandomCrop(5, 5).train()({FRONT: images}, generators(*range(200)))[FRONT]
    found = {
        (y, x)
        for row in range(200)
        for y in range(2)
        for x in range(3)
        if torch.equal(images[row, :, y : y + 5, x : x + 5], crops[row])
    }
    assert len(found) == 6 and crops.shape == (200, 1, 5, 5, 3)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("drawn", [0.0, 0.25, 0.9])
def test_each_factor_means_what_it_means_in_pillow(name, drawn):
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    images = photos(rows=1, frames=1)
    varied = ColorJitter(**off | {name: 0.6}).vary(images, torch.full((1, 3), drawn))
    enhance = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    expected = enhance[name](Image.fromarray(images[0, 0].numpy())).enhance(1 + 0.6 * (2 * drawn - 1))
    assert np.abs(np.asarray(expected).astype(int) - varied[0, 0].int().numpy()).max() <= 2


def test_factors_together_are_one_after_the_other():
    images = (photos(rows=1, frames=1) // 4 + 96).to(
        torch.uint8
    )  # far from black and white: nothing is cut off between
    varied = ColorJitter(0.2, 0.5, 0.5).vary(images, torch.tensor([[0.8, 0.3, 0.9]]))
    expected = Image.fromarray(images[0, 0].numpy())
    for enhance, factor in (
        (ImageEnhance.Brightness, 1.12),
        (ImageEnhance.Contrast, 0.8),
        (ImageEnhance.Color, 1.4),
    ):
        expected = enhance(expected).enhance(factor)
    assert np.abs(np.asarray(expected).astype(int) - varied[0, 0].int().numpy()).max() <= 4


def test_the_size_that_leaves_a_pipeline_is_known_beforehand():
    pipeline = Pipeline({"scale": Resize(20, 30), "crop": RandomCrop(16, 24), "shift": RandomShift(2)})
    assert pipeline.image_size(30, 40) == (16, 24)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Resize(0, 5), "at least 1"),
        (lambda: CenterCrop(5, -1), "at least 1"),
        (lambda: RandomShift(-1), "not be negative"),
        (lambda: ColorJitter(brightness=1.5), "brightness must be from 0 to 1"),
        (lambda: CenterCrop(40, 40)({FRONT: photos()}), "cannot cut 40 x 40 from 30 x 40"),
        (lambda: RandomCrop(40, 40).train()({FRONT: photos()}), "RandomCrop: cannot cut 40 x 40 from 30 x 40"),
    ],
)
def test_a_mistake_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
