"""What every row of the zoo has to do at its tiny size: be built, learn by its recipe, be saved, be loaded and speak.

The tests and `embodied-zoo` call the same functions, so the page that the command writes says what the tests check.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from embodied.assistant import Assistant
from embodied.data.multimodal.sample import Sample
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.lvlm.zoo import Row
from embodied.training.optimizer import AdamW
from embodied.training.stages import part_of, train_parts

WORDS = ("what is it?", "a red cube", "USER: ASSISTANT: <s> </s> <|im_start|> user assistant [INST] [/INST]")
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0}
EVERYTHING = {
    "all": {"train": {"encoder": "full", "connector": "full", "backbone": "full", "adapters": "full"}, "lr": 1e-3}
}
"""The stage of a row whose recipe is not known."""


@dataclass(frozen=True)
class Exercised:
    """What a tiny row did.

    Attributes:
        trained: by stage, the parts whose parameters changed in two steps.
        said: what it answers, as it was and loaded again.
    """

    trained: dict[str, tuple[str, ...]]
    said: str


def exercise(row: Row, chat: Mapping[str, Any], stages: Mapping[str, Any] | None, folder: Path) -> Exercised:
    """Build a row, train a step of each stage, save it, load it and have it speak, tiny.

    Args:
        row: of the zoo.
        chat: the node of its template.
        stages: of its recipe; None: everything trains, once.
        folder: an empty one, to save into.

    Raises:
        ValueError: it did not do what it should, in one line; whatever a part raises.
    """
    picture = folder / "picture.png"
    Image.effect_noise((90, 70), 60).convert("RGB").save(picture)
    assistant = tiny(row, chat)
    batch = assistant.batch([lesson(picture)])
    trained = {name: train_a_step(assistant, stage, batch) for name, stage in (stages or EVERYTHING).items()}
    return Exercised(trained, speak(assistant, batch, picture, folder / "assistant"))


def tiny(row: Row, chat: Mapping[str, Any]) -> Assistant:
    """The row at its tiny size, with a tokenizer of a few words."""
    torch.manual_seed(0)
    return Assistant(row.build(tiny=True), TextTokenizer.train(WORDS, 400).tokenizer, chat)


def lesson(picture: Path) -> Sample:
    """A question about a picture, and its answer."""
    asked = [{"type": "image", "image": str(picture)}, {"type": "text", "text": "what is it?"}]
    return Sample("zoo/0", [{"role": "user", "content": asked}, {"role": "assistant", "content": "a red cube"}])


def train_a_step(assistant: Assistant, stage: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that two optimizer steps of a stage changed, in a copy of the assistant.

    Raises:
        ValueError: the loss is not finite; a part that the stage trains stayed, or one changed that is frozen.
    """
    learner = copy.deepcopy(assistant).train()
    torch.manual_seed(0)
    rates = train_parts(learner, stage["train"], stage["lr"], LORA)
    before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
    trains = {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}
    recipe = AdamW(stage["lr"], rates=rates)
    optimizer = recipe.make(recipe.groups(trains))
    for _ in range(2):  # what lies behind a gate that begins closed has a gradient only when the first has opened it
        optimizer.zero_grad()
        loss = learner.loss(batch)["loss"]
        if not torch.isfinite(loss):
            raise ValueError(f"the loss of the tiny model is {loss.item()}")
        loss.backward()
        optimizer.step()
    changed = {name for name, parameter in learner.named_parameters() if not torch.equal(parameter, before[name])}
    if changed - set(trains):
        raise ValueError(f"training changed {min(changed - set(trains))}, which is frozen")
    moved, meant = ({part_of(name) for name in names} for names in (changed, trains))
    if moved != meant:
        raise ValueError(f"the stage was to train {', '.join(sorted(meant))} and changed {', '.join(sorted(moved))}")
    return tuple(part for part in ("encoder", "connector", "adapters", "backbone") if part in moved)


def speak(assistant: Assistant, batch: Mapping[str, Any], picture: Path, folder: Path) -> str:
    """What the assistant answers, being the same after it was saved and loaded.

    Raises:
        ValueError: the loaded one has another loss or another answer.
    """
    assistant.eval()
    assistant.save_pretrained(folder)
    again = Assistant.from_pretrained(folder)
    with torch.no_grad():
        losses = [each.loss(batch)["loss"] for each in (assistant, again)]
    if not torch.equal(*losses):
        raise ValueError(f"the loss is {losses[0].item()} before it is saved and {losses[1].item()} after")
    prompt = lesson(picture).messages[:1]
    said, repeated = (each.respond([prompt], max_new_tokens=4)[0] for each in (assistant, again))
    if said != repeated:
        raise ValueError(f"it answers {said!r} before it is saved and {repeated!r} after")
    return re.sub(r"\s+", " ", said)
