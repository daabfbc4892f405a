"""Films show what is asked about them: something moves where, when and how the record says."""

import json
import re
from collections import Counter

import av
import numpy as np
import pytest

from envs.scenes.film import Film, draw_film, write_film
from envs.scenes.maker import SceneMaker
from envs.scenes.painter import Painter
from envs.scenes.scene import SceneDrawer
from envs.scenes.tiny import TinySceneRenderer
from envs.scenes.vocabulary import Vocabulary

pytestmark = pytest.mark.simulator("pybullet")
SETTINGS = {"scenes": 4, "videos": 40, "size": 64, "frames": 8, "seed": 2, "video_format": "frames", "antialias": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("films")
    maker = SceneMaker(SETTINGS)
    painter = Painter(str(out), maker.settings)
    for stretch in maker.begin(out)[0]:
        painter.paint(*stretch)
    painter.close()
    maker.finish(out)
    return out


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_answers_are_those_that_the_places_of_things_give(made):
    """From where each thing is at the beginning and in the end alone; the record of motions is not read."""
    kinds = Counter()
    for split in ("train", "val", "test", "unseen"):
        films = {row["number"]: row for row in lines(made / f"scenes/{split}_videos.jsonl")}
        for row in lines(made / f"chat/{split}/video.jsonl"):
            film = films[row["meta"]["video_id"]]
            begin, end = film["things"], film["things_at_the_end"]
            moved = [i for i, (a, b) in enumerate(zip(begin, end, strict=True)) if shifted(a, b)]
            asked, said = row["meta"]["question"], row["messages"][-1]["content"][0]["text"]
            kinds[row["meta"]["question_type"]] += 1
            enters = [i for i in moved if not begin[i]["pixels"]]
            leaves = [i for i in moved if not end[i]["pixels"]]
            named = re.search(r"does the (.+?) move|Does the (.+?) move", asked)
            if asked.startswith("How many"):
                assert said == str(len(moved))
            elif "enter" in asked or "leave" in asked:
                assert said == ("yes" if (enters if "enter" in asked else leaves) else "no")
            elif asked.startswith("Does the"):
                assert said == ("yes" if called(named.group(2), begin) in moved else "no")
            elif asked.startswith("In which direction"):
                i = called(named.group(1), begin)
                assert i in moved and said == direction(begin[i], end[i])
            elif asked.startswith(("What colour", "What shape")):
                assert [begin[i][asked.split()[1]] for i in moved] == [said]
            elif asked.startswith("Which thing"):
                assert [called(said.removeprefix("the "), begin)] == moved
            else:
                assert asked.startswith("Which moves first, the ") and f"{said}" in asked
                assert called(said.removeprefix("the "), begin) in moved and len(moved) == 2
    assert {"how_many", "moves", "direction", "which", "order", "enters", "leaves"} <= set(kinds)


def shifted(a, b):
    return a["column"] != b["column"] or a["row"] != b["row"]


def direction(a, b):
    across, along = b["column"] - a["column"], b["depth"] - a["depth"]
    if abs(along) < 0.02:
        return "left" if across < 0 else "right"
    return "towards the camera" if along < 0 else "away from the camera"


def called(name, things):
    words = [word for word in name.split() if word != "thing"]
    found = [i for i, t in enumerate(things) if set(words) <= {t["shape"], t["colour"], t["size"], t["texture"]}]
    assert len(found) == 1, name
    return found[0]


def test_what_is_said_to_move_first_does_so_in_the_pictures():
    """By the pixels of its mask, frame by frame."""
    drawer, renderer = SceneDrawer(Vocabulary(), 4, 2, 4), TinySceneRenderer(64)
    two = [film for film in (draw_film(drawer, n, "train", 10) for n in range(20)) if len(film.motions) == 2][:4]
    assert len(two) == 4
    for film in two:
        masks = [renderer.draw(film.frame(i))[1] for i in range(film.frames)]
        first, second = (motion.thing for motion in film.motions)
        half = film.frames // 2
        assert changes(masks[: half - 1], first) and not changes(masks[: half - 1], second)
        assert changes(masks[half:], second) and not changes(masks[half:], first)
    renderer.close()


def changes(masks, thing):
    """Whether a thing is elsewhere in the last of some frames than in the first, by more than what stands before it."""
    a, b = masks[0] == thing, masks[-1] == thing
    return bool((a ^ b).sum() > 0.3 * max(a.sum(), b.sum(), 1))


def test_things_pass_through_nothing():
    drawer = SceneDrawer(Vocabulary(), 6, 2, 4)
    for number in range(25):
        film = draw_film(drawer, number, "train", 12)
        for frame in range(film.frames):
            things = film.frame(frame).things
            for i, a in enumerate(things):
                for b in things[:i]:
                    assert np.hypot(*np.subtract(a.place, b.place)) > a.radius + b.radius


@pytest.mark.parametrize("least, most", [(6, 8), (2, 2), (3, 10)])
def test_films_keep_to_how_many_things_scenes_have(least, most):
    drawer = SceneDrawer(Vocabulary(), 1, least, most)
    counts = {len(draw_film(drawer, number, "train", 8).scene.things) for number in range(12)}
    assert least <= min(counts) <= max(counts) <= max(least, min(4, most))


def test_an_mp4_shows_the_same_pictures_and_the_same_pictures_give_the_same_bytes(tmp_path):
    drawer, renderer = SceneDrawer(Vocabulary(), 4, 2, 4), TinySceneRenderer(64)
    film: Film = draw_film(drawer, 0, "train", 8)
    pictures = [renderer.draw(film.frame(i))[0] for i in range(film.frames)]
    renderer.close()
    for name in ("a.mp4", "b.mp4"):
        write_film(tmp_path / name, pictures, fps=4)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 4
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(read) == 8
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(pictures, read, strict=True)]) < 6


def test_frames_may_be_pictures_in_folders(made):
    for row in lines(made / "scenes/train_videos.jsonl"):
        assert sorted(path.name for path in (made / row["video"]).iterdir()) == [f"{i:03d}.png" for i in range(8)]
