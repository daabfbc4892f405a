"""A video shows what happened, in a format that browsers play, or is not there at all."""

import av
import numpy as np
import pytest

from embodied.evaluation import video
from embodied.evaluation.video import FAILURE, SUCCESS, EpisodeVideo


def frames(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def a_picture(level: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def record(path, levels=range(0, 250, 25), success=True, **cameras):
    with EpisodeVideo(path, fps=10, instruction="press the button") as out:
        for level in levels:
            out.add({"observation.images.front": a_picture(level), **cameras})
        out.end(success)
    return path


def test_browsers_play_it(tmp_path):
    with av.open(str(record(tmp_path / "a" / "b.mp4"))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)
        assert stream.width % 2 == stream.height % 2 == 0
    head = (tmp_path / "a" / "b.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat"), "a browser should not have to load all of it to start"


def test_each_step_is_one_frame_and_shows_its_picture(tmp_path):
    shown = frames(record(tmp_path / "a.mp4"))
    assert len(shown) == 10 + round(video.HOLD_S * 10)
    for frame, level in zip(shown, range(0, 250, 25), strict=False):
        assert abs(float(frame[100:150, 100:150].mean()) - level) < 6


def test_a_fast_robot_plays_in_slow_motion_and_no_step_is_dropped(tmp_path):
    with EpisodeVideo(tmp_path / "a.mp4", fps=200) as out:
        for level in range(50):
            out.add({"front": a_picture(level)})
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == video.MAX_FPS
    assert len(frames(tmp_path / "a.mp4")) == 50


def test_small_pictures_are_enlarged_without_smoothing(tmp_path):
    checks = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    with EpisodeVideo(tmp_path / "a.mp4", 10) as out:
        out.add({"front": checks})
    (frame,) = frames(tmp_path / "a.mp4")
    assert frame.shape[1] == 256
    middles = frame[4:256:8, 4:256:8].mean(-1)  # the middle of each enlarged pixel
    assert np.array_equal(middles > 127, checks[..., 0] > 127)


def test_cameras_stand_side_by_side_whatever_their_sizes(tmp_path):
    wide = {"observation.images.wrist": a_picture(200, 48, 100)}
    frame = frames(record(tmp_path / "a.mp4", levels=[40], **wide))[0]
    assert frame.shape[1] == 256 + 600
    assert abs(float(frame[130, 128].mean()) - 40) < 6 and abs(float(frame[130, 556].mean()) - 200) < 6


@pytest.mark.parametrize("success, colour", [(True, SUCCESS), (False, FAILURE)])
def test_the_end_says_how_it_went(tmp_path, success, colour):
    shown = frames(record(tmp_path / "a.mp4", success=success))
    edge = np.asarray(shown[-1][100, 1], dtype=float)
    assert np.abs(edge - colour).max() < 40
    assert np.abs(np.asarray(shown[0][100, 1], dtype=float) - colour).max() > 40


def test_the_caption_is_drawn_below_the_picture_and_long_words_fit(tmp_path):
    with EpisodeVideo(tmp_path / "a.mp4", 10, instruction="stack the " + "very " * 100 + "large block") as out:
        out.add({"front": a_picture(0)})
    (frame,) = frames(tmp_path / "a.mp4")
    assert frame.shape[0] == 256 + video.STRIP and frame[256:].max() > 100


def test_nothing_is_left_when_the_episode_breaks(tmp_path):
    with pytest.raises(RuntimeError), EpisodeVideo(tmp_path / "a.mp4", 10) as out:
        out.add({"front": a_picture(0)})
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_an_older_video_stays_until_the_new_one_is_complete(tmp_path):
    before = record(tmp_path / "a.mp4").read_bytes()
    with pytest.raises(RuntimeError), EpisodeVideo(tmp_path / "a.mp4", 10):
        raise RuntimeError
    assert (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize(
    "pictures, says",
    [
        ([{"task": "push"}], "no picture among task"),
        ([{"front": np.zeros((8, 8, 3), dtype=np.float32)}], "'front' is float32"),
        ([{"front": np.zeros((8, 8, 1), dtype=np.uint8)}], "is uint8 \\(H, W, 3\\)"),
        ([{"front": a_picture(0)}, {"front": a_picture(0, 32, 64)}], "changed their size"),
        ([], "at least one step"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, pictures, says):
    with pytest.raises(ValueError, match=says), EpisodeVideo(tmp_path / "a.mp4", 10) as out:
        for images in pictures:
            out.add(images)
    assert not list(tmp_path.iterdir())


def test_without_h264_another_encoder_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "CODECS", (("no_such_encoder", {}), ("mpeg4", {})))
    assert len(frames(record(tmp_path / "a.mp4"))) == 18
    monkeypatch.setattr(video, "CODECS", (("no_such_encoder", {}),))
    with pytest.raises(ValueError, match="without any video encoder"):
        record(tmp_path / "b.mp4")
