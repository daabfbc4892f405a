"""Category ids and names: Matterport3D's 40 (`mpcat40.tsv`) and Habitat's 21 of the ObjectNav challenge."""

from __future__ import annotations

MP3D = (
    "void", "wall", "floor", "chair", "door", "table", "picture", "cabinet", "cushion", "window", "sofa", "bed",
    "curtain", "chest_of_drawers", "plant", "sink", "stairs", "ceiling", "toilet", "stool", "towel", "mirror",
    "tv_monitor", "shower", "column", "bathtub", "counter", "fireplace", "lighting", "beam", "railing", "shelving",
    "blinds", "gym_equipment", "seating", "board_panel", "furniture", "appliances", "clothes", "objects", "misc",
)  # fmt: skip
"""Matterport3D's category names; a name's place is its id, which the semantic image holds."""

OBJECTNAV = (
    "chair", "table", "picture", "cabinet", "cushion", "sofa", "bed", "chest_of_drawers", "plant", "sink", "toilet",
    "stool", "towel", "tv_monitor", "shower", "bathtub", "counter", "fireplace", "gym_equipment", "seating", "clothes",
)  # fmt: skip
"""Habitat's ObjectNav goals on Matterport3D; a name's place is its task category id."""

MP3D_ID = {name: place for place, name in enumerate(MP3D)}
OBJECTNAV_ID = {name: place for place, name in enumerate(OBJECTNAV)}
WANTED = 41
"""In semantic images that are prompted with a category, the id of what is of it: the first that Matterport3D leaves."""
