"""A house as glTF 2.0: one binary file that viewers, Blender and habitat-sim read.

glTF's frame has y up: a point (x, y, z) of the house is (x, z, -y) there, which is also Habitat's frame. There is one
node per instance, named by category and number (`chair_31`), with `extras` that hold category, Matterport3D's category
id, instance and room. Surfaces are unlit: patterns are textures, and the light of each face is its vertices' colour, so
that the pictures are those of `envs.house.renderer` but for the darkening with distance.

Beside `house.glb`, `write_habitat` writes what habitat-sim wants to know of it: `house.stage_config.json`, which says
that y is up, `house.semantic.glb`, whose vertices have one colour per instance, and `house.semantic.txt`, which names
them (the format of HM3D's semantic annotations).
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from embodied.files import atomic_file, write_text
from envs.house.boxes import Piece, about, names, pieces
from envs.house.compiling import njit
from envs.house.raycast import LIGHT, blend
from envs.house.scene import Scene, build_scene
from envs.house.spec import PATTERNS, HouseSpec, Material

SIDES = 48
"""Of the prism that stands for a cylinder: a radius of 0.5 m is out by 1 mm."""
PERIODS, TEXELS = 8, 128
"""A texture holds so many periods of its pattern along each axis, on so many pixels."""
_FLOAT, _INT, _VERTICES, _INDICES = 5126, 5125, 34962, 34963


def to_gltf(points: np.ndarray) -> np.ndarray:
    """(..., 3) points of the house in glTF's and Habitat's frame."""
    points = np.asarray(points)
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def from_gltf(points: np.ndarray) -> np.ndarray:
    """The inverse of `to_gltf`."""
    points = np.asarray(points)
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


class Mesh:
    """Triangles of one material: positions (m), texture coordinates, brightness.

    Attributes:
        period: metres that a texture covers, for what is added next.
    """

    def __init__(self) -> None:
        self.period = 1.0
        self.points: list[np.ndarray] = []
        self.where: list[np.ndarray] = []
        self.light: list[np.ndarray] = []
        self.triangles: list[np.ndarray] = []
        self.count = 0

    def add(self, points: np.ndarray, where: np.ndarray, light: np.ndarray | float, triangles: np.ndarray) -> None:
        """Vertices (V, 3) in the house's frame, where they are in the pattern (V, 2), both metres, how bright they are
        (V,), and triangles (T, 3), counter-clockwise seen from outside."""
        self.points.append(points)
        self.where.append(where / self.period)
        self.light.append(np.broadcast_to(np.asarray(light, float), len(points)))
        self.triangles.append(triangles + self.count)
        self.count += len(points)

    def quad(self, points: np.ndarray, axes: tuple[int, int], origin: np.ndarray, light: float) -> None:
        """Four corners, counter-clockwise seen from outside; the pattern lies along two axes of the house."""
        points = np.asarray(points, float)
        self.add(points, (points - origin)[:, axes], light, np.array([[0, 1, 2], [0, 2, 3]]))


def add_box(mesh: Mesh, bounds: np.ndarray) -> None:
    """Six sides, lit and patterned as the renderer does it."""
    a, b = bounds[:3], bounds[3:]
    for axis in range(3):
        u, v = ((1, 2), (0, 2), (0, 1))[axis]
        for high in (0, 1):
            corner = np.tile(a, (4, 1))
            corner[:, axis] = b[axis] if high else a[axis]
            corner[[1, 2], u] = b[u]
            corner[[2, 3], v] = b[v]
            if (axis == 1) == bool(high):  # so that the first three turn counter-clockwise around the outer normal
                corner = corner[::-1]
            mesh.quad(corner, (u, v), a, LIGHT[2 * axis + high])


def add_cylinder(mesh: Mesh, bounds: np.ndarray) -> None:
    """An upright prism whose corners are on the cylinder, with its two ends."""
    x, y = (bounds[0] + bounds[3]) / 2, (bounds[1] + bounds[4]) / 2
    radius = (bounds[3] - bounds[0]) / 2
    angle = np.linspace(0, 2 * math.pi, SIDES + 1)
    nx, ny = np.cos(angle), np.sin(angle)
    ring = np.stack([x + radius * nx, y + radius * ny], 1)
    side = np.concatenate([np.insert(ring, 2, bounds[z], 1) for z in (2, 5)])
    along = (side[:, :2] - bounds[:2]).sum(1)
    light = 0.79 + 0.09 * nx * np.abs(nx) + 0.06 * ny * np.abs(ny)
    i = np.arange(SIDES)
    low, high = i, i + SIDES + 1
    faces = np.concatenate([np.stack([low, low + 1, high + 1], 1), np.stack([low, high + 1, high], 1)])
    mesh.add(side, np.stack([along, side[:, 2] - bounds[2]], 1), np.tile(light, 2), faces)
    fan = np.stack([np.zeros(SIDES - 2, int), np.arange(1, SIDES - 1), np.arange(2, SIDES)], 1)
    for z, brightness, turn in ((2, LIGHT[4], fan[:, ::-1]), (5, LIGHT[5], fan)):
        end = np.insert(ring[:-1], 2, bounds[z], 1)
        mesh.add(end, (end - bounds[:3])[:, :2], brightness, turn)


def add_piece(mesh: Mesh, piece: Piece) -> None:
    """A part; or of a floor or a ceiling, the side that is seen from inside."""
    bounds = piece.bounds
    if piece.kind == "part":
        (add_cylinder if piece.is_round else add_box)(mesh, bounds)
        return
    x0, y0, low, x1, y1, high = bounds
    z = high if piece.kind == "floor" else low
    corners = np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])
    if piece.kind == "ceiling":
        corners = corners[::-1]
    mesh.quad(corners, (0, 1), np.zeros(3), 0.94 if piece.kind == "floor" else 0.97)


@njit(cache=True)
def mixture(pattern, periods, texels):
    """(texels, texels) how much of a pattern's second colour there is, at the middles of texels."""
    mix = np.empty((texels, texels), np.float32)
    step = np.float32(periods) / np.float32(texels)
    for row in range(texels):
        for column in range(texels):
            s, t = np.float32(column) + np.float32(0.5), np.float32(row) + np.float32(0.5)
            mix[row, column] = blend(pattern, s * step, t * step)
    return mix


