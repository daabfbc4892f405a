"""Agent = LVLM + action head + processing + execution: loaded, saved and rolled out whole.

A folder of an agent holds everything needed to run it, and nothing that runs by being loaded:

    config.json         embodiment, the nodes of every part, chunk sizes, versions
    model.safetensors   weights and normalisation statistics
    tokenizer/          Hugging Face's files
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import embodied
from embodied.assistant import Assistant
from embodied.building import build, find_class
from embodied.contracts import ActionHead, Execution, Generators, Memory, Observation, Policy, SequentialHead
from embodied.data.mixture import ROW, SOURCES
from embodied.files import read_json, write_json
from embodied.interaction import Cloud, Drawings
from embodied.lvlm.chat.pieces import IGNORED
from embodied.lvlm.model import LVLM
from embodied.lvlm.observer import Observer
from embodied.lvlm.resolution.single import SingleView
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.lvlm.vision import VisionPath
from embodied.processing.pipeline import Pipeline
from embodied.spec import ACTION, IMAGES, STATE, TASK, Embodiment
from embodied.weights import load_weights, refuse_pickles, save_weights

FORMAT = "embodied-agent/1"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer"
BUILT = (nn.Module, Execution)
"""What an agent's config may build, besides being on the allow-list."""


@dataclass
class _Slot:
    """One episode as the agent remembers it."""

    execution: Execution
    generator: torch.Generator
    history: deque[Observation] = field(default_factory=deque)
    memory: Memory | None = None  # a sequential head's, one row


