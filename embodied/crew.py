"""A crew: one agent per dataset, and all that can be one is one. A checkpoint for several bodies.

Robots differ in what they feel and how they move, and hardly in what there is to see and to understand. So a crew has
one whole `Agent` per source of its training data, whose parts are the same objects - language model, image encoders,
connectors, readouts, tokenizer - except those that belong to a body: its state encoder, its head and its normalisation
(the `own` patterns; Octo and CrossFormer, Doshi et al. 2024, arXiv 2408.11812, divide it likewise). Sources of one body
also share its state encoder and head, and keep normalisation of their own unless told otherwise.

    config.json         per agent: embodiment and the nodes of its parts
    model.safetensors   `model.backbone...`: shared by all; `agents.<source>.head...`: of one, or of its body
    tokenizer/          Hugging Face's files
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

import embodied
from embodied.agent import CONFIG, TOKENIZER, WEIGHTS, Agent, create_agent
from embodied.building import find_class, nearest
from embodied.contracts import ActionHead, Generators
from embodied.data.mixture import ROW, SOURCES
from embodied.files import read_json, write_json
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.spec import ConventionMismatch, Embodiment, pair
from embodied.weights import load_weights, refuse_pickles, save_weights

FORMAT = "embodied-crew/1"
PARTS = ("model", "head", "processing", "execution", "chunk")
OWN = ("model.state", "head", "processing")
"""What belongs to a body, unless told otherwise."""

SHARE = "share/"
"""Of the scalars a crew reports, `share/<source>` is the part of a batch's action steps that came from a source, and
`loss/<source>` what that source adds to the loss: the one divided by the other is the source's own loss."""

Normalisation = Literal["source", "shared"]
Part = nn.Module | nn.Parameter


class Demonstrations(Protocol):
    """What a crew needs to know of a source of training data, such as `embodied.data.Windows`."""

    @property
    def columns(self) -> Mapping[str, np.ndarray]: ...

    @property
    def episode_ends(self) -> np.ndarray: ...

    @property
    def embodiment(self) -> Embodiment: ...

    @property
    def tasks(self) -> Sequence[str]: ...