def texture(pattern: int, first: np.ndarray, second: np.ndarray) -> bytes:
    """A PNG of `PERIODS` squared periods of a pattern in two colours; it can be laid side by side."""
    from PIL import Image

    mix = mixture(pattern, PERIODS, TEXELS)
    colours = np.clip(first + mix[..., None] * (second - first) + 0.5, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours[::-1]).save(file, "PNG")
    return file.getvalue()


class Builder:
    """Collects buffers and writes the file."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.binary = scene, bytearray()
        self.known: dict[Material, int] = {}
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "embodied"},
            "extensionsUsed": ["KHR_materials_unlit"],
            "scene": 0,
            "scenes": [{"nodes": []}],
            **{key: [] for key in ("nodes", "meshes", "accessors", "bufferViews", "materials")},
        }

    def view(self, data: bytes, target: int | None = None) -> int:
        """The number of a new stretch of the binary part."""
        self.binary += bytes(-len(self.binary) % 4)
        place: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.json["bufferViews"].append(place | ({} if target is None else {"target": target}))
        self.binary += data
        return len(self.json["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, kind: str, target: int = _VERTICES) -> int:
        """The number of a new array: float32, or uint32 for indices."""
        component = _INT if target == _INDICES else _FLOAT
        values = np.ascontiguousarray(values, np.uint32 if component == _INT else np.float32)
        entry = {"bufferView": self.view(values.tobytes(), target), "componentType": component, "type": kind}
        entry |= {"count": len(values) if kind != "SCALAR" else values.size}
        if kind == "VEC3" and target == _VERTICES:
            entry |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.json["accessors"].append(entry)
        return len(self.json["accessors"]) - 1

    def material(self, row: int) -> int:
        """The material of a surface; equal ones are the same."""
        scene = self.scene
        key = Material(
            tuple(int(c) for c in scene.colours[row, :3]),  # type: ignore[arg-type]
            tuple(int(c) for c in scene.colours[row, 3:]),  # type: ignore[arg-type]
            PATTERNS[scene.pattern[row]],
        )
        known = self.known
        if key not in known:
            known[key] = len(self.json["materials"])
            base: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
            if key.pattern == "plain":
                base["baseColorFactor"] = [*linear(np.array(key.primary) / 255).tolist(), 1.0]
            else:
                png = texture(int(scene.pattern[row]), scene.colours[row, :3], scene.colours[row, 3:])
                for part, entry in (
                    ("images", {"bufferView": self.view(png), "mimeType": "image/png"}),
                    ("textures", {"source": len(self.json.get("images", [])), "sampler": 0}),
                ):
                    self.json.setdefault(part, []).append(entry)
                self.json.setdefault("samplers", [{"wrapS": 10497, "wrapT": 10497}])  # repeat
                base["baseColorTexture"] = {"index": len(self.json["textures"]) - 1}
            self.json["materials"].append(
                {
                    "name": f"{key.pattern}_{known[key]}",
                    "pbrMetallicRoughness": base,
                    "extensions": {"KHR_materials_unlit": {}},
                }
            )
        return known[key]

    def node(self, number: int, parts: list[Piece], paint: np.ndarray | None) -> None:
        """One instance: a mesh with a primitive per material; `paint` (3,), linear 0..1, is one flat colour instead."""
        meshes: dict[int, Mesh] = defaultdict(Mesh)
        for piece in parts:
            mesh = meshes[self.material(piece.row) if paint is None else 0]
            mesh.period = PERIODS * float(self.scene.scale[piece.row])
            add_piece(mesh, piece)
        primitives = []
        for material, mesh in meshes.items():
            light = linear(np.concatenate(mesh.light))[:, None].repeat(3, 1)
            where = np.concatenate(mesh.where)
            attributes = {"POSITION": self.accessor(to_gltf(np.concatenate(mesh.points)), "VEC3")}
            if paint is None:
                where = np.stack([where[:, 0], 1 - where[:, 1]], 1)  # glTF's v grows downwards
                attributes["TEXCOORD_0"] = self.accessor(where, "VEC2")
                attributes["COLOR_0"] = self.accessor(light, "VEC3")
                del self.json["accessors"][-1]["min"], self.json["accessors"][-1]["max"]
            else:
                attributes["COLOR_0"] = self.accessor(np.tile(paint, (mesh.count, 1)), "VEC3")
            indices = self.accessor(np.concatenate(mesh.triangles).reshape(-1), "SCALAR", _INDICES)
            primitives.append({"attributes": attributes, "indices": indices, "material": material})
        name = names(self.scene)[number]
        self.json["nodes"].append({"name": name, "mesh": len(self.json["meshes"]), "extras": about(self.scene, number)})
        self.json["meshes"].append({"name": name, "primitives": primitives})
        self.json["scenes"][0]["nodes"].append(len(self.json["nodes"]) - 1)

    def bytes(self) -> bytes:
        """The whole file: a header, the JSON, the binary part."""
        body = bytes(self.binary) + bytes(-len(self.binary) % 4)
        self.json["buffers"] = [{"byteLength": len(body)}]
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + len(body)
        head = struct.pack("<III", 0x46546C67, 2, size) + struct.pack("<II", len(text), 0x4E4F534A)
        return head + text + struct.pack("<II", len(body), 0x004E4942) + body


def linear(values: np.ndarray) -> np.ndarray:
    """Brightness as the eye has it (0..1, sRGB) in the linear scale that glTF's factors and vertex colours have."""
    values = np.asarray(values, float)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def glb(house: HouseSpec | Scene, semantic: bool = False) -> bytes:
    """A house as the bytes of a .glb file.

    Args:
        house: a house, or its scene.
        semantic: give every instance its own flat colour (`instance_colour`) instead of its materials.
    """
    scene = house if isinstance(house, Scene) else build_scene(house)
    by_instance: dict[int, list[Piece]] = defaultdict(list)
    for piece in pieces(scene):
        by_instance[int(scene.instance[piece.row])].append(piece)
    builder = Builder(scene)
    if semantic:
        builder.json["materials"].append({"name": "instances", "extensions": {"KHR_materials_unlit": {}}})
    for number, parts in sorted(by_instance.items()):
        builder.node(number, parts, linear(np.array(instance_colour(number)) / 255) if semantic else None)
    return builder.bytes()


