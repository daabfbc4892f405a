"""Furniture as lists of boxes and cylinders, and which room has what.

A piece is drawn with its back against y = 0, its width along x from 0, and its front towards +y, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.house.spec import Material

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (184, 52, 48),
    "orange": (222, 126, 48),
    "yellow": (226, 186, 66),
    "green": (76, 138, 78),
    "teal": (48, 138, 140),
    "blue": (58, 94, 168),
    "purple": (126, 82, 150),
    "pink": (218, 142, 164),
    "brown": (122, 84, 54),
    "beige": (208, 188, 154),
    "grey": (134, 136, 140),
    "white": (232, 230, 224),
    "black": (48, 48, 52),
}
"""Colours an object can be named by."""

Shape = tuple[str, str, tuple[float, float, float, float, float, float]]
"""What it is made of (`main` is the object's own colour), box or cylinder, and bounds."""


@dataclass(frozen=True)
class Piece:
    """A template: its category, size along the wall and away from it, free space kept in front, colours, parts, and the
    pieces that stand on it as (category, colours, parts)."""

    category: str
    width: float
    depth: float
    front: float
    colours: tuple[str, ...]
    patterns: tuple[str, ...]
    parts: tuple[Shape, ...]
    carries: tuple[tuple[str, tuple[str, ...], tuple[Shape, ...]], ...] = ()
    free_standing: bool = False
    hangs: bool = False
    """On the wall above head height or on the ceiling: it takes no floor."""


def box(slot: str, *bounds: float) -> Shape:
    return slot, "box", bounds  # type: ignore[return-value]


def cylinder(slot: str, x: float, y: float, radius: float, low: float, high: float) -> Shape:
    return slot, "cylinder", (x - radius, y - radius, low, x + radius, y + radius, high)


def legs(slot: str, x0: float, y0: float, x1: float, y1: float, high: float, thick: float = 0.05) -> tuple[Shape, ...]:
    return tuple(box(slot, x, y, 0.0, x + thick, y + thick, high) for x in (x0, x1 - thick) for y in (y0, y1 - thick))


FABRIC = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "beige", "grey")
WOOD = ("brown", "beige", "white", "black")
PAINT = ("white", "teal", "blue", "green", "grey", "brown")
CLOTH = ("plain", "stripes", "checker", "dots")