class Crew(nn.Module):
    """Agents by source, sharing what is not their own. Their modules are replaced by the shared ones.

    Args:
        agents: by the name of their source.
        own: regular expressions, matched from the start of a part's name (`model.state`, `head.denoiser.enter`): what
            each body has for itself. So has it whatever differs in shape, such as embeddings of a number of cameras.
        normalisation: `source`: each source is normalised by its own statistics; `shared`: those of one body together.

    Attributes:
        agents: whole agents: `agents["panda"]` is a policy like any other.

    Raises:
        ValueError: there are no agents; a name with other characters than letters, digits, - and _; an unknown
            normalisation; a pattern that is no regular expression or matches nothing.
    """

    def __init__(
        self, agents: Mapping[str, Agent], own: Sequence[str] = OWN, normalisation: Normalisation = "source"
    ) -> None:
        super().__init__()
        if not agents:
            raise ValueError("a crew needs at least one agent")
        for name in agents:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict, name):
                raise ValueError(f"a source's name is made of letters, digits, - and _, and no word of torch: '{name}'")
        if normalisation not in get_args(Normalisation):
            raise ValueError(f"normalisation is one of {', '.join(get_args(Normalisation))}, got '{normalisation}'")
        self.own, self.normalisation = tuple(own), normalisation
        _tie(list(agents.values()), _Patterns(own, agents.values()))
        apart = _Patterns(["processing"] if normalisation == "source" else [], ())
        for group in by_body({name: agent.embodiment for name, agent in agents.items()}):
            _tie([agents[name] for name in group], apart)
        # Registered before the agents, so that this is what shared parts are called.
        for path, part in _common(list(agents.values()), len(agents) == 1):
            _plant(self, path, part)
        self.agents: Any = nn.ModuleDict(dict(agents))

    def loss(self, batch: Mapping[str, Any], generators: Generators | None = None) -> dict[str, Tensor]:
        """Loss of a mixed batch (`embodied.data.mixture`): the mean over all action steps that are no padding.

        Each step weighs the same, whatever its body's number of action dimensions, so that a source's influence is its
        share of the batch, and parts of a batch combine as `ActionHead.loss` says.

        Returns:
            `loss`, and for each source of the crew `loss/<source>` and `share/<source>` (see `SHARE`).
        """
        device = next(self.parameters()).device
        losses, kept = {}, {}
        for name, part in batch[SOURCES].items():
            some = None if generators is None else [generators[row] for row in part[ROW]]
            losses[name] = self.agents[name].loss({k: v for k, v in part.items() if k != ROW}, some)["loss"]
            kept[name] = (~part["action_is_pad"]).sum().to(device)
        whole = torch.stack(list(kept.values())).sum().clamp(min=1)
        result = {f"{kind}{name}": torch.zeros((), device=device) for name in self.agents for kind in ("loss/", SHARE)}
        for name, loss in losses.items():
            result[SHARE + name] = kept[name] / whole
            result[f"loss/{name}"] = loss * result[SHARE + name]
        total = torch.stack([result[f"loss/{name}"] for name in losses]).sum()
        return {name: value.detach() for name, value in result.items()} | {"loss": total}

    def choose(self, embodiment: Embodiment, source: str | None = None) -> str:
        """The name of the agent that drives a body: the one asked for, or the first whose conventions agree.

        Raises:
            ValueError: no such agent, or none for this body, with what each disagrees on.
        """
        if source is not None:
            if source not in self.agents:
                raise ValueError(f"there is no agent '{source}' in this crew{nearest(source, self.agents)}")
            return source
        reasons = []
        for name, agent in self.agents.items():
            try:
                pair(agent=agent.embodiment, body=embodiment)
                return name
            except ConventionMismatch as reason:
                reasons.append(f"{name} ({agent.embodiment.name}): {str(reason).partition(' disagree on ')[2]}")
        raise ValueError(f"no agent of this crew drives {embodiment.name}; {'; '.join(reasons)}")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the crew's files into `folder`, which is made; a checkpoint makes that atomic as a whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        first = next(iter(self.agents.values()))
        text = {"template": first.model.tokenizer.template, "max_tokens": first.model.tokenizer.max_tokens}
        agents = {
            name: {"embodiment": agent.embodiment.to_dict()}
            | {key: agent.config[key] for key in PARTS}
            | {"model": agent.model.resolved(agent.config["model"])}
            for name, agent in self.agents.items()
        }
        config = {"format": FORMAT, "own": self.own, "normalisation": self.normalisation, "text": text}
        versions = {"embodied": embodied.__version__, "torch": torch.__version__}
        write_json(folder / CONFIG, config | {"agents": agents, "versions": versions})
        first.model.tokenizer.save_pretrained(folder / TOKENIZER)
        save_weights(self, folder / WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Crew:
        """Load a crew; nothing in the folder is executed.

        Raises:
            ValueError: as `Agent.from_pretrained`.
        """
        folder = Path(folder)
        refuse_pickles(folder)
        if not is_crew(folder):
            raise ValueError(f"{folder} holds no crew: there is no {CONFIG} of format {FORMAT!r} in it")
        config = read_json(folder / CONFIG)
        try:
            tokenizer = TextTokenizer.from_pretrained(folder / TOKENIZER, **config["text"])
            bodies = {name: Embodiment.from_dict(entry["embodiment"]) for name, entry in config["agents"].items()}
            parts = {name: {key: entry[key] for key in PARTS} for name, entry in config["agents"].items()}
            own, normalisation = config["own"], config["normalisation"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / CONFIG} is incomplete: {error}") from None
        crew = cls({name: Agent(parts[name], bodies[name], tokenizer) for name in parts}, own, normalisation)
        load_weights(crew, folder / WEIGHTS)
        return crew.eval()


def create_crew(
    configs: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, Demonstrations],
    own: Sequence[str] = OWN,
    normalisation: Normalisation = "source",
) -> Crew:
    """A new crew for several datasets.

    Args:
        configs: by source, see `create_agent`; they differ where a body wants its parts otherwise. The tokenizer is
            made as the first one says, from the instructions of all.
        data: by source.
        own, normalisation: see `Crew`.
    """
    names = list(data)
    instructions = [task for part in data.values() for task in part.tasks]
    for name in names[1:]:  # heads that write actions as text have words of their own
        head: Any = find_class(str(configs[name]["head"]["_target_"]))
        phrases = getattr(head, "phrases", None)
        instructions += phrases(data[name].embodiment.action, configs[name]["head"]) if phrases else []
    groups = {name: group for group in by_body({n: d.embodiment for n, d in data.items()}) for name in group}
    agents: dict[str, Agent] = {}
    for name, part in data.items():
        some = [data[other] for other in groups[name]] if normalisation == "shared" else [part]
        columns, ends = _together(some)
        if not agents:
            agents[name] = create_agent(configs[name], part.embodiment, instructions, columns, ends)
            continue
        agent = Agent({key: configs[name][key] for key in PARTS}, part.embodiment, agents[names[0]].model.tokenizer)
        agent.processing.fit(columns, ends, agent.horizon)
        agents[name] = agent
    crew = Crew(agents, own, normalisation)
    for head in {id(agent.head): agent.head for agent in agents.values()}.values():
        users = [name for name, agent in agents.items() if agent.head is head]
        if getattr(type(head), "fit", None) is not getattr(ActionHead, "fit", None):
            chunks = [
                agents[n].processing.chunks(data[n].columns, data[n].episode_ends, agents[n].horizon) for n in users
            ]
            head.fit(*(torch.cat(column) for column in zip(*chunks, strict=True)))
    return crew