def instance_colour(number: int) -> tuple[int, int, int]:
    """Red, green, blue that stand for an instance; black, which is 0, stands for nothing."""
    return number & 255, (number >> 8) * 8 + 16 if number else 0, (number * 37) % 251


def write_glb(house: HouseSpec | Scene, path: str | Path) -> None:
    """Write one .glb file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(glb(house))


def write_habitat(house: HouseSpec | Scene, path: str | Path) -> None:
    """Write `path` (a .glb) and beside it the three files that habitat-sim wants, see the module."""
    scene = house if isinstance(house, Scene) else build_scene(house)
    path = Path(path)
    stem = path.with_suffix("")
    write_glb(scene, path)
    with atomic_file(stem.with_suffix(".semantic.glb")) as temporary:
        temporary.write_bytes(glb(scene, semantic=True))
    lines = ["HM3D Semantic Annotations"]
    for number, item in enumerate(scene.instances):
        if number:
            colour = "".join(f"{value:02X}" for value in instance_colour(number))
            lines.append(f'{number},{colour},"{item.category}",{max(item.room, 0)}')
    write_text(stem.with_suffix(".semantic.txt"), "\n".join(lines) + "\n")
    frame = {"up": [0, 1, 0], "front": [0, 0, -1]}
    config = {
        "render_asset": path.name,
        "semantic_asset": f"{stem.name}.semantic.glb",
        "semantic_descriptor_filename": f"{stem.name}.semantic.txt",
        "requires_lighting": False,
        **frame,
        "semantic_up": frame["up"],
        "semantic_front": frame["front"],
    }
    write_text(stem.with_suffix(".stage_config.json"), json.dumps(config, indent=2) + "\n")