PIECES: dict[str, Piece] = {
    "bed": Piece("bed", 1.6, 2.1, 0.6, FABRIC, CLOTH, (
        box("wood", 0, 0, 0, 1.6, 0.08, 0.95), box("wood", 0.02, 0.08, 0.05, 1.58, 2.1, 0.28),
        box("white", 0.04, 0.08, 0.28, 1.56, 2.08, 0.45), box("main", 0.02, 0.75, 0.3, 1.58, 2.1, 0.5)),
        (("cushion", FABRIC, (box("main", 0.12, 0.14, 0.45, 0.72, 0.54, 0.6),)),
         ("cushion", FABRIC, (box("main", 0.88, 0.14, 0.45, 1.48, 0.54, 0.6),)))),
    "single bed": Piece("bed", 1.0, 2.0, 0.6, FABRIC, CLOTH, (
        box("wood", 0, 0, 0, 1.0, 0.08, 0.85), box("wood", 0.02, 0.08, 0.05, 0.98, 2.0, 0.28),
        box("white", 0.04, 0.08, 0.28, 0.96, 1.98, 0.44), box("main", 0.02, 0.7, 0.3, 0.98, 2.0, 0.48)),
        (("cushion", FABRIC, (box("main", 0.18, 0.14, 0.44, 0.82, 0.5, 0.57),)),)),
    "sofa": Piece("sofa", 2.0, 0.9, 0.6, FABRIC, CLOTH, (
        box("main", 0, 0, 0.06, 2.0, 0.25, 0.85), box("main", 0, 0.25, 0.06, 0.2, 0.9, 0.62),
        box("main", 1.8, 0.25, 0.06, 2.0, 0.9, 0.62), box("main", 0.2, 0.25, 0.06, 1.8, 0.88, 0.42)),
        (("cushion", FABRIC, (box("main", 0.26, 0.26, 0.42, 0.68, 0.42, 0.78),)),
         ("cushion", FABRIC, (box("main", 1.32, 0.26, 0.42, 1.74, 0.42, 0.78),)))),
    "armchair": Piece("chair", 0.85, 0.85, 0.5, FABRIC, CLOTH, (
        box("main", 0, 0, 0.06, 0.85, 0.2, 0.9), box("main", 0, 0.2, 0.06, 0.15, 0.85, 0.6),
        box("main", 0.7, 0.2, 0.06, 0.85, 0.85, 0.6), box("main", 0.15, 0.2, 0.06, 0.7, 0.83, 0.42))),
    "chair": Piece("chair", 0.45, 0.48, 0.35, (*FABRIC, *WOOD), ("plain",), (
        *legs("wood", 0, 0, 0.45, 0.48, 0.43, 0.04), box("main", 0, 0, 0.43, 0.45, 0.48, 0.49),
        box("main", 0, 0, 0.49, 0.45, 0.05, 0.95))),
    "stool": Piece("stool", 0.4, 0.4, 0.3, FABRIC, ("plain",), (
        cylinder("metal", 0.2, 0.2, 0.04, 0, 0.42), cylinder("metal", 0.2, 0.2, 0.15, 0, 0.03),
        cylinder("main", 0.2, 0.2, 0.2, 0.42, 0.5)), free_standing=True),
    "dining table": Piece("table", 1.5, 0.9, 0.5, WOOD, ("planks",), (
        box("main", 0, 0, 0.7, 1.5, 0.9, 0.75), *legs("main", 0.05, 0.05, 1.45, 0.85, 0.7, 0.07)), free_standing=True),
    "round table": Piece("table", 1.1, 1.1, 0.5, WOOD, ("planks", "plain"), (
        cylinder("main", 0.55, 0.55, 0.55, 0.7, 0.75), cylinder("metal", 0.55, 0.55, 0.06, 0.03, 0.7),
        cylinder("metal", 0.55, 0.55, 0.3, 0, 0.03)), free_standing=True),
    "coffee table": Piece("table", 1.0, 0.55, 0.35, WOOD, ("planks",), (
        box("main", 0, 0, 0.36, 1.0, 0.55, 0.42), *legs("main", 0.04, 0.04, 0.96, 0.51, 0.36, 0.06)),
        free_standing=True),
    "desk": Piece("table", 1.3, 0.65, 0.7, WOOD, ("planks",), (
        box("main", 0, 0, 0.7, 1.3, 0.65, 0.75), *legs("metal", 0.03, 0.03, 1.27, 0.62, 0.7, 0.05),
        box("main", 0.9, 0.05, 0.2, 1.25, 0.6, 0.7)),
        (("tv_monitor", ("black", "grey"), (box("screen", 0.35, 0.2, 0.82, 0.95, 0.24, 1.2),
                                            box("main", 0.6, 0.16, 0.75, 0.7, 0.3, 0.82))),)),
    "television": Piece("cabinet", 1.6, 0.42, 0.7, WOOD, ("planks", "plain"), (
        box("main", 0, 0, 0.05, 1.6, 0.42, 0.5), box("dark", 0.05, 0.06, 0.0, 1.55, 0.36, 0.05)),
        (("tv_monitor", ("black",), (box("screen", 0.25, 0.15, 0.56, 1.35, 0.2, 1.2),
                                      box("main", 0.6, 0.1, 0.5, 1.0, 0.3, 0.56))),)),
    "wardrobe": Piece("cabinet", 1.3, 0.6, 0.6, PAINT, ("planks", "plain", "stripes"), (
        box("main", 0, 0, 0.06, 1.3, 0.6, 2.1), box("dark", 0.03, 0.03, 0, 1.27, 0.55, 0.06),
        box("dark", 0.645, 0.6, 0.1, 0.655, 0.605, 2.05), box("metal", 0.58, 0.6, 1.0, 0.6, 0.63, 1.25),
        box("metal", 0.7, 0.6, 1.0, 0.72, 0.63, 1.25))),
    "chest": Piece("chest_of_drawers", 1.0, 0.5, 0.6, (*WOOD, "teal", "green"), ("planks", "plain"), (
        box("main", 0, 0, 0.05, 1.0, 0.48, 0.9),
        *(box("dark", 0.04, 0.48, z, 0.96, 0.485, z + 0.015) for z in (0.33, 0.6)),
        *(box("metal", 0.4, 0.48, z, 0.6, 0.5, z + 0.03) for z in (0.18, 0.46, 0.74)))),
    "bookcase": Piece("shelving", 0.9, 0.32, 0.5, WOOD, ("planks",), (
        box("main", 0, 0, 0, 0.03, 0.32, 1.9), box("main", 0.87, 0, 0, 0.9, 0.32, 1.9),
        box("main", 0.03, 0, 0, 0.87, 0.02, 1.9),
        *(box("main", 0.03, 0.02, z, 0.87, 0.32, z + 0.03) for z in (0.05, 0.5, 0.95, 1.4, 1.87))),
        (("objects", FABRIC, (box("main", 0.06, 0.04, 0.08, 0.6, 0.26, 0.36),)),
         ("objects", FABRIC, (box("main", 0.1, 0.04, 0.53, 0.82, 0.24, 0.82),)),
         ("objects", FABRIC, (box("main", 0.3, 0.04, 0.98, 0.84, 0.25, 1.25),)))),
    "counter": Piece("counter", 1.8, 0.62, 0.8, PAINT, ("planks", "plain"), (
        box("main", 0, 0, 0.08, 1.8, 0.58, 0.86), box("dark", 0, 0.04, 0, 1.8, 0.54, 0.08),
        box("stone", 0, 0, 0.86, 1.8, 0.62, 0.9),
        *(box("dark", x, 0.58, 0.12, x + 0.01, 0.585, 0.82) for x in (0.6, 1.2))),
        (("sink", ("grey", "white"), (box("main", 0.65, 0.1, 0.9, 1.15, 0.52, 0.93),
        box("metal", 0.88, 0.04, 0.9, 0.92, 0.08, 1.15),
                                      box("metal", 0.88, 0.04, 1.12, 0.92, 0.26, 1.15))),)),
    "refrigerator": Piece("appliances", 0.7, 0.68, 0.7, ("white", "grey", "red", "teal"), ("plain",), (
        box("main", 0, 0, 0.04, 0.7, 0.65, 1.8), box("dark", 0, 0.65, 1.2, 0.7, 0.655, 1.215),
        box("metal", 0.06, 0.65, 1.3, 0.09, 0.69, 1.65), box("metal", 0.06, 0.65, 0.7, 0.09, 0.69, 1.1))),
    "stove": Piece("appliances", 0.6, 0.62, 0.7, ("white", "black", "grey"), ("plain",), (
        box("main", 0, 0, 0.04, 0.6, 0.6, 0.88), box("dark", 0.08, 0.6, 0.2, 0.52, 0.61, 0.6),
        *(cylinder("dark", x, y, 0.1, 0.88, 0.9) for x in (0.16, 0.44) for y in (0.16, 0.44)))),
    "toilet": Piece("toilet", 0.42, 0.7, 0.55, ("white", "pink", "teal"), ("plain",), (
        box("main", 0.02, 0, 0.35, 0.4, 0.2, 0.8), box("main", 0.1, 0, 0, 0.32, 0.45, 0.35),
        cylinder("main", 0.21, 0.48, 0.21, 0.3, 0.42), cylinder("dark", 0.21, 0.5, 0.11, 0.42, 0.425))),
    "basin": Piece("sink", 0.6, 0.48, 0.55, ("white", "beige", "teal"), ("plain",), (
        box("wood", 0.04, 0, 0.1, 0.56, 0.44, 0.74), box("main", 0, 0, 0.74, 0.6, 0.48, 0.86),
        cylinder("stone", 0.3, 0.26, 0.17, 0.86, 0.865), box("metal", 0.28, 0.05, 0.86, 0.32, 0.09, 1.02)),
        (("mirror", ("grey",), (box("mirror", 0.05, 0, 1.1, 0.55, 0.03, 1.8),)),)),
    "bathtub": Piece("bathtub", 1.6, 0.75, 0.55, ("white", "beige", "pink"), ("plain",), (
        box("main", 0, 0, 0, 1.6, 0.08, 0.58), box("main", 0, 0.67, 0, 1.6, 0.75, 0.58),
        box("main", 0, 0.08, 0, 0.08, 0.67, 0.58), box("main", 1.52, 0.08, 0, 1.6, 0.67, 0.58),
        box("water", 0.08, 0.08, 0, 1.52, 0.67, 0.38))),
    "shower": Piece("shower", 0.9, 0.9, 0.6, ("white", "teal", "blue"), ("tiles",), (
        box("main", 0, 0, 0, 0.9, 0.9, 0.1), box("main", 0, 0, 0.1, 0.9, 0.03, 2.0),
        box("metal", 0.43, 0.03, 1.0, 0.47, 0.07, 2.0), cylinder("metal", 0.45, 0.2, 0.1, 1.95, 2.0),
        box("metal", 0.0, 0.86, 0.1, 0.04, 0.9, 2.0), box("metal", 0.86, 0.86, 0.1, 0.9, 0.9, 2.0),
        box("metal", 0.0, 0.86, 1.96, 0.9, 0.9, 2.0))),
    "towel": Piece("towel", 0.5, 0.07, 0.0, FABRIC, CLOTH, (
        box("metal", 0, 0, 1.38, 0.5, 0.03, 1.41), box("main", 0.06, 0.03, 0.75, 0.44, 0.06, 1.44)), hangs=True),
    "picture": Piece("picture", 0.9, 0.03, 0.0, FABRIC, ("checker", "stripes", "dots", "tiles", "bricks"), (
        box("dark", 0, 0, 1.2, 0.9, 0.02, 1.85), box("main", 0.05, 0.02, 1.25, 0.85, 0.025, 1.8)), hangs=True),
    "mirror": Piece("mirror", 0.6, 0.03, 0.0, ("grey",), ("plain",), (
        box("wood", 0, 0, 0.9, 0.6, 0.02, 1.9), box("mirror", 0.05, 0.02, 0.95, 0.55, 0.025, 1.85)), hangs=True),
    "fireplace": Piece("fireplace", 1.3, 0.4, 0.7, ("red", "white", "grey", "brown"), ("bricks",), (
        box("main", 0, 0, 0, 0.3, 0.4, 0.8), box("main", 1.0, 0, 0, 1.3, 0.4, 0.8),
        box("dark", 0.3, 0, 0, 1.0, 0.1, 0.8),
        box("main", 0, 0, 0.8, 1.3, 0.4, 1.15), box("stone", -0.05, 0, 1.15, 1.35, 0.45, 1.2),
        box("main", 0.3, 0, 1.2, 1.0, 0.3, 2.6))),
    "plant": Piece("plant", 0.5, 0.5, 0.2, ("green", "teal"), ("dots", "checker"), (
        cylinder("pot", 0.25, 0.25, 0.16, 0, 0.34), cylinder("wood", 0.25, 0.25, 0.03, 0.34, 0.6),
        cylinder("main", 0.25, 0.25, 0.25, 0.6, 0.95),
        cylinder("main", 0.25, 0.25, 0.17, 0.95, 1.25)), free_standing=True),
    "lamp": Piece("lighting", 0.4, 0.4, 0.2, ("yellow", "white", "orange", "pink"), ("plain", "stripes"), (
        cylinder("metal", 0.2, 0.2, 0.14, 0, 0.03), cylinder("metal", 0.2, 0.2, 0.02, 0.03, 1.4),
        cylinder("main", 0.2, 0.2, 0.2, 1.4, 1.7))),
    "clothes rack": Piece("clothes", 1.0, 0.45, 0.5, FABRIC, CLOTH, (
        box("metal", 0, 0.2, 0, 0.04, 0.24, 1.6), box("metal", 0.96, 0.2, 0, 1.0, 0.24, 1.6),
        box("metal", 0, 0.2, 1.6, 1.0, 0.24, 1.63), box("main", 0.15, 0.06, 0.7, 0.45, 0.4, 1.55),
        box("main", 0.5, 0.06, 0.5, 0.85, 0.4, 1.55))),
    "exercise bike": Piece("gym_equipment", 0.55, 1.1, 0.5, ("black", "grey", "red"), ("plain",), (
        box("metal", 0, 0.05, 0, 0.55, 0.13, 0.06), box("metal", 0, 0.97, 0, 0.55, 1.05, 0.06),
        box("main", 0.23, 0.05, 0.06, 0.33, 1.05, 0.4), box("main", 0.25, 0.3, 0.4, 0.31, 0.4, 0.9),
        box("main", 0.17, 0.22, 0.9, 0.39, 0.5, 0.97), box("metal", 0.25, 0.85, 0.4, 0.31, 0.92, 1.15),
        box("main", 0.03, 0.82, 1.15, 0.53, 0.88, 1.2))),
    "bench": Piece("seating", 1.2, 0.42, 0.45, (*FABRIC, "brown"), ("plain", "stripes"), (
        box("main", 0, 0, 0.38, 1.2, 0.42, 0.48), box("wood", 0.08, 0.04, 0, 0.16, 0.38, 0.38),
        box("wood", 1.04, 0.04, 0, 1.12, 0.38, 0.38))),
}  # fmt: skip