class Agent(nn.Module, Policy):
    """A policy that can be trained, saved and rolled out.

    Args:
        config: `model`, `head`, `processing`, `execution` nodes and `chunk: {history, horizon, every_step,
            whole_episodes}`; with `every_step`, each history step's readout learns its own chunk, not the latest alone
            (Octo); with `whole_episodes`, a sample is an episode. One that is also talked to has the node of a chat
            template under `chat`.
        embodiment: the body, with exactly the cameras the agent looks through.
        tokenizer: for the instruction.

    Raises:
        ValueError: a part objects to its config.
    """

    embodiment: Embodiment

    def __init__(self, config: Mapping[str, Any], embodiment: Embodiment, tokenizer: TextTokenizer) -> None:
        super().__init__()
        for key in ("model", "head", "processing", "execution", "chunk"):
            if key not in config:
                raise ValueError(f"an agent's config needs '{key}'; it has {', '.join(config)}")
        self.config, self.embodiment = dict(config), embodiment
        self.history, self.horizon = int(config["chunk"]["history"]), int(config["chunk"]["horizon"])
        self.whole_episodes = bool(config["chunk"].get("whole_episodes", False))
        self.every_step = bool(config["chunk"].get("every_step", False)) or self.whole_episodes
        state_dim = embodiment.state.dim if embodiment.state else 0
        deep = [camera.name for camera in embodiment.cameras if camera.depth]
        self.model = Observer.from_config(
            config["model"], tokenizer, embodiment.camera_names, state_dim, self.history, deep
        )
        self.head = self._build_head(config["head"], tokenizer)
        quantities = 0 if embodiment.action.kind == "categorical" else embodiment.action.dim  # an index has no scale
        self.processing = Pipeline.from_config(config["processing"], state_dim, quantities)
        self.execution: Execution = build(config["execution"], BUILT)
        self._check_steps()
        self._check_execution()
        self._assistant: Assistant | None = None
        self.rows_per_pass: int | None = 1
        self._slots: list[_Slot] = []
        self._map: Any = None  # the memory of the model's map, a slot per episode

    def _build_head(self, node: Mapping[str, Any], tokenizer: TextTokenizer) -> ActionHead:
        """The head, given what it asks for; one that cannot make this body's kind of action is refused."""
        action = self.embodiment.action
        cls: Any = find_class(str(node.get("_target_", "")))
        if issubclass(cls, ActionHead) and action.kind not in cls.kinds:
            makes = " or ".join(cls.kinds)
            raise ValueError(
                f"{cls.__name__} makes {makes} actions, but those of {self.embodiment.name} are {action.kind}: "
                f"choose a head for {action.kind} actions"
            )
        asked = inspect.signature(cls).parameters
        state = self.embodiment.state
        offered = {
            "action": action,
            "tokenizer": tokenizer,
            "layers": self.model.backbone.layers,
            "state_dim": state.dim if state else 0,
        }
        return build(
            node,
            BUILT,
            width=self.model.width,
            horizon=self.horizon,
            action_dim=action.width,
            readout_tokens=self.model.readout_tokens,
            **{name: value for name, value in offered.items() if name in asked and name not in node},
        )

    def _check_steps(self) -> None:
        """The model has the readouts that learning from every step, and the head, ask for."""
        attention, head = self.model.attention, type(self.head).__name__
        if self.whole_episodes and (attention != "framewise" or self.history > 1):
            asked = f"model.attention={attention} chunk.history={self.history}"
            raise ValueError(f"chunk.whole_episodes needs model.attention=framewise and chunk.history=1, not {asked}")
        if self.model.map is not None and not self.whole_episodes:
            raise ValueError(
                "a map remembers an episode from its beginning on: model.map needs chunk.whole_episodes=true"
            )
        if self.every_step and attention not in ("stepwise", "framewise"):
            raise ValueError(
                f"chunk.every_step needs a readout of every step, which model.attention={attention} has not: "
                "choose stepwise or framewise"
            )
        if self.head.reads_prefix and (self.every_step or attention == "framewise"):
            asked = "chunk.every_step" if self.every_step else "model.attention=framewise"
            raise ValueError(
                f"{head} reads the observation's prefix, and with {asked} a step has none of its own: "
                "choose a head that reads readout tokens alone, or leave that out"
            )

    def _check_execution(self) -> None:
        """Chunks fit their execution, and indices of actions come out of it as indices."""
        execution, action = copy.deepcopy(self.execution), self.embodiment.action
        for index in range(2 * self.horizon):  # so many, that chunks meet whatever the execution's latency
            if execution.wants_chunk():
                execution.push(np.full((self.horizon, action.width), index % 3, np.float32))
            if not float(execution.next()[0]).is_integer() and action.kind == "categorical":
                name = type(execution).__name__
                raise ValueError(f"{name} averages chunks, but the actions of {self.embodiment.name} are categorical")

    def execute_by(self, node: Mapping[str, Any]) -> None:
        """Execute chunks in another way than the agent was made for.

        Raises:
            ValueError: it is no execution, or chunks do not fit it.
        """
        self.config["execution"], self.execution = dict(node), build(node, (Execution,))
        self._check_execution()

    def choose_by(self, settings: Mapping[str, Any]) -> None:
        """Choose actions otherwise than the agent was made to: options of its head, such as `temperature: 0.5` or
        `sample_steps: 4`. What it learned stays as it is.

        Raises:
            ValueError: the head has no such option, or has other weights with it.
        """
        if "_target_" in settings:
            raise ValueError(
                f"settings are options of the agent's {type(self.head).__name__}: they choose no other head"
            )
        node = {**self.config["head"], **settings}
        head = self._build_head(node, self.model.tokenizer)
        try:
            head.load_state_dict(self.head.state_dict())
        except RuntimeError:
            said = ", ".join(f"{key}={value}" for key, value in settings.items())
            raise ValueError(f"settings: with {said} the head would have other weights than those it learned") from None
        self.config["head"], self.head = node, head.to(next(self.head.parameters()).device).train(self.training)

    # training

    def loss(self, batch: Mapping[str, Any], generators: Generators | None = None) -> dict[str, Tensor]:
        """Loss of a raw batch (`embodied.processing.base`), a mean over the action entries that are no padding.

        A mixed batch (`embodied.data.mixture`) holds demonstrations and conversations; its loss is the mean over all
        action steps and tokens that are learned, each weighing the same, with `loss/<source>` beside it.
        """
        if SOURCES in batch:
            return self._mixed_loss(batch, generators)
        batch = self.processing(self._to_device(batch), generators)
        readout, actions, mask = self.model(batch), batch[ACTION], ~batch["action_is_pad"]
        if self.every_step and not isinstance(self.head, SequentialHead):  # steps become rows, each with its chunk
            frames = actions.shape[1]
            readout, actions, mask = readout.each_step(), actions.flatten(0, 1), mask.flatten(0, 1)
            generators = None if generators is None else [g for g in generators for _ in range(frames)]
        return self.head.loss(readout, actions, mask, generators)

    def _mixed_loss(self, batch: Mapping[str, Any], generators: Generators | None) -> dict[str, Tensor]:
        losses, kept = {}, {}
        for name, part in batch[SOURCES].items():
            rows = {key: value for key, value in part.items() if key != ROW}
            if "labels" in rows:
                losses[name], kept[name] = self.assistant.loss(rows)["loss"], (rows["labels"] != IGNORED).sum()
            else:
                some = None if generators is None else [generators[row] for row in part[ROW]]
                losses[name], kept[name] = self.loss(rows, some)["loss"], (~rows["action_is_pad"]).sum()
        whole = torch.stack([count.to(self.model.readouts.device) for count in kept.values()]).sum().clamp(min=1)
        shares = {f"loss/{name}": losses[name] * kept[name].to(whole.device) / whole for name in losses}
        shown = {f"share/{name}": kept[name].to(whole.device) / whole for name in losses}
        shown |= {name: value.detach() for name, value in shares.items()}
        return shown | {"loss": torch.stack(list(shares.values())).sum()}

    @property
    def assistant(self) -> Assistant:
        """The same model as what is talked to: its parameters are this agent's, seen through the first encoder.

        Raises:
            ValueError: the agent's config has no chat template.
        """
        if self._assistant is None:
            if not self.config.get("chat"):
                raise ValueError("this agent acts and does not talk: its config names no chat template")
            encoder, connector = self.model.encoders[0], self.model.connectors[0]
            vision = VisionPath(encoder, connector, SingleView(self.model.width))  # type: ignore[arg-type]
            made = Assistant(LVLM(self.model.backbone, vision), self.model.tokenizer.tokenizer, self.config["chat"])
            object.__setattr__(self, "_assistant", made)  # a view, no part: its parameters are counted once
        assert self._assistant is not None
        return self._assistant.train(self.training)

    @torch.no_grad()
    def predict(self, batch: Mapping[str, Any], generators: Generators | None = None) -> Tensor:
        """Chunks (B, H, A) in the embodiment's units for a raw batch without actions."""
        batch = self._to_device(batch)
        chunk = self.head.sample(self.model(self.processing(batch)), generators)
        return self.processing.inverse(chunk.float(), batch)

    @torch.no_grad()
    def predict_next(
        self,
        batch: Mapping[str, Any],
        memory: Memory | None,
        generators: Generators | None = None,
        map_memory: Any = None,
        slots: Sequence[int] | None = None,
    ) -> tuple[Tensor, Memory | None]:
        """As `predict` for one more frame (T = 1) of episodes that are remembered; for an agent that `carries`.

        Args:
            batch: the frame.
            memory: the head's of the episodes before it; None where the head has none.
            generators: one per row.
            map_memory, slots: the map's, and which of its slots the rows belong to; see `Observer.forward`.
        """
        batch = self._to_device(batch)
        readout = self.model(self.processing(batch), map_memory, slots)
        if isinstance(self.head, SequentialHead):
            assert memory is not None
            chunk, memory = self.head.sample_next(readout, memory, generators)
        else:
            chunk = self.head.sample(readout, generators)
        return self.processing.inverse(chunk.float(), batch), memory

    @property
    def carries(self) -> bool:
        """Whether a rollout reads each frame once and carries memories, the head's or a map's, instead of frames."""
        remembers = isinstance(self.head, SequentialHead) or self.model.map is not None
        return remembers and self.model.attention == "framewise"

    # rollouts

    def reset(self, slots: int) -> None:
        self.eval()
        self._slots = [_Slot(copy.deepcopy(self.execution), torch.Generator()) for _ in range(slots)]
        self._map = None if self.model.map is None else self.model.map.begin(slots)

    def start(self, slot: int, seed: int, task: str) -> None:
        mine = self._slots[slot]
        mine.execution.reset()
        mine.history.clear()
        mine.memory = self.head.begin(1) if isinstance(self.head, SequentialHead) and self.carries else None
        if self._map is not None:
            self._map.reset([slot])
        mine.generator.manual_seed(_hash(seed, task))

    def act(self, observations: Observation, slots: Sequence[int]) -> np.ndarray:
        """One action (len(slots), A) per slot; see `Policy.act`.

        Chunks are predicted `rows_per_pass` rows at a time, the last pass filled up with copies. Matrix products of
        different sizes round differently, so a fixed size makes a row's result independent of who shares its batch;
        1 (the default) holds on every device, None takes all rows in one pass and gives that up for speed.
        Memories take in every frame, also those whose chunk the execution has no use for.
        """
        asking: list[tuple[int, _Slot]] = []
        frames = 1 if self.carries else self.history
        for row, slot in enumerate(slots):
            mine = self._slots[slot]
            single = {key: value[row] for key, value in observations.items()}
            mine.history.append(single)
            while len(mine.history) > frames:
                mine.history.popleft()
            if self.carries or mine.execution.wants_chunk():
                asking.append((slot, mine))
        size = self.rows_per_pass or max(len(asking), 1)
        for start in range(0, len(asking), size):
            some = asking[start : start + size]
            filled = some + [some[-1]] * (size - len(some))
            generators = [m.generator for _, m in some] + [torch.Generator() for _ in filled[len(some) :]]
            batch = self._batch([m.history for _, m in filled], frames)
            if self.carries:
                memories = tuple(torch.cat(parts) for parts in zip(*(m.memory or () for _, m in filled), strict=True))
                numbers = [slot for slot, _ in filled]
                predicted, after = self.predict_next(batch, memories or None, generators, self._map, numbers)
                for row, (_, mine) in enumerate(some):
                    mine.memory = tuple(part[row : row + 1] for part in after or ())
            else:
                predicted = self.predict(batch, generators)
            for (_, mine), chunk in zip(some, predicted.cpu().numpy(), strict=False):
                if mine.execution.wants_chunk():
                    mine.execution.push(chunk)
        return np.stack([self._slots[slot].execution.next() for slot in slots]).astype(np.float32)

    def drawings(self, slot: int) -> Drawings:
        return {} if self._map is None else self.model.map.drawings(self._map, slot)

    def cloud(self, slot: int) -> Cloud | None:
        return None if self._map is None else self.model.map.in_space(self._map, slot)

    def _batch(self, histories: Sequence[Sequence[Observation]], frames: int) -> dict[str, Any]:
        """Histories, each shorter than `frames` at an episode's start, as one raw batch."""
        padded = [[h[0]] * (frames - len(h)) + list(h) for h in histories]
        keys = [IMAGES + name for name in self.embodiment.camera_names] + ([STATE] if self.embodiment.state else [])
        keys += self.model.reads
        for key in keys:
            if key not in histories[0][0]:
                have = ", ".join(sorted(histories[0][0]))
                raise ValueError(f"the agent reads {key}, but what it is given has only {have}")
        batch: dict[str, Any] = {
            key: torch.from_numpy(np.stack([np.stack([o[key] for o in history]) for history in padded])) for key in keys
        }
        batch[TASK] = [history[-1][TASK] for history in padded]
        missing = [[i < frames - len(h) for i in range(frames)] for h in histories]
        batch["observation_is_pad"] = torch.tensor(missing)
        return batch

    def _to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        device = self.model.readouts.device
        return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}

    # folders

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the agent's files into `folder`, which is made; a checkpoint makes that atomic as a whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config | {"model": self.model.resolved(self.config["model"])}
        text = {"template": self.model.tokenizer.template, "max_tokens": self.model.tokenizer.max_tokens}
        versions = {"embodied": embodied.__version__, "torch": torch.__version__}
        body = self.embodiment.to_dict()
        write_json(
            folder / CONFIG, {"format": FORMAT, "embodiment": body, "text": text, **config, "versions": versions}
        )
        self.model.tokenizer.save_pretrained(folder / TOKENIZER)
        save_weights(self, folder / WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Agent:
        """Load an agent; nothing in the folder is executed.

        Raises:
            ValueError: the folder is no agent's, or a file is damaged, of another kind, or does not fit the config;
                `embodied.building.ForbiddenTarget` where its config names a class that is not allowed.
        """
        folder = Path(folder)
        refuse_pickles(folder)
        if not (folder / CONFIG).is_file():
            raise ValueError(f"{folder} holds no agent: there is no {CONFIG} in it")
        config = read_json(folder / CONFIG)
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            found = config.get("format") if isinstance(config, dict) else None
            raise ValueError(f"{folder / CONFIG} is not an agent's config: format is {found!r}, expected {FORMAT!r}")
        try:
            embodiment = Embodiment.from_dict(config["embodiment"])
            tokenizer = TextTokenizer.from_pretrained(folder / TOKENIZER, **config["text"])
            parts = {key: config[key] for key in ("model", "head", "processing", "execution", "chunk")}
            parts["chat"] = config.get("chat")
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / CONFIG} is incomplete: {error}") from None
        agent = cls(parts, embodiment, tokenizer)
        load_weights(agent, folder / WEIGHTS)
        return agent.eval()


