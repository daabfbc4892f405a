"""Scenes: what is drawn is what the scene says, whatever was drawn before, and what is hidden is known to be."""

import json
import re
from itertools import combinations

import numpy as np
import pytest

from envs.scenes.grammar import descriptions, number_of
from envs.scenes.meshes import mesh_of
from envs.scenes.questions import Asker
from envs.scenes.references import references
from envs.scenes.scene import PICTURE, Camera, Light, Scene, SceneDrawer, Thing
from envs.scenes.settings import Settings
from envs.scenes.tiny import TinySceneRenderer
from envs.scenes.visibility import in_front_of, left_of, look
from envs.scenes.vocabulary import COLOURS, SHAPES, UNSEEN, Vocabulary

WORDS = Vocabulary()
LIGHT = Light((0.2, 0.1, 1.0), (1.0, 1.0, 1.0), 0.5, 0.5)
FRONT = Camera((0.0, -0.75, 0.65), (0.0, 0.0, 0.02), 40.0)


@pytest.fixture(scope="module")
def renderer():
    made = TinySceneRenderer(128)
    yield made
    made.close()


def scene_of(*things):
    return Scene(things, FRONT, LIGHT, (0.8, 0.8, 0.8))


def drawer(**more):
    return SceneDrawer(WORDS, **{"seed": 3, "least": 2, "most": 6, **more})


@pytest.mark.simulator("pybullet")
def test_a_picture_does_not_depend_on_what_was_drawn_before(renderer):
    first = [renderer.draw(drawer().draw(number, "train")) for number in range(4)]
    for number in (3, 0, 2, 1):
        picture, mask = renderer.draw(drawer().draw(number, "train"))
        assert np.array_equal(picture, first[number][0]) and np.array_equal(mask, first[number][1])
    fresh = TinySceneRenderer(128)
    assert np.array_equal(fresh.draw(drawer().draw(2, "train"))[0], first[2][0])
    fresh.close()


@pytest.mark.simulator("pybullet")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_is_where_the_camera_model_says_and_has_its_colour(renderer, shape):
    """The renderer's own geometry against our projection of the mesh."""
    for colour, rgb in COLOURS.items():
        thing = Thing(shape, colour, "large", "plain", (0.1, -0.05), 0.4)
        picture, mask = renderer.draw(scene_of(thing))
        rows, columns = np.nonzero(mask == 0)
        flat = FRONT.project(thing.corners()) * 128
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(seen - np.concatenate([flat.min(0), flat.max(0)])).max() < 1.6
        mean = picture[mask == 0].mean(0)
        nearest = min(COLOURS, key=lambda name: angle(mean, COLOURS[name]))
        assert nearest == colour, (colour, rgb, mean)


def angle(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return -float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_meshes_face_outwards():
    """Against the directions of their own normals, and the volume that a closed surface encloses."""
    for shape in SHAPES:
        mesh = mesh_of(shape)
        a, b, c = (mesh.vertices[mesh.triangles[:, i]] for i in range(3))
        across = np.cross(b - a, c - a)
        assert np.linalg.norm(across, axis=1).min() > 1e-6
        assert (np.einsum("ij,ij->i", across, mesh.normals[mesh.triangles].sum(1)) > 0).all(), shape
        assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1)
    ball = mesh_of("ball")
    volume = (
        np.einsum(
            "ij,ij->i",
            ball.vertices[ball.triangles[:, 0]],
            np.cross(*(ball.vertices[ball.triangles[:, i]] for i in (1, 2))),
        ).sum()
        / 6
    )
    assert 0.9 * 4.19 < volume < 4.19


@pytest.mark.simulator("pybullet")
def test_the_patterns_of_textures_can_be_told_apart(renderer):
    for shape in SHAPES:
        drawn = {}
        for texture in ("plain", "striped", "checked"):
            drawn[texture], mask = renderer.draw(scene_of(Thing(shape, "yellow", "large", texture, (0.0, 0.0), 0.3)))
        for one, other in combinations(drawn.values(), 2):
            differs = np.abs(one.astype(int) - other)[mask == 0].max(-1) > 40
            assert 0.2 < differs.mean() < 0.8, shape