Wish = tuple[str, float]
"""A piece and how likely a room has it."""

ROOMS: dict[str, tuple[Wish, ...]] = {
    "living room": (("television", 1), ("sofa", 1), ("coffee table", 0.9), ("armchair", 0.8), ("fireplace", 0.4),
                    ("bookcase", 0.7), ("sofa", 0.3), ("lamp", 0.8), ("plant", 0.8), ("bench", 0.2)),
    "kitchen": (("counter", 1), ("refrigerator", 1), ("stove", 1), ("counter", 0.5), ("round table", 0.6),
                ("stool", 0.7), ("stool", 0.5), ("plant", 0.2)),
    "dining room": (("dining table", 1), ("chair", 1), ("chair", 1), ("chair", 0.8), ("chair", 0.6), ("chest", 0.6),
                    ("plant", 0.6), ("lamp", 0.5)),
    "bathroom": (("bathtub", 0.5), ("shower", 0.6), ("toilet", 1), ("basin", 1), ("stool", 0.2)),
    "bedroom": (("wardrobe", 0.9), ("chest", 0.7), ("clothes rack", 0.4),
                ("chair", 0.5), ("lamp", 0.6), ("plant", 0.4), ("bench", 0.3)),
    "office": (("desk", 1), ("chair", 1), ("bookcase", 0.9), ("exercise bike", 0.5), ("armchair", 0.4), ("plant", 0.6),
               ("lamp", 0.5)),
    "hallway": (("bench", 0.7), ("chest", 0.5), ("clothes rack", 0.6), ("plant", 0.5)),
}  # fmt: skip
HANGING: dict[str, tuple[Wish, ...]] = {
    "bathroom": (("towel", 1), ("towel", 0.4)),
    "hallway": (("picture", 0.8), ("mirror", 0.6)),
    "bedroom": (("picture", 0.9), ("mirror", 0.4), ("picture", 0.4)),
    "office": (("picture", 0.8), ("picture", 0.3)),
    "kitchen": (("picture", 0.5), ("towel", 0.5)),
    "dining room": (("picture", 0.9), ("picture", 0.5)),
    "living room": (("picture", 1), ("picture", 0.8), ("picture", 0.4)),
}