def create_agent(
    config: Mapping[str, Any],
    embodiment: Embodiment,
    instructions: Iterable[str],
    columns: Mapping[str, np.ndarray],
    episode_ends: np.ndarray,
) -> Agent:
    """A new agent for a dataset.

    Args:
        config: see `Agent`; besides, `text: {checkpoint, template, max_tokens, vocabulary}`: a checkpoint folder's
            tokenizer, or (null) one trained on the instructions.
        embodiment: the dataset's, with the cameras to look through.
        instructions: every instruction of the dataset.
        columns, episode_ends: its numbers, to compute normalisation statistics from.
    """
    text = dict(config.get("text") or {})
    checkpoint, vocabulary = text.pop("checkpoint", None), text.pop("vocabulary", 1024)
    if checkpoint:
        tokenizer = TextTokenizer.from_pretrained(checkpoint, **text)
    else:
        node = config.get("head") or {}
        head: Any = find_class(str(node["_target_"])) if "_target_" in node else None
        phrases = head.phrases(embodiment.action, node) if head and issubclass(head, ActionHead) else ()
        tokenizer = TextTokenizer.train([*instructions, *phrases], vocabulary, **text)
    parts = {key: config[key] for key in ("model", "head", "processing", "execution", "chunk", "chat") if key in config}
    agent = Agent(parts, embodiment, tokenizer)
    agent.processing.fit(columns, episode_ends, agent.horizon)
    if type(agent.head).fit is not ActionHead.fit:
        agent.head.fit(*agent.processing.chunks(columns, episode_ends, agent.horizon))
    return agent


def _hash(seed: int, task: str) -> int:
    """A generator seed from an episode's seed and task, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{task}".encode(), digest_size=7).digest(), "big")
