"""MapGPT: the navigation graph as text, for a language model that reads words.

Chen et al. 2024, "MapGPT" (ACL), and its official code (`GPT/one_stage_prompt_manager.py`, `make_map_prompt` and
`make_action_options`). Places are numbered in the order in which they were first seen. The text lists the trajectory,
what each visited place is connected with, and places seen before that are neither visited nor next to the agent; then
the options, each a letter, a direction and a place.

This map has no tokens of its own: `text` goes into the prompt, and the language model's tokenizer makes the tokens.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.spec import POSE

NODE, NEIGHBOURS = "observation.node", "observation.neighbours"


@dataclass
class GraphWords:
    """One episode: viewpoint numbers in the order first seen, where the agent went, and what is next to what."""

    places: list[int] = field(default_factory=list)
    trajectory: list[int] = field(default_factory=list)
    connected: dict[int, list[int]] = field(default_factory=dict)
    options: list[tuple[int, str]] = field(default_factory=list)


class GraphText:
    """Graphs of several episodes, written step by step, read as text.

    Observations are those of `maps.panorama`, without the views.

    Args:
        images: whether texts say which image shows a place; then image `i` of the prompt has to be place `i`.
    """

    def __init__(self, images: bool = True) -> None:
        self.images = images
        self._episodes: list[GraphWords] = []

    def reset(self, slots: int | Sequence[int]) -> None:
        """Get ready for so many episodes, or forget those of some slots."""
        if isinstance(slots, int):
            self._episodes = [GraphWords() for _ in range(slots)]
        else:
            for slot in slots:
                self._episodes[slot] = GraphWords()

    def update(self, observation: Mapping[str, Any], slots: Sequence[int] | None = None) -> None:
        """Write one step of B episodes.

        Raises:
            ValueError: the observation lacks something.
        """
        for key in (NODE, NEIGHBOURS, NEIGHBOURS + ".places", POSE):
            if key not in observation:
                raise ValueError(f"a graph as text needs {key}; the observation has {', '.join(sorted(observation))}")
        nodes, near = np.asarray(observation[NODE]), np.asarray(observation[NEIGHBOURS])
        there, poses = np.asarray(observation[NEIGHBOURS + ".places"]), np.asarray(observation[POSE])
        rows = range(len(self._episodes)) if slots is None else slots
        if len(rows) != len(nodes):
            raise ValueError(f"an observation of {len(nodes)} episodes was given for {len(rows)} slots")
        for row, slot in enumerate(rows):
            words, node = self._episodes[slot], int(nodes[row])
            neighbours = [(int(name), place) for name, place in zip(near[row], there[row], strict=True) if name >= 0]
            for name in [node, *(name for name, _ in neighbours)]:
                if name not in words.places:
                    words.places.append(name)
            words.trajectory.append(node)
            words.connected[node] = [name for name, _ in neighbours]
            words.options = [(name, direction(poses[row], place)) for name, place in neighbours]

    def number(self, slot: int, node: int) -> int:
        """What a viewpoint is called in the texts of an episode."""
        return self._episodes[slot].places.index(node)

    def text(self, slot: int) -> str:
        """Trajectory, map and supplementary information of an episode."""
        words = self._episodes[slot]
        number = words.places.index
        visited = list(dict.fromkeys(words.trajectory))
        lines = ["Trajectory: Place " + " ".join(str(number(node)) for node in words.trajectory), "Map:"]
        for node in visited:
            near = ", ".join(str(number(name)) for name in words.connected[node])
            lines.append(f"Place {number(node)} is connected with Places {near}")
        shown = {*visited, *words.connected.get(words.trajectory[-1], [])} if words.trajectory else set()
        beyond = [self._place(number(node)) for node in words.places if node not in shown]
        return "\n".join([*lines, "Supplementary Info:", *(beyond or ["Nothing yet."])])

    def options(self, slot: int) -> tuple[list[str], list[int]]:
        """The actions in words, `A. stop` first, and the viewpoint each goes to (-1 for stop).

        Raises:
            ValueError: more neighbours than letters.
        """
        options = self._episodes[slot].options
        if len(options) >= len(string.ascii_uppercase):
            raise ValueError(f"{len(options)} neighbours are more than there are letters to name them")
        said = ["A. stop"]
        for letter, (node, way) in zip(string.ascii_uppercase[1:], options, strict=False):
            said.append(f"{letter}. {way} to {self._place(self.number(slot, node))}")
        return said, [-1, *(node for node, _ in options)]

    def _place(self, number: int) -> str:
        shown = f" which is corresponding to Image {number}"
        return f"Place {number}{shown}" if self.images else f"Place {number}"


def direction(pose: np.ndarray, place: np.ndarray) -> str:
    """How to get from a pose (4, 4) to a place (3,) in words: up or down where that is most, else where to turn."""
    x, y, z = (float(v) for v in place - pose[:3, 3])
    elevation = math.atan2(z, math.hypot(x, y))
    if elevation > math.pi / 6:
        return "go up"
    if elevation < -math.pi / 6:
        return "go down"
    heading = math.atan2(y, x) - math.atan2(float(pose[0, 0]), -float(pose[1, 0]))  # as `maps.geometry.heading_of`
    heading = (heading + math.pi) % (2 * math.pi) - math.pi  # left is positive
    if abs(heading) > math.pi / 2:
        return "turn around"
    if abs(heading) < math.pi / 12:
        return "go forward"
    return "turn left" if heading > 0 else "turn right"
