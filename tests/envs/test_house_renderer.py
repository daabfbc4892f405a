"""The pictures of a house: what the compiled renderer draws is what rays meet, and torch draws the same."""

import math

import numpy as np
import pytest

from envs.house.generate import generate
from envs.house.renderer import Renderer
from envs.house.scene import build_scene

pytestmark = pytest.mark.simulator("numba")

HOUSES = [generate(seed) for seed in (2, 3, 7)]


def some_cameras(house, rng, count, pitch):
    """Anywhere indoors, near furniture too, outside of all parts."""
    bounds = build_scene(house).bounds
    found = []
    while len(found) < count:
        room = house.rooms[rng.integers(len(house.rooms))].inside
        p = np.array([*rng.uniform(room[:2], room[2:]), rng.uniform(0.3, 1.8)])
        if not ((bounds[:, :3] - 0.03 < p) & (p < bounds[:, 3:] + 0.03)).all(1).any():
            found.append([*p, rng.uniform(-math.pi, math.pi), rng.uniform(-pitch, pitch)])
    return np.array(found)


def meets(scene, origin, direction):
    """The nearest surface along one ray, in float64, written independently: (depth, part or -1 floor or -2 ceiling)."""
    best = (-origin[2] / direction[2], -1) if direction[2] < 0 else ((scene.height - origin[2]) / direction[2], -2)
    for k, bounds in enumerate(scene.bounds.astype(float)):
        if scene.round[k]:
            middle, radius = (bounds[:2] + bounds[3:5]) / 2, (bounds[3] - bounds[0]) / 2
            p, d = origin[:2] - middle, direction[:2]
            roots = np.roots([d @ d, 2 * p @ d, p @ p - radius**2])
            if np.iscomplexobj(roots) and abs(roots.imag).max() > 0:
                continue
            low, high = sorted(roots.real)
            z = sorted((bounds[[2, 5]] - origin[2]) / direction[2])
            low, high = max(low, z[0]), min(high, z[1])
        else:
            with np.errstate(divide="ignore"):
                t = np.sort(np.stack([(bounds[:3] - origin) / direction, (bounds[3:] - origin) / direction]), 0)
            low, high = t[0].max(), t[1].min()
        if 0.01 <= low <= high and low < best[0]:
            best = (low, k)
    return best


@pytest.mark.parametrize("pitch", [0.0, 1.2])
def test_depth_and_ids_are_those_of_the_surface_that_a_ray_meets_first(pitch):
    rng = np.random.default_rng(0)
    wrong = total = 0
    for house in HOUSES:
        scene = build_scene(house)
        size, view = 48, 79.0
        cameras = some_cameras(house, rng, 4, pitch)
        images = Renderer(scene, size, size, view).render(cameras)
        focal = size / 2 / math.tan(math.radians(view) / 2)
        for b, (x, y, z, heading, tilt) in enumerate(cameras):
            forward = np.array([math.cos(heading) * math.cos(tilt), math.sin(heading) * math.cos(tilt), math.sin(tilt)])
            right = np.array([math.sin(heading), -math.cos(heading), 0])
            up = np.cross(right, forward)
            for row, column in rng.integers(0, size, (25, 2)):
                ray = forward + (column + 0.5 - size / 2) / focal * right + (size / 2 - row - 0.5) / focal * up
                depth, part = meets(scene, np.array([x, y, z]), ray)
                point = np.array([x, y, z]) + depth * ray
                rooms = len(house.rooms)
                surface = part if part >= 0 else scene.parts + house.room_at(*point[:2]) + (rooms if part == -2 else 0)
                total += 1
                wrong += not (
                    abs(images["depth"][b, row, column] - depth) < 1e-3
                    and images["instance"][b, row, column] == scene.instance[surface]
                    and images["semantic"][b, row, column] == scene.semantic[surface]
                )
    assert wrong <= 0.005 * total, f"{wrong} of {total}"  # a centre within rounding of an edge


@pytest.mark.parametrize("pitch", [0.0, 1.0])
def test_torch_draws_the_same_picture(pitch):
    from envs.house.torch_renderer import TorchRenderer

    rng = np.random.default_rng(1)
    for house in HOUSES:
        cameras = some_cameras(house, rng, 4, pitch)
        ours = Renderer(house, 40, 56, 90).render(cameras)
        theirs = TorchRenderer(house, 40, 56, 90, chunk=3000).render(cameras)
        for name in ours:
            assert ours[name].shape == theirs[name].shape and ours[name].dtype == theirs[name].dtype
        far = np.abs(ours["depth"] - theirs["depth"]) > 1e-3
        off = (np.abs(ours["rgb"].astype(int) - theirs["rgb"]) > 2).any(-1)
        other = (ours["instance"] != theirs["instance"]) | (ours["semantic"] != theirs["semantic"])
        assert max(far.mean(), off.mean(), other.mean()) < 0.005


def test_an_image_does_not_depend_on_the_batch_or_on_what_else_is_asked_for():
    cameras = some_cameras(HOUSES[0], np.random.default_rng(2), 5, 0.0)
    cameras[3:, 4] = -0.5
    whole = Renderer(HOUSES[0], 32, 32).render(cameras)
    one = Renderer(HOUSES[0], 32, 32, outputs=("depth",)).render(cameras[3:4])
    assert list(one) == ["depth"] and (one["depth"][0] == whole["depth"][3]).all()
    assert (Renderer(HOUSES[0], 32, 32, outputs=("rgb",)).render(cameras)["rgb"] == whole["rgb"]).all()


def test_a_slightly_pitched_camera_sees_almost_what_a_level_one_sees():
    """The level and the pitched way share no search, so each checks the other."""
    cameras = some_cameras(HOUSES[1], np.random.default_rng(3), 8, 0.0)
    level = Renderer(HOUSES[1], 64, 64).render(cameras)
    cameras[:, 4] = 1e-5
    pitched = Renderer(HOUSES[1], 64, 64).render(cameras)
    assert (level["instance"] != pitched["instance"]).mean() < 0.003


def test_two_things_of_a_category_have_two_ids_and_the_ids_name_them():
    scene = build_scene(HOUSES[0])
    named = {i.object for i in scene.instances if i.object >= 0}
    assert named == set(range(len(HOUSES[0].objects)))
    for instance in scene.instances:
        if instance.object >= 0:
            assert HOUSES[0].objects[instance.object].category == instance.category


@pytest.mark.parametrize("arguments", [{"height": 0}, {"field_of_view": 180}, {"outputs": ("flow",)}, {"outputs": ()}])
def test_a_camera_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError):
        Renderer(HOUSES[0], **arguments)


@pytest.mark.parametrize("cameras", [np.zeros((2, 4)), np.zeros(5), np.full((1, 5), np.nan), [[1, 1, 1, 0, 2.0]]])
def test_a_pose_that_cannot_be_is_refused(cameras):
    with pytest.raises(ValueError):
        Renderer(HOUSES[0], 8, 8).render(np.array(cameras))