FIXED: dict[str, Material] = {
    "white": Material((236, 234, 228), (222, 220, 214)),
    "dark": Material((44, 40, 38), (44, 40, 38)),
    "metal": Material((168, 172, 178), (168, 172, 178)),
    "stone": Material((178, 174, 168), (150, 146, 142), "carpet", 0.03),
    "water": Material((150, 200, 212), (136, 190, 206), "stripes", 0.2),
    "mirror": Material((196, 214, 222), (180, 200, 212), "stripes", 0.6),
    "screen": Material((26, 30, 40), (34, 42, 58), "stripes", 0.2),
    "pot": Material((176, 98, 66), (160, 86, 58), "stripes", 0.1),
    "wood": Material((120, 86, 58), (104, 72, 46), "planks", 0.12),
}


def shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue


def dye(rng: np.random.Generator, colour: str, patterns: tuple[str, ...]) -> Material:
    """A material of this colour; the second colour is darker or lighter, so that the name of the colour stays true."""
    base = tuple(int(np.clip(value + rng.integers(-12, 13), 0, 255)) for value in COLOURS[colour])
    pattern = patterns[int(rng.integers(len(patterns)))]
    second = shade(base, (0.72, 0.82, 1.25)[int(rng.integers(3))])  # type: ignore[arg-type]
    return Material(base, second, pattern, (0.1, 0.15, 0.22)[int(rng.integers(3))])  # type: ignore[arg-type]