def is_crew(folder: str | Path) -> bool:
    """Whether the folder's config is a crew's."""
    file = Path(folder) / CONFIG
    config = read_json(file) if file.is_file() else None
    return isinstance(config, dict) and config.get("format") == FORMAT


def by_body(embodiments: Mapping[str, Embodiment]) -> list[list[str]]:
    """Names grouped by body: the same action, state and rate. Cameras may differ: they are what surrounds a body."""
    groups: list[list[str]] = []
    for name, one in embodiments.items():
        for group in groups:
            other = embodiments[group[0]]
            if (one.action, one.state, one.rate) == (other.action, other.state, other.rate):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


class _Patterns:
    """Which names are somebody's own."""

    def __init__(self, patterns: Sequence[str], modules: Any) -> None:
        names = [name for module in modules for name in _names(module)]
        self._expressions = []
        for pattern in patterns:
            try:
                expression = re.compile(rf"(?:{pattern})(?:\.|$)")
            except re.error as error:
                raise ValueError(f"own: '{pattern}' is not a regular expression: {error}") from None
            if modules and pattern not in OWN and not any(expression.match(name) for name in names):
                raise ValueError(f"own: '{pattern}' matches no part's name{nearest(pattern, set(names))[:200]}")
            self._expressions.append(expression)

    def __contains__(self, name: object) -> bool:
        return any(expression.match(str(name)) for expression in self._expressions)


def _names(module: nn.Module) -> list[str]:
    """Of all modules and parameters inside."""
    inside = [name for name, _ in module.named_modules() if name]
    return inside + [name for name, _ in module.named_parameters(remove_duplicate=False)]


def _tie(modules: Sequence[nn.Module], own: _Patterns, path: str = "") -> None:
    """Give modules of one kind the same parts, where they have them in the same shape and they are nobody's own."""
    for name in dict.fromkeys(name for module in modules for name in module._modules):
        here = f"{path}.{name}" if path else name
        holders = [module for module in modules if module._modules.get(name) is not None]
        whole = here != "model"  # which knows the names of its cameras
        groups: dict[Any, list[nn.Module]] = {}
        for module in holders if here not in own else ():
            groups.setdefault(_signature(here, module), []).append(module)
        kinds: dict[type, list[nn.Module]] = {}
        for group in groups.values():
            first = group[0]._modules[name]
            assert first is not None
            if whole and not any(f"{here}.{inner}" in own for inner in _names(first)):
                for other in group[1:]:
                    setattr(other, name, first)
                group = group[:1]
            kinds.setdefault(type(first), []).extend(getattr(module, name) for module in group)
        for alike in kinds.values():
            _tie(alike, own, here)
    for name in dict.fromkeys(name for module in modules for name in module._parameters):
        first_of: dict[torch.Size, nn.Parameter] = {}
        for module in modules if (f"{path}.{name}" if path else name) not in own else ():
            parameter = module._parameters.get(name)
            if parameter is not None:
                setattr(module, name, first_of.setdefault(parameter.shape, parameter))


def _signature(here: str, holder: nn.Module) -> Any:
    """Equal for parts that can stand in for each other: the same classes and sizes and, where they have one, config."""
    part = holder._modules[here.rpartition(".")[2]]
    assert part is not None
    kinds = tuple((name, type(module), module.extra_repr()) for name, module in part.named_modules())
    sizes = tuple((name, tensor.shape) for name, tensor in part.state_dict().items())
    config = json.dumps(holder.config.get(here), sort_keys=True) if isinstance(holder, Agent) else ""
    return kinds, sizes, config


def _common(modules: Sequence[nn.Module], alone: bool, path: str = "") -> Iterator[tuple[str, Part]]:
    """Name and object of what all who have such a part hold together, whole parts; `alone`: there is one agent."""
    for name in dict.fromkeys(name for module in modules for name in module._modules):
        here = f"{path}.{name}" if path else name
        held = [part for module in modules if (part := module._modules.get(name)) is not None]
        if len({id(part) for part in held}) == 1 and (alone or len(held) > 1) and here != "model":
            yield here, held[0]
        else:
            yield from _common(held, alone, here)
    for name in dict.fromkeys(name for module in modules for name in module._parameters):
        kept = [parameter for module in modules if (parameter := module._parameters.get(name)) is not None]
        if len({id(parameter) for parameter in kept}) == 1 and (alone or len(kept) > 1):
            yield (f"{path}.{name}" if path else name), kept[0]


def _plant(root: nn.Module, path: str, part: Part) -> None:
    """Let `root.<path>` be this part, with empty modules on the way."""
    *parents, last = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    if isinstance(part, nn.Parameter):
        root.register_parameter(last, part)
    else:
        root.add_module(last, part)


def _together(parts: Sequence[Demonstrations]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns and episode ends of several datasets as of one."""
    columns = {key: np.concatenate([part.columns[key] for part in parts]) for key in parts[0].columns}
    lengths = np.concatenate([np.diff(part.episode_ends, prepend=0) for part in parts])
    return columns, np.cumsum(lengths)