@pytest.mark.simulator("pybullet")
def test_what_stands_behind_something_large_is_not_seen_and_nothing_depends_on_it(renderer):
    wall = Thing("cylinder", "red", "large", "plain", (0.0, -0.1), 0.0)
    small = Thing("cube", "blue", "small", "plain", (0.0, 0.01), 0.0)
    ball = Thing("ball", "green", "small", "plain", (0.25, 0.0), 0.0)
    scene = scene_of(wall, small, ball)
    facts = look(scene, renderer.draw(scene)[1])
    assert [fact.seen for fact in facts] == [True, False, True]
    assert facts[1].shown < 0.55
    assert number_of(facts, {"shape": "cube"}) is None and number_of(facts, {"shape": "ball"}) == 1
    assert references(np.random.default_rng(0), facts[1], facts) == []
    asker = Asker(WORDS, WORDS.pairs("train"), 2, 6)
    texts = [q.text for seed in range(30) for q in asker.candidates(np.random.default_rng(seed), facts)]
    assert len(texts) > 500
    hidden = r"\b(a|the|small|plain|blue) cube\b|\bcubes\b|(?<!large )blue things?\b|(small|plain|many|of) things\b"
    assert [text for text in texts if re.search(hidden, text)] == []
    assert {"size": "small"} not in descriptions(facts[2], facts)  # the hidden cube is small too


@pytest.mark.simulator("pybullet")
def test_left_is_left_and_near_is_low_in_the_picture(renderer):
    """As the camera sees it, by where the pixels are: what touches the table lower in the picture is nearer."""
    compared = 0
    for number in range(12):
        scene = drawer(seed=5).draw(number, "train")
        mask = renderer.draw(scene)[1]
        facts = look(scene, mask)
        for i, a in enumerate(facts):
            for j, b in enumerate(facts):
                if i == j or not (a.seen and b.seen):
                    continue
                left, front = left_of(a, b), in_front_of(a, b)
                if left is not None:
                    assert left == (np.nonzero(mask == i)[1].mean() < np.nonzero(mask == j)[1].mean())
                if front is not None and a.shape == b.shape and a.size == b.size:
                    assert front == (a.box[3] > b.box[3])
                    compared += 1
    assert compared > 5


def test_things_are_whole_in_the_picture_and_stand_apart():
    for number in range(30):
        scene = drawer().draw(number, "train")
        assert 2 <= len(scene.things) <= 6
        for i, thing in enumerate(scene.things):
            flat = scene.camera.project(thing.corners())
            assert flat.min() > 0 and flat.max() < 1
            for other in scene.things[:i]:
                assert np.hypot(*np.subtract(thing.place, other.place)) > thing.radius + other.radius


def test_pairs_kept_unseen_never_occur_elsewhere_and_each_word_occurs_on_both_sides():
    seen, unseen = set(WORDS.pairs("train")), set(WORDS.pairs(UNSEEN))
    assert not seen & unseen and len(seen | unseen) == 48 and len(unseen) == 12
    for pairs in (seen, unseen):
        assert {shape for shape, _ in pairs} == set(SHAPES) and {colour for _, colour in pairs} == set(COLOURS)
    for split, allowed in (("train", seen), (UNSEEN, unseen)):
        shown = {(t.shape, t.colour) for n in range(150) for t in drawer().draw(n, split, PICTURE).things}
        assert shown <= allowed and len(shown) > 0.9 * len(allowed)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"scenes": 0}, "scenes is a whole number"),
        ({"size": 31}, "size is a whole number from 48"),
        ({"size": "big"}, "size is a whole number"),
        ({"seed": -1}, "seed is a whole number"),
        ({"videos": 1, "size": 129}, "even"),
        ({"things": [5, 3]}, "2 to 10 things"),
        ({"things": 4}, r"\[least, most\]"),
        ({"splits": {"train": 0.5, "val": 0.1}}, "make 1 together"),
        ({"splits": {"training": 1.0}}, "train, val, test, unseen"),
        ({"scenes": 3}, "too few"),
        ({"image_format": "gif"}, "png or jpg"),
        ({"video_format": "avi"}, "mp4 or frames"),
        ({"shapes": ["cube", "ball", "kone"]}, "did you mean 'cone'"),
        ({"colours": ["red", "blue"]}, "at least 3 shapes and 4 colours"),
        ({"textures": []}, "at least one word"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(wrong, says):
    with pytest.raises(ValueError, match=says) as caught:
        Settings(**{"scenes": 100, **wrong})
    assert "\n" not in str(caught.value)


def test_every_picture_is_in_one_split_and_settings_are_plain_json():
    settings = Settings(scenes=101, videos=3)
    numbers = [n for numbers in settings.ranges("images").values() for n in numbers]
    assert numbers == list(range(101))
    assert {name: len(numbers) for name, numbers in settings.ranges("images").items()} == {
        "train": 81, "val": 5, "test": 10, "unseen": 5,
    }  # fmt: skip
    assert sum(len(numbers) for numbers in settings.ranges("videos").values()) == 3
    assert json.loads(json.dumps(settings.as_dict())) == settings.as_dict()
