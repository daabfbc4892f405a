"""A house as MJCF, for MuJoCo: one body per instance, one geom per box or cylinder, in the house's own frame (z up).

Bodies are named by category and number (`chair_31`), geoms after them (`chair_31_0`), and each geom's `user` holds
Matterport3D's category id, the instance id and the room. All bodies are fixed; everything can be touched, so that a
robot included beside it stands on the floor and meets walls and furniture. Colours are flat: the mean of a pattern's.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from embodied.files import write_text
from envs.house.boxes import about, names, pieces
from envs.house.scene import Scene, build_scene
from envs.house.spec import HouseSpec


def mjcf(house: HouseSpec | Scene, name: str = "house") -> str:
    """The XML of a house."""
    scene = house if isinstance(house, Scene) else build_scene(house)
    root = ElementTree.Element("mujoco", model=name)
    ElementTree.SubElement(root, "compiler", angle="radian", autolimits="true")
    ElementTree.SubElement(root, "size", nuser_geom="3")
    x, y = (np.array(scene.rooms.shape) - 1) / 10 / 2
    radius = float(np.hypot(x, y))
    ElementTree.SubElement(
        root, "statistic", center=numbers([x, y, scene.height / 2]), extent=numbers([radius]), meansize="0.2"
    )
    visual = ElementTree.SubElement(root, "visual")
    # Near and far planes are multiples of the extent: a centimetre, and any house from any of its corners.
    ElementTree.SubElement(visual, "map", znear=numbers([0.01 / radius]), zfar=numbers([40 / radius]))
    ElementTree.SubElement(visual, "headlight", ambient="0.55 0.55 0.55", diffuse="0.45 0.45 0.45", specular="0 0 0")
    ElementTree.SubElement(visual, "quality", shadowsize="0", offsamples="0")
    world = ElementTree.SubElement(root, "worldbody")
    bodies: dict[int, ElementTree.Element] = {}
    called = names(scene)
    for piece in pieces(scene):
        number = int(scene.instance[piece.row])
        if number not in bodies:
            bodies[number] = ElementTree.SubElement(world, "body", name=called[number])
        body, told = bodies[number], about(scene, number)
        low, high = piece.bounds[:3], piece.bounds[3:]
        half = (high - low) / 2
        colour = (scene.colours[piece.row, :3] + scene.colours[piece.row, 3:]) / 2 / 255
        ElementTree.SubElement(
            body,
            "geom",
            name=f"{called[number]}_{len(body)}",
            type="cylinder" if piece.is_round else "box",
            pos=numbers((low + high) / 2),
            size=numbers([half[0], half[2]] if piece.is_round else half),
            rgba=numbers([*colour, 1]),
            user=numbers([float(told[key]) for key in ("category_id", "instance", "room")]),
        )
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def numbers(values: np.ndarray | list[float]) -> str:
    """Numbers as MJCF has them; tenths of a millimetre are kept and more."""
    return " ".join(f"{float(value):.6g}" for value in values)


def write_mjcf(house: HouseSpec | Scene, path: str | Path) -> None:
    """Write one .xml file."""
    write_text(path, mjcf(house, Path(path).stem))


def pybullet_bodies(house: HouseSpec | Scene, bullet: object, client: int) -> dict[int, int]:
    """Put a house into a running PyBullet client as fixed bodies, one per box or cylinder.

    Args:
        house: a house, or its scene.
        bullet: the module `pybullet`.
        client: what its `connect` returned.

    Returns:
        The instance id of each body, by PyBullet's number of the body, which its segmentation holds.
    """
    scene = house if isinstance(house, Scene) else build_scene(house)
    made = {}
    for piece in pieces(scene):
        low, high = piece.bounds[:3], piece.bounds[3:]
        half = ((high - low) / 2).tolist()
        colour = [*((scene.colours[piece.row, :3] + scene.colours[piece.row, 3:]) / 2 / 255).tolist(), 1.0]
        kind = bullet.GEOM_CYLINDER if piece.is_round else bullet.GEOM_BOX  # type: ignore[attr-defined]
        size = {"radius": half[0]} if piece.is_round else {"halfExtents": half}
        seen = {"length": 2 * half[2]} if piece.is_round else {}
        solid = {"height": 2 * half[2]} if piece.is_round else {}
        look = bullet.createVisualShape(kind, rgbaColor=colour, physicsClientId=client, **size, **seen)  # type: ignore[attr-defined]
        touch = bullet.createCollisionShape(kind, physicsClientId=client, **size, **solid)  # type: ignore[attr-defined]
        body = bullet.createMultiBody(0, touch, look, ((low + high) / 2).tolist(), physicsClientId=client)  # type: ignore[attr-defined]
        made[body] = int(scene.instance[piece.row])
    return made
