"""Pictures come upright and RGB from any place they can be in, frames from where they were asked; damage is told."""

import base64
import io
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from embodied.data.lerobot.video import encode_video
from embodied.data.multimodal import BrokenSample, frame_indices, load_frames, load_image
from embodied.data.multimodal.media import embedded, image_size, inside, reachable


@pytest.fixture
def picture():
    """(12, 20, 3): every pixel differs from its neighbours."""
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What each EXIF orientation asks for (Exif 2.3, 0x0112): row 0 and column 0 of the stored pixels are where it says."""


@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_stands_upright_whichever_way_the_camera_was_held(tmp_path, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "x.png", exif=exif)
    upright = TURNS[orientation](picture)
    np.testing.assert_array_equal(np.asarray(load_image(str(tmp_path / "x.png"))), upright)
    assert image_size(str(tmp_path / "x.png")) == upright.shape[1::-1]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    grey = np.linspace(0, 255, 240).astype(np.uint8).reshape(12, 20)
    if mode == "I;16":
        stored = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        stored = Image.fromarray(grey).convert("RGB" if mode == "RGBA" else "L").convert(mode)
    stored.save(tmp_path / ("x.jpg" if mode == "CMYK" else "x.png"))
    found = load_image(str(next(tmp_path.iterdir())))
    assert found.mode == "RGB" and found.size == (20, 12)
    if mode not in ("1", "CMYK"):  # these two do not hold the greys exactly
        assert np.abs(np.asarray(found, np.int16) - grey[..., None]).max() <= 1


def test_a_picture_is_the_same_as_a_file_in_an_archive_and_within_the_sample(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.png")
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(tmp_path / "x.png", "deep/x.png")
    with tarfile.open(tmp_path / "shard.tar") as archive:
        member = archive.getmember("deep/x.png")
    references = [
        str(tmp_path / "x.png"),
        inside(tmp_path / "shard.tar", member.offset_data, member.size, "deep/x.png"),
        embedded((tmp_path / "x.png").read_bytes()),
    ]
    for reference in references:
        np.testing.assert_array_equal(np.asarray(load_image(reference)), picture)
        assert image_size(reference) == (20, 12)
        reachable(reference)
    np.testing.assert_array_equal(np.asarray(load_image(Image.fromarray(picture))), picture)


def test_a_large_picture_is_scaled_down_or_refused_before_it_is_decoded(tmp_path):
    Image.new("RGB", (400, 100)).save(tmp_path / "x.png")
    assert load_image(str(tmp_path / "x.png"), longest=80).size == (80, 20)
    assert load_image(str(tmp_path / "x.png"), longest=500).size == (400, 100)
    with pytest.raises(BrokenSample, match=r"x\.png, sample 'q': the picture has 400 x 100 pixels, more than 39999"):
        load_image(str(tmp_path / "x.png"), "q", max_pixels=39_999)


def damaged(path, kind):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "text": b"<html>404</html>", "head": data[:30]}[kind]
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif"])
@pytest.mark.parametrize("kind", ["cut", "empty", "text", "head"])
def test_a_damaged_picture_is_told_in_one_line_with_file_and_sample(tmp_path, suffix, kind):
    damaged(tmp_path / f"x{suffix}", kind)
    with pytest.raises(BrokenSample) as caught:
        load_image(str(tmp_path / f"x{suffix}"), "q3")
    assert caught.value.reason == "corrupt image"
    assert f"x{suffix}, sample 'q3': " in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_picture_is_told_in_one_line_with_file_and_sample(tmp_path):
    for look in (load_image, reachable, image_size):
        with pytest.raises(BrokenSample, match=r"gone\.jpg") as caught:
            look(str(tmp_path / "gone.jpg"))
        assert caught.value.reason == "missing image"
    with pytest.raises(BrokenSample, match="sample 'q3': the image is missing"):
        load_image(str(tmp_path / "gone.jpg"), "q3")


def test_an_archive_that_was_cut_short_is_told(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 100)
    reference = inside(tmp_path / "a.tar", 90, 20, "1.jpg")
    for look in (load_image, reachable):
        with pytest.raises(BrokenSample, match="the archive ends before it"):
            look(reference)
    with pytest.raises(BrokenSample, match="not base64"):
        load_image("data:image/png;base64,@@@")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """30 frames at 10 Hz, 64 x 64, whose grey tells their number; a key frame every 8."""
    path = tmp_path_factory.mktemp("film") / "x.mp4"
    encode_video(path, (np.full((64, 64, 3), 8 * i, np.uint8) for i in range(30)), 10, "libx264", 10, keyframes=8)
    return str(path)


def numbers(frames):
    return [round(float(image.mean()) / 8) for image in frames.images]


@pytest.mark.parametrize("spread", ["start", "ends", "middle"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 29, 30])
def test_frames_are_those_asked_for_with_their_times(film, count, spread):
    frames = load_frames(film, count, spread=spread)
    assert frames.images.shape == (count, 64, 64, 3) and frames.images.dtype == np.uint8
    wanted = frame_indices(30, count, spread).tolist()
    assert numbers(frames) == wanted
    np.testing.assert_allclose(frames.timestamps, np.array(wanted) / 10, atol=1e-6)
    assert frames.duration == pytest.approx(3.0)


def test_frames_by_rate_are_so_many_per_second_and_never_more_than_the_most(film):
    assert numbers(load_frames(film, fps=2)) == [0, 5, 10, 15, 20, 25]
    assert numbers(load_frames(film, fps=2, max_frames=3)) == [0, 10, 20]
    assert len(load_frames(film, fps=100).images) == 30
    assert len(load_frames(film, fps=0.1).images) == 1
    assert len(load_frames(film, count=99).images) == 30
    assert load_frames(film, count=2, longest=16).images.shape == (2, 16, 16, 3)


@pytest.mark.parametrize("total, count", [(30, 8), (100, 32), (7, 7), (64, 9)])
def test_frames_from_the_start_are_those_of_transformers(total, count):
    metadata = VideoMetadata(total_num_frames=total, fps=10)
    theirs = BaseVideoProcessor.sample_frames(SimpleNamespace(fps=None, num_frames=None), metadata, num_frames=count)
    assert frame_indices(total, count).tolist() == [int(i) for i in theirs]


@given(st.integers(1, 500), st.integers(1, 500), st.sampled_from(["start", "ends", "middle"]))
def test_frames_are_ascending_and_different_and_spread_evenly(total, count, spread):
    picked = frame_indices(total, count, spread)
    assert len(picked) == min(total, count) and picked[0] >= 0 and picked[-1] < total
    steps = np.diff(picked)
    assert not len(steps) or (steps.min() >= 1 and steps.max() - steps.min() <= 1)
    if spread == "ends" and count > 1:
        assert picked[0] == 0 and picked[-1] == total - 1


def test_a_film_in_an_archive_is_read_too(tmp_path, film):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(film, "x.mp4")
    with tarfile.open(tmp_path / "a.tar") as archive:
        member = archive.getmember("x.mp4")
    reference = inside(tmp_path / "a.tar", member.offset_data, member.size, "x.mp4")
    assert numbers(load_frames(reference, 3)) == [0, 10, 20]


def test_what_is_no_film_is_told_in_one_line(tmp_path, film):
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(BrokenSample, match=r"x\.mp4, sample 'q': the film is damaged"):
        load_frames(str(tmp_path / "x.mp4"), 2, sample="q")
    with pytest.raises(BrokenSample, match=r"gone\.mp4, sample 'q': the video is missing"):
        load_frames(str(tmp_path / "gone.mp4"), 2, sample="q")
    with pytest.raises(ValueError, match="either count or fps"):
        load_frames(film)
    with pytest.raises(ValueError, match="either count or fps"):
        load_frames(film, 2, 2.0)
    with pytest.raises(ValueError, match="spread is one of"):
        load_frames(film, 2, spread="edges")
    with pytest.raises(ValueError, match="fps must be positive"):
        load_frames(film, fps=-1)


@given(st.binary(max_size=60))
def test_embedded_bytes_come_back(data):
    from embodied.data.multimodal.media import read_bytes

    assert read_bytes(embedded(data)) == data
    assert base64.b64decode(embedded(data).partition(",")[2]) == io.BytesIO(data).read()
