"""Reading an action out of a language model's answer. What it says is data: nothing of it is ever run or looked up.

The grammar is regular and small; whatever is not in it is no action:

    answer = words "Action:" ("stop" | "go to" ["place"] number) ["."]

with one "Action:" in the answer and nothing behind the action but spaces. Numbers are one to four ASCII digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 4000
"""Characters; a longer answer is no action, and is not searched."""
MARK = re.compile(r"\baction[ \t]*:", re.IGNORECASE | re.ASCII)
ACTION = re.compile(r"(?P<stop>stop)|go to (?:place )?(?P<place>[0-9]{1,4})", re.IGNORECASE | re.ASCII)
THOUGHT = re.compile(r"^[ \t]*thought[ \t]*:", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Answer:
    """What an answer says.

    Attributes:
        place: the number to go to; None to stop, or where there is no action.
        stop: whether it says to stop.
        thought: the words before, in one line.
        problem: why it is no action; empty where it is one.
    """

    place: int | None = None
    stop: bool = False
    thought: str = ""
    problem: str = ""


def read_answer(text: object, longest: int = LONGEST) -> Answer:
    """The action of an answer, or what is wrong with it; never an error, whatever `text` is."""
    if not isinstance(text, str):
        return Answer(problem="it is no text")
    if len(text) > longest:
        return Answer(problem=f"it is longer than {longest} characters")
    marks = list(MARK.finditer(text))
    thought = plain(THOUGHT.sub("", text[: marks[0].start()] if marks else text))
    if len(marks) != 1:
        problem = f"it names {len(marks)} actions" if marks else "it has no 'Action:'"
        return Answer(thought=thought, problem=problem)
    said = " ".join(text[marks[0].end() :].split()).removesuffix(".")
    found = ACTION.fullmatch(said)
    if found is None:
        return Answer(thought=thought, problem="its action is neither 'stop' nor 'go to <place>'")
    if found["stop"]:
        return Answer(stop=True, thought=thought)
    return Answer(place=int(found["place"]), thought=thought)


def plain(text: str, longest: int = 200) -> str:
    """A text as one line of printable characters, cut short, to be put into a prompt."""
    kept = "".join(character if character.isprintable() else " " for character in text[: 4 * longest])
    line = " ".join(kept.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."
