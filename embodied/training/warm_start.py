"""Start from what a checkpoint knows: an agent's, a crew's or an assistant's weights in a new agent or crew, wherever
they fit.

For a body that the checkpoint knows, all of its agent is taken, normalisation included: training begins with what that
agent does. For a new body, what belongs to a body (its state encoder, its head, its normalisation) is new, and the
rest, which has learned to see and to read, is taken. An assistant brings an encoder, a connector, a language model and
its words: an action head on it makes a robot of it (RT-2, OpenVLA).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from embodied.agent import CONFIG, TOKENIZER, Agent
from embodied.assistant import Assistant, is_assistant
from embodied.crew import PARTS, Crew, by_body, is_crew
from embodied.files import read_json

BROUGHT = (*PARTS, "text")
"""Nodes of a config that a checkpoint brings along."""
SPOKEN = ("encoder", "connector", "backbone")
"""Nodes of a model that an assistant brings along."""


def config_of(folder: Path) -> dict[str, Any]:
    """The config nodes of a checkpoint, as a training's config has them: those of a crew's first agent.

    Of an assistant, parts of `model` and `text`, and `chat`.

    Raises:
        ValueError: the folder's config is no agent's and no crew's.
    """
    config = read_json(folder / CONFIG)
    if is_assistant(folder):
        model = {part: config["model"][part] for part in SPOKEN if part in config["model"]}
        return {"model": model, "text": {"checkpoint": str(folder / TOKENIZER)}, "chat": config["chat"]}
    try:
        parts = next(iter(config["agents"].values())) if is_crew(folder) else config
        found = {key: parts[key] for key in PARTS}
        found["text"] = {"checkpoint": str(folder / TOKENIZER), "vocabulary": 0, **config["text"]}
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(f"{folder / CONFIG} is no config of an agent or a crew: {error} is missing") from None
    return found


def warm_start(new: Agent | Crew, folder: Path, own: Sequence[str]) -> list[str]:
    """Take over the weights of a checkpoint that fit by name and shape.

    Args:
        new: built and fitted; what is not taken keeps its values.
        folder: an agent's, a crew's or an assistant's files.
        own: patterns of what belongs to a body (`embodied.crew.Crew`), where the checkpoint is an agent's; a crew says
            so itself.

    Returns:
        Three lines for a person: what was taken, what is new, and what of the checkpoint was left.

    Raises:
        ValueError: nothing fits; or the checkpoint is damaged.
    """
    source = _load(folder)
    theirs = dict(source.agents) if isinstance(source, Crew) else {"": source} if isinstance(source, Agent) else {}
    patterns = [re.compile(rf"(?:{p})(?:\.|$)") for p in (source.own if isinstance(source, Crew) else own)]
    views = {name: agent.state_dict() for name, agent in theirs.items()}
    if isinstance(source, Assistant):
        views[""] = _as_agents(source, new)
    taken: dict[str, int] = {}
    fresh: dict[str, int] = {}
    used: set[int] = set()
    seen: set[int] = set()
    misfit = ""
    for name, agent in new.agents.items() if isinstance(new, Crew) else [("", new)]:
        known = _who_knows(agent, theirs)
        for key, tensor in agent.state_dict().items():
            if tensor.data_ptr() in seen or not tensor.numel():
                continue
            seen.add(tensor.data_ptr())
            bodys = any(pattern.match(key) for pattern in patterns)
            asked = [known] if known is not None else [] if bodys else list(views)
            offers = [views[other][key] for other in asked if key in views[other]]
            fitting = next((offer for offer in offers if offer.shape == tensor.shape), None)
            found = fresh if fitting is None else taken
            part = _part(key, name if bodys else "")
            found[part] = found.get(part, 0) + tensor.numel()
            if fitting is not None:
                tensor.copy_(fitting)
                used.add(fitting.data_ptr())
            elif offers and not misfit:
                misfit = f"{key} is {tuple(offers[0].shape)} there and {tuple(tensor.shape)} here"
    if not any(part.startswith("model.") for part in taken):
        raise ValueError(f"nothing of {folder} fits this model: {misfit or 'they have no part in common'}")
    left: dict[str, int] = {}
    for name, view in views.items():
        for key, tensor in view.items():
            if tensor.data_ptr() not in used and tensor.numel():
                used.add(tensor.data_ptr())
                part = _part(key, name)
                left[part] = left.get(part, 0) + tensor.numel()
    return [f"  {what:<6} {_listed(parts)}" for what, parts in (("taken", taken), ("new", fresh), ("left", left))]


def _load(folder: Path) -> Agent | Crew | Assistant:
    if is_assistant(folder):
        return Assistant.from_pretrained(folder)
    return Crew.from_pretrained(folder) if is_crew(folder) else Agent.from_pretrained(folder)


def _as_agents(assistant: Assistant, new: Agent | Crew) -> dict[str, Tensor]:
    """An assistant's weights by their names in an agent, each of whose cameras may see with its encoder."""
    there, view = assistant.model.state_dict(), {}
    for agent in new.agents.values() if isinstance(new, Crew) else [new]:
        for key in agent.state_dict():
            name = re.sub(r"^model\.(encoder|connector)s\.\d+\.", r"vision.\1.", key)
            name = re.sub(r"^model\.backbone\.", "backbone.", name)
            if name in there:
                view[key] = there[name]
    return view


def _who_knows(agent: Agent, others: Mapping[str, Agent]) -> str | None:
    """The first of these agents with the same body."""
    for name, other in others.items():
        if len(by_body({"a": agent.embodiment, "b": other.embodiment})) == 1:
            return name
    return None


def _part(key: str, owner: str) -> str:
    """`model.backbone`, `panda.head`: what a tensor is counted under."""
    words = key.split(".")
    part = ".".join(words[:2]) if words[0] == "model" else words[0]
    return f"{owner}.{part}" if owner else part


def _listed(parts: Mapping[str, int]) -> str:
    def short(n: int) -> str:
        return f"{n / 1e6:.2f}M" if n >= 1e6 else f"{n / 1e3:.1f}k" if n >= 1e3 else str(n)

    return ", ".join(f"{part} {short(n)}" for part, n in parts.items()) or "nothing"
