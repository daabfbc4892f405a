"""NavGPT: a language model that navigates a graph of viewpoints in words.

Zhou et al. 2024, "NavGPT: Explicit Reasoning in Vision-and-Language Navigation with Large Language Models" (AAAI): each
step a prompt of the instruction, what was thought and done so far, and what can be gone to; the model thinks, then says
what it does. The graph walked so far is in the prompt too, as in MapGPT (Chen et al. 2024), and pictures of the
candidates where the model sees.

Places are called by their numbers in the graph's text. What an answer may say is in `policies.navigation.answers`; an
answer that says something else, or goes to a place that is not next to the agent, is counted as invalid, and the
`fallback` is done instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from embodied.building import nearest
from embodied.interaction import Observation, Policy
from embodied.spec import IMAGES, STATE, TASK, Embodiment
from policies.navigation.answers import read_answer

NODE, NEIGHBOURS = "observation.node", "observation.neighbours"
FALLBACKS = ("ahead", "stop")
PLACES = ("instruction", "history", "map", "candidates")
PROMPT = """You walk through a building from place to place and follow an instruction. Places are numbered.

Instruction: {instruction}

What you did so far:
{history}

{map}

Where you can go from here:
{candidates}

Think first, then act: stop where the instruction ends, or go to one of the places that you can go to from here. \
Answer in two lines, such as
Thought: I have left the bedroom, the stairs are to the left.
Action: go to 3
or, at the end,
Action: stop"""


class Graph(Protocol):
    """What is asked of a graph as text; `maps.mapgpt.GraphText` has it."""

    def reset(self, slots: int | Sequence[int]) -> None: ...
    def update(self, observation: Mapping[str, Any], slots: Sequence[int] | None = None) -> None: ...
    def number(self, slot: int, node: int) -> int: ...
    def text(self, slot: int) -> str: ...


class Answers(Protocol):
    """What is asked of the model; `embodied.evaluation.answerers` has it."""

    sees: bool

    def answer(self, prompts: Sequence[str], pictures: Sequence[Sequence[np.ndarray]]) -> list[str]: ...


@dataclass
class Candidate:
    """A place one can go to: its action, number, angle (radians, left is positive), metres, whether it was visited."""

    action: int
    number: int
    angle: float
    metres: float
    visited: bool


@dataclass
class Walked:
    """One episode: what was done, in words, and which viewpoints were visited."""

    history: list[str] = field(default_factory=list)
    visited: set[int] = field(default_factory=set)


class NavGPT(Policy):
    """Asks a language model at each viewpoint where to go.

    Args:
        embodiment: with panoramic actions: `stop`, `candidate 0`, `candidate 1`, ...
        graph: the graph as text.
        answerer: the model.
        prompt: with the places {instruction}, {history}, {map} and {candidates}; None: the one above.
        history: how many of the latest steps are told.
        pictures: whether a model that sees is shown the views nearest to the candidates.
        fallback: what is done instead of an invalid action: `ahead`, to the place most ahead of those not visited (of
            all, where all were), or `stop`.
        longest: characters of an answer; longer ones are invalid.

    Attributes:
        asked, invalid: how many answers there were, and how many of them were no action that could be done.

    Raises:
        ValueError: a body without these actions, a prompt without instruction or candidates, an unknown fallback.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        graph: Graph,
        answerer: Answers,
        prompt: str | None = None,
        history: int = 10,
        pictures: bool = True,
        fallback: str = "ahead",
        longest: int = 4000,
    ) -> None:
        names = embodiment.action.names
        if names[:2] != ("stop", "candidate 0"):
            raise ValueError(
                f"NavGPT chooses among candidates, but {embodiment.name} acts by {', '.join(names[:3])}, ...: "
                "take env=house/vln-graph or house/r2r with env.make.actions=panoramic"
            )
        if fallback not in FALLBACKS:
            raise ValueError(f"NavGPT has no fallback '{fallback}'{nearest(fallback, FALLBACKS)}")
        if history < 0 or longest < 1:
            raise ValueError(f"NavGPT: history={history} and longest={longest} should be at least 0 and 1")
        self.prompt = PROMPT if prompt is None else prompt
        for needed in ("{instruction}", "{candidates}"):
            if needed not in self.prompt:
                raise ValueError(f"NavGPT: the prompt has no {needed}, without which nobody can choose")
        self.embodiment, self.graph, self.answerer = embodiment, graph, answerer
        self.history, self.fallback, self.longest = history, fallback, longest
        felt = embodiment.state.names if embodiment.state else ()
        self.first = felt.index("candidate0_there")
        self.count = len(names) - 1
        self.cameras = embodiment.camera_names if pictures and answerer.sees else ()
        self.asked = self.invalid = 0
        self.problems: dict[str, int] = {}
        self.walked: list[Walked] = []

    def reset(self, slots: int) -> None:
        self.graph.reset(slots)
        self.walked = [Walked() for _ in range(slots)]

    def start(self, slot: int, seed: int, task: str) -> None:
        self.graph.reset([slot])
        self.walked[slot] = Walked()

    def act(self, observations: Observation, slots: Sequence[int]) -> np.ndarray:
        for key in (NODE, NEIGHBOURS):
            if key not in observations:
                raise ValueError(f"NavGPT needs {key}: add env.make.neighbours=true")
        self.graph.update(observations, slots)
        around = [self._candidates(observations, row, slot) for row, slot in enumerate(slots)]
        prompts, pictures = [], []
        for row, slot in enumerate(slots):
            shown, said = self._pictures(observations, row, around[row])
            prompts.append(self._prompt(str(observations[TASK][row]), slot, around[row], said))
            pictures.append(shown)
        answers = self.answerer.answer(prompts, pictures)
        if len(answers) != len(slots):
            raise ValueError(f"the model was asked {len(slots)} prompts and gave {len(answers)} answers")
        chosen = [self._read(answers[row], slot, around[row]) for row, slot in enumerate(slots)]
        return np.array(chosen, np.float32)[:, None]

    def remarks(self) -> list[str]:
        """What is to be said of the evaluation beside its figures."""
        if not self.invalid:
            return []
        worst = max(self.problems, key=lambda problem: self.problems[problem])
        often = f"mostly since {worst} ({self.problems[worst]})"
        return [
            f"{self.invalid} of {self.asked} answers were no action that could be done, {often}; done: {self.fallback}"
        ]

    # what the model is told

    def _candidates(self, observations: Observation, row: int, slot: int) -> list[Candidate]:
        node, walked = int(observations[NODE][row]), self.walked[slot]
        walked.visited.add(node)
        felt = np.asarray(observations[STATE][row], float)[self.first :].reshape(-1, 4)[: self.count]
        found = []
        for k, ((there, cosine, sine, metres), other) in enumerate(
            zip(felt, np.asarray(observations[NEIGHBOURS][row])[: self.count], strict=True)
        ):
            if there > 0.5:
                number = self.graph.number(slot, int(other))
                angle = math.atan2(sine, cosine)
                found.append(Candidate(1 + k, number, angle, float(metres), int(other) in walked.visited))
        return found

    def _pictures(
        self, observations: Observation, row: int, around: Sequence[Candidate]
    ) -> tuple[list[np.ndarray], dict[int, int]]:
        """What the model is shown, and by the candidate's number which picture shows it, from 1."""
        if not self.cameras:
            return [], {}
        shown: list[np.ndarray] = []
        where: dict[int, int] = {}
        views: dict[str, int] = {}
        apart = 2 * math.pi / len(self.cameras)
        for candidate in around if len(self.cameras) > 1 else ():
            camera = self.cameras[round(candidate.angle / apart) % len(self.cameras)]
            if camera not in views:
                shown.append(np.asarray(observations[IMAGES + camera][row]))
                views[camera] = len(shown)
            where[candidate.number] = views[camera]
        if len(self.cameras) == 1:
            shown.append(np.asarray(observations[IMAGES + self.cameras[0]][row]))
        return shown, where

    def _prompt(self, instruction: str, slot: int, around: Sequence[Candidate], where: Mapping[int, int]) -> str:
        walked = self.walked[slot].history
        told = walked[len(walked) - self.history :] if self.history < len(walked) else walked
        lines = []
        for candidate in around:
            seen = f", in picture {where[candidate.number]}" if candidate.number in where else ""
            visited = ", visited before" if candidate.visited else ""
            lines.append(
                f"Place {candidate.number}: {direction(candidate.angle)}, {candidate.metres:.1f} m{seen}{visited}"
            )
        values = {
            "instruction": instruction,
            "history": "\n".join(told) or "Nothing yet.",
            "map": self.graph.text(slot),
            "candidates": "\n".join(lines) or "Nowhere.",
        }
        # in one pass: what is filled in is never read as a place itself
        return re.sub("{(" + "|".join(PLACES) + ")}", lambda found: values[found[1]], self.prompt)

    # what it answers

    def _read(self, text: object, slot: int, around: Sequence[Candidate]) -> int:
        answer = read_answer(text, self.longest)
        self.asked += 1
        step = f"Step {len(self.walked[slot].history) + 1}:"
        by_number = {candidate.number: candidate for candidate in around}
        problem = answer.problem
        if answer.place is not None and answer.place not in by_number:
            problem = "it goes to a place that is not next to here"
        if problem:
            self.invalid += 1
            self.problems[problem] = self.problems.get(problem, 0) + 1
            chosen, why = self._instead(around), f"(the answer was no action: {problem})"
        else:
            chosen = None if answer.stop else by_number[answer.place or 0]
            why = f"Thought: {answer.thought}" if answer.thought else ""
        done = "stopped" if chosen is None else f"went to Place {chosen.number}"
        self.walked[slot].history.append(f"{step} {why} {done}.".replace("  ", " "))
        return 0 if chosen is None else chosen.action

    def _instead(self, around: Sequence[Candidate]) -> Candidate | None:
        """What is done instead of an invalid action; None to stop."""
        if self.fallback == "stop" or not around:
            return None
        fresh = [candidate for candidate in around if not candidate.visited] or list(around)
        return min(fresh, key=lambda candidate: (abs(candidate.angle), candidate.number))


def direction(angle: float) -> str:
    """An angle (radians, left is positive) in words, to 10 degrees."""
    degrees = round(math.degrees(angle) / 10) * 10
    if degrees == 0:
        return "straight ahead"
    if abs(degrees) == 180:
        return "behind"
    return f"{abs(degrees)} degrees to the {'left' if degrees > 0 else 'right'}"
