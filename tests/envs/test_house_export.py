"""Exported houses: a .glb's triangles and MuJoCo's pictures are where our own renderer sees the house."""

import json
import math
import os
import struct

import numpy as np
import pytest

from envs.house.boxes import names
from envs.house.generate import generate
from envs.house.scene import build_scene

pytestmark = pytest.mark.simulator("numba")

HOUSE = generate(3)
SCENE = build_scene(HOUSE)


def cameras(count, pitch=0.0, seed=0):
    """(B, 5) indoors, with 20 cm of air around."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        room = HOUSE.rooms[rng.integers(len(HOUSE.rooms))].inside
        p = np.array([*rng.uniform(room[:2], room[2:]), rng.uniform(0.6, 1.6)])
        if not ((SCENE.bounds[:, :3] - 0.2 < p) & (p < SCENE.bounds[:, 3:] + 0.2)).all(1).any():
            found.append([*p, rng.uniform(-math.pi, math.pi), rng.uniform(-pitch, pitch)])
    return np.array(found)


def off_edges(depth, ids, margin=1):
    """Pixels whose neighbours, `margin` wide, show the same instance at a depth that goes on evenly."""
    good = np.ones(depth.shape, bool)
    for axis in (0, 1):
        for step in range(1, margin + 1):
            good &= (ids == np.roll(ids, step, axis)) & (ids == np.roll(ids, -step, axis))
            bend = np.roll(depth, step, axis) + np.roll(depth, -step, axis) - 2 * depth
            good &= np.abs(bend) < 0.01 + 0.02 * depth
    good[:margin], good[-margin:], good[:, :margin], good[:, -margin:] = False, False, False, False
    return good


class Glb:
    """A .glb read as its specification says, without a line of the writer."""

    def __init__(self, data):
        magic, version, size = struct.unpack_from("<4sII", data)
        assert magic == b"glTF" and version == 2 and size == len(data) and size % 4 == 0
        length, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and length % 4 == 0
        self.json = json.loads(data[20 : 20 + length])
        body, kind = struct.unpack_from("<I4s", data, 20 + length)
        assert kind == b"BIN\0" and 28 + length + body == size
        assert self.json["buffers"] == [{"byteLength": body}]
        self.binary = data[28 + length :]

    def bytes_of(self, view):
        place = self.json["bufferViews"][view]
        assert place["byteOffset"] % 4 == 0 and place["byteOffset"] + place["byteLength"] <= len(self.binary)
        return self.binary[place["byteOffset"] : place["byteOffset"] + place["byteLength"]]

    def array(self, number):
        entry = self.json["accessors"][number]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[entry["type"]]
        values = np.frombuffer(self.bytes_of(entry["bufferView"]), {5126: "<f4", 5125: "<u4"}[entry["componentType"]])
        assert values.size == entry["count"] * width
        return values.reshape(-1, width) if width > 1 else values

    def triangles(self):
        """By node: name, extras, (T, 3, 3) corners, (T, 3, 3) vertex colours."""
        assert sorted(self.json["scenes"][0]["nodes"]) == list(range(len(self.json["nodes"])))
        for node in self.json["nodes"]:
            corners, colours = [], []
            for primitive in self.json["meshes"][node["mesh"]]["primitives"]:
                indices = self.array(primitive["indices"]).reshape(-1, 3)
                positions = primitive["attributes"]["POSITION"]
                entry = self.json["accessors"][positions]
                points = self.array(positions)
                assert (points.min(0) == entry["min"]).all() and (points.max(0) == entry["max"]).all()
                corners.append(points[indices])
                colours.append(self.array(primitive["attributes"]["COLOR_0"])[indices])
                assert 0 <= primitive["material"] < len(self.json["materials"])
            yield node["name"], node["extras"], np.concatenate(corners), np.concatenate(colours)


def meet(origin, directions, corners):
    """(R,) the nearest triangle in front that faces each ray, and how far along (Moeller and Trumbore 1997)."""
    a, e, f = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    best, which = np.full(len(directions), np.inf), np.full(len(directions), -1)
    for place, d in enumerate(directions):
        p = np.cross(d, f)
        det = (e * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = ((origin - a) * p).sum(1) / det
            q = np.cross(origin - a, e)
            v, t = (q @ d) / det, (f * q).sum(1) / det
        hit = (det > 1e-12) & (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6) & (t > 0.01)
        if hit.any():
            best[place] = t[hit].min()
            which[place] = np.flatnonzero(hit)[t[hit].argmin()]
    return best, which


@pytest.fixture(scope="module")
def glb():
    from envs.house.gltf import glb

    return glb(HOUSE)


def test_triangles_of_a_glb_are_where_the_renderer_sees_the_house(glb):
    from envs.house.renderer import Renderer

    nodes = list(Glb(glb).triangles())
    corners = np.concatenate([c for _, _, c, _ in nodes]).astype(float)
    instance = np.concatenate([np.full(len(c), extras["instance"]) for _, extras, c, _ in nodes])
    size, seen = 16, 0
    for camera in cameras(4, pitch=0.5):
        picture = Renderer(SCENE, size, size, 90, ("depth", "instance")).render(camera[None])
        depth, ids = picture["depth"][0], picture["instance"][0]
        x, y, z, heading, pitch = camera
        ahead = [math.cos(heading) * math.cos(pitch), math.sin(heading) * math.cos(pitch), math.sin(pitch)]
        right = [math.sin(heading), -math.cos(heading), 0]
        up = np.cross(right, ahead)
        steps = (np.arange(size) + 0.5) * 2 / size - 1
        v, u = np.meshgrid(-steps, steps, indexing="ij")
        rays = (ahead + u[..., None] * right + v[..., None] * up).reshape(-1, 3)
        in_gltf = np.stack([rays[:, 0], rays[:, 2], -rays[:, 1]], 1)  # y up, as glTF has it
        found, which = meet(np.array([x, z, -y]), in_gltf, corners)
        good = off_edges(depth, ids).reshape(-1)
        assert np.abs(found - depth.reshape(-1))[good].max() < 0.02
        assert (instance[which] == ids.reshape(-1))[good].all()
        seen += good.sum()
    assert seen > 0.3 * 4 * size**2


def test_nodes_of_a_glb_say_what_they_are(glb):
    nodes = {name: extras for name, extras, _, _ in Glb(glb).triangles()}
    assert list(nodes) == names(SCENE)[1:]
    for number, item in enumerate(SCENE.instances):
        if number:
            extras = nodes[f"{item.category}_{number}"]
            assert extras["category"] == item.category and extras["instance"] == number and extras["room"] == item.room


def test_pictures_in_a_glb_are_those_of_its_materials(glb):
    import io

    from PIL import Image

    file = Glb(glb)
    textured = [m for m in file.json["materials"] if "baseColorTexture" in m["pbrMetallicRoughness"]]
    assert textured
    floors = {tuple(room.floor.primary) for room in HOUSE.rooms if room.floor.pattern == "checker"}
    for material in file.json["materials"]:
        assert "KHR_materials_unlit" in material["extensions"]
        look = material["pbrMetallicRoughness"]
        if "baseColorTexture" in look:
            source = file.json["textures"][look["baseColorTexture"]["index"]]["source"]
            picture = Image.open(io.BytesIO(file.bytes_of(file.json["images"][source]["bufferView"])))
            assert picture.size == (128, 128) and picture.mode == "RGB"
            floors.discard(picture.getpixel((0, 0)))
            floors.discard(picture.getpixel((20, 0)))
    assert not floors


def test_what_habitat_needs_lies_beside_it(tmp_path):
    from envs.house.gltf import linear, write_habitat

    write_habitat(HOUSE, tmp_path / "a/house.glb")
    config = json.loads((tmp_path / "a/house.stage_config.json").read_text())
    assert config["up"] == [0, 1, 0] and config["front"] == [0, 0, -1]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(
        [
            config["render_asset"],
            config["semantic_asset"],
            config["semantic_descriptor_filename"],
            "house.stage_config.json",
        ]
    )
    first, *lines = (tmp_path / "a/house.semantic.txt").read_text().splitlines()
    assert first == "HM3D Semantic Annotations" and len(lines) == len(SCENE.instances) - 1
    by_colour = {}
    for line in lines:
        number, colour, rest = line.split(",", 2)
        by_colour[tuple(bytes.fromhex(colour))] = int(number)
        assert rest == f'"{SCENE.instances[int(number)].category}",{SCENE.instances[int(number)].room}'
    assert len(by_colour) == len(lines) and (0, 0, 0) not in by_colour
    eight_bits = linear(np.arange(256) / 255)
    for _, extras, _, colours in Glb((tmp_path / "a/house.semantic.glb").read_bytes()).triangles():
        assert (colours == colours[0, 0]).all()
        colour = tuple(int(np.abs(eight_bits - c).argmin()) for c in colours[0, 0])
        assert by_colour[colour] == extras["instance"]


@pytest.fixture(scope="module")
def model():
    mujoco = pytest.importorskip("mujoco") if os.environ.get("CI") != "true" else __import__("mujoco")
    from envs.house.mjcf import mjcf

    return mujoco.MjModel.from_xml_string(mjcf(HOUSE))


@pytest.mark.simulator("mujoco")
def test_mujoco_loads_each_box_and_cylinder_where_it_is(model):
    assert model.ngeom == SCENE.parts + 2 * len(HOUSE.rooms)
    half = np.where((model.geom_type == 5)[:, None], model.geom_size[:, [0, 0, 1]], model.geom_size)
    body = model.body_pos[model.geom_bodyid]
    bounds = np.concatenate([body + model.geom_pos - half, body + model.geom_pos + half], 1)
    wanted = {tuple(row.round(3)) for row in SCENE.bounds.astype(float)}
    found = {tuple(row.round(3) + 0.0) for row in bounds}
    assert {tuple(np.array(row) + 0.0) for row in wanted} <= found
    assert (model.geom_type == 5).sum() == SCENE.round.sum()
    for number, item in enumerate(SCENE.instances):
        if number:
            body = model.body(f"{item.category}_{number}")
            geom = model.body_geomadr[body.id]
            assert model.geom_user[geom, 1] == number and model.geom_user[geom, 2] == item.room


@pytest.mark.simulator("mujoco")
def test_a_ball_dropped_into_a_room_comes_to_rest_on_its_floor():
    import mujoco

    from envs.house.mjcf import mjcf
    from envs.house.pathfinder import PathFinder

    x, y = PathFinder(HOUSE).random_point(np.random.default_rng(1))
    ball = (
        f'<body pos="{x} {y} 0.5"><freejoint/><geom type="sphere" size="0.1" condim="6" friction="1 0.1 0.1"/></body>'
    )
    model = mujoco.MjModel.from_xml_string(mjcf(HOUSE).replace("</worldbody>", ball + "</worldbody>"))
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 1000)
    assert data.qpos[:2] == pytest.approx([x, y], abs=0.05) and data.qpos[2] == pytest.approx(0.1, abs=0.005)


@pytest.mark.simulator("mujoco")
def test_mujoco_sees_the_same_depths_and_instances(model):
    import mujoco

    from envs.house.renderer import Renderer
    from envs.mujoco.opengl import RenderingUnavailable, open_context

    size = 96
    try:
        context = open_context(size, size)
    except RenderingUnavailable as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    checked = 0
    try:
        draw = mujoco_eyes(mujoco, model, size)
        for x, y, z, heading, pitch in cameras(5, pitch=0.6, seed=2):
            ours = Renderer(SCENE, size, size, 90, ("depth", "instance")).render(np.array([[x, y, z, heading, pitch]]))
            depth, ids = ours["depth"][0], ours["instance"][0]
            theirs, geoms = draw(x, y, z, heading, pitch)
            good = off_edges(depth, ids, 2)
            assert good.mean() > 0.4
            assert np.abs(theirs - depth)[good].max() < 0.02
            assert (model.geom_user[geoms[good], 1] == ids[good]).all()
            checked += good.sum()
    finally:
        context.free()
    assert checked > 10_000


def mujoco_eyes(mujoco, model, size):
    """Draws metric depth and geom ids with MuJoCo in the present OpenGL context."""
    model.vis.global_.fovy = 90
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene, box = mujoco.MjvScene(model, 2000), mujoco.MjrRect(0, 0, size, size)
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    camera, option = mujoco.MjvCamera(), mujoco.MjvOption()
    near, far = model.stat.extent * model.vis.map.znear, model.stat.extent * model.vis.map.zfar

    def draw(x, y, z, heading, pitch):
        flat = math.cos(pitch)
        ahead = np.array([math.cos(heading) * flat, math.sin(heading) * flat, math.sin(pitch)])
        camera.distance, camera.azimuth, camera.elevation = 0.01, math.degrees(heading), math.degrees(pitch)
        camera.lookat[:] = np.array([x, y, z]) + 0.01 * ahead
        mujoco.mjv_updateScene(model, data, option, None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        mujoco.mjr_render(box, scene, context)
        colour, depth = np.empty((size, size, 3), np.uint8), np.empty((size, size), np.float32)
        mujoco.mjr_readPixels(colour, depth, box, context)
        number = colour.astype(int) @ [1, 256, 65536] - 1
        geom = np.full(scene.ngeom + 1, -1)
        for item in scene.geoms[: scene.ngeom]:
            geom[item.segid] = item.objid if item.objtype == mujoco.mjtObj.mjOBJ_GEOM else -1
        metres = near / (1 - depth.astype(float) * (1 - near / far))
        return metres[::-1], geom[number][::-1]  # OpenGL's pictures begin at the bottom

    return draw


@pytest.mark.simulator("pybullet")
def test_pybullet_takes_the_same_boxes_and_meets_them_where_they_are():
    import pybullet

    from envs.house.mjcf import pybullet_bodies
    from envs.house.renderer import Renderer

    client = pybullet.connect(pybullet.DIRECT)
    try:
        bodies = pybullet_bodies(HOUSE, pybullet, client)
        for x, y, z, heading, _ in cameras(4, seed=5):
            ours = Renderer(SCENE, 33, 33, 90, ("depth", "instance")).render(np.array([[x, y, z, heading, 0]]))
            steps = (np.arange(33) + 0.5) * 2 / 33 - 1
            v, u = np.meshgrid(-steps, steps, indexing="ij")
            good = off_edges(ours["depth"][0], ours["instance"][0])
            ahead, right = (
                np.array([math.cos(heading), math.sin(heading), 0]),
                [math.sin(heading), -math.cos(heading), 0],
            )
            rays = ahead + u[good][:, None] * right + v[good][:, None] * [0, 0, 1]
            start = np.tile([x, y, z], (len(rays), 1))
            for first in range(0, len(rays), 1000):
                some = slice(first, first + 1000)
                hits = pybullet.rayTestBatch(
                    start[some].tolist(), (start[some] + 20 * rays[some]).tolist(), physicsClientId=client
                )
                found = np.array([hit[2] * 20 for hit in hits])
                assert np.abs(found - ours["depth"][0][good][some]).max() < 0.02
                assert [bodies[hit[0]] for hit in hits] == ours["instance"][0][good][some].tolist()
    finally:
        pybullet.disconnect(client)
