"""A stage of a recipe: which parts of a language model that sees are trained, and how much of each.

Multi-stage training is the rule for such models: first what is between the encoder and the language model, then more
of both. What trains is data (`conf/recipe`), applied here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from embodied.building import nearest
from embodied.training.lora import add_lora

PARTS = {
    "encoder": r"model\.vision\.(encoder|video)\.(?!(encoder\.)?model\.merger\.)",
    # Qwen2-VL's is within its encoder
    "connector": r"model\.vision\.(connector|video_connector|resolution|(encoder|video\.encoder)\.model\.merger)\.",
    "backbone": r"model\.backbone\.",
    "adapters": r"model\.adapters\.",
}
"""The parts that a stage can name, and how their parameters' names begin."""

MODES = ("full", "frozen", "lora", "peft", "norms", "biases")
ALL_MODES = f"{', '.join(MODES)}, {{last: k}}, {{decay: d}}"
STAGE = ("train", "data", "lr", "steps", "batch_size", "schedule", "objective")
"""What a stage says."""

LESSONS = ("words", "regions")
"""What an encoder can be taught alone: the words that captions have, or things and their boxes."""
OBJECTIVES = ("answers", *LESSONS)
"""What a stage learns to do: say the answers, unless said otherwise."""

LAYER = re.compile(r"\.(?:layers|layer|blocks|block|h)\.(\d+)\.")


def part_of(name: str) -> str:
    """The part that a parameter of an `Assistant` belongs to.

    Raises:
        ValueError: none that a stage can name.
    """
    for part, pattern in PARTS.items():
        if re.match(pattern, name):
            return part
    raise ValueError(f"{name} is of no part that a stage can train ({', '.join(PARTS)})")


def check_stages(stages: Mapping[str, Any], where: str) -> None:
    """See that each stage says what it has to, and nothing else, before the first of them begins.

    Raises:
        ValueError: a stage says something unknown, or lacks what it needs; `where` is how messages begin.
    """
    for name, stage in stages.items():
        for key in stage:
            if key not in STAGE:
                raise ValueError(f"{where}.{name} has '{key}'{nearest(str(key), STAGE)}")
        for key in ("train", "data", "lr"):
            if stage.get(key) in (None, [], {}):
                raise ValueError(f"{where}.{name} says no {key}")
        if stage.get("objective", "answers") not in OBJECTIVES:
            raise ValueError(f"{where}.{name}.objective is {stage['objective']}, not one of {', '.join(OBJECTIVES)}")
        if stage.get("objective") in LESSONS and any(
            mode != "frozen" for part, mode in stage["train"].items() if part != "encoder"
        ):
            raise ValueError(
                f"{where}.{name} teaches {stage['objective']}, which the encoder alone learns: train: {{encoder: full}}"
            )
        for part, mode in stage["train"].items():
            if part not in PARTS:
                raise ValueError(f"{where}.{name}.train has '{part}'{nearest(str(part), PARTS)}")
            if mode not in MODES and not (isinstance(mode, Mapping) and set(mode) in ({"last"}, {"decay"})):
                raise ValueError(f"{where}.{name}.train.{part} is {mode}, not one of {ALL_MODES}")


def train_parts(model: nn.Module, train: Mapping[str, Any], lr: float, lora: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Set what trains; parts that are not named are frozen.

    Args:
        model: an `Assistant`.
        train: by part (encoders and adapters that a model has not are passed over): `full`, `frozen`, `lora`, `peft`
            (the model's own adapters where it has any, else LoRA), `norms` or `biases` alone, `{last: k}` for the last
            k layers (LLaVA's successors train the latter half of the encoder), `{decay: d}` for all, each layer at `d`
            times the rate of the one above it (InternLM-XComposer2: 0.9).
        lr: of what has no rate of its own.
        lora: `rank`, `alpha` and `dropout` of parts in that mode.

    Returns:
        Learning rates by pattern, as `OptimizerRecipe` takes them.

    Raises:
        ValueError: an unknown part or mode; a part that the model has not; nothing trains.
    """
    for part in train:
        if part not in PARTS:
            raise ValueError(f"recipe: train has '{part}'{nearest(str(part), PARTS)}")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    rates: list[dict[str, Any]] = []
    adapted = []
    for part, mode in train.items():
        names = [name for name, _ in model.named_parameters() if re.match(PARTS[part], name)]
        if not names and part in ("connector", "backbone") and mode != "frozen":
            raise ValueError(f"recipe: train.{part} is {mode}, but this model has no {part}")
        if mode == "peft" and (own := [n for n, _ in model.named_parameters() if re.match(PARTS["adapters"], n)]):
            rates += _train(model, "adapters", "full", own, lr)
        elif mode in ("lora", "peft"):
            adapted.append(part)
        else:
            rates += _train(model, part, mode, names, lr)
    for part in adapted:
        linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and re.match(PARTS[part], f"{n}.")]
        own = [name for name in linear if not name.endswith(("lm_head", "embed_out"))]
        add_lora(model, f"^({'|'.join(map(re.escape, own))})$", **lora)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"recipe: nothing trains with {dict(train)}")
    return rates


def _train(model: nn.Module, part: str, mode: Any, names: list[str], lr: float) -> list[dict[str, Any]]:
    if mode in ("full", "frozen"):
        chosen = names if mode == "full" else []
    elif mode == "norms":
        chosen = [name for name in names if re.search(r"norm|(?:^|\.)ln_?\w*\.", name)]
    elif mode == "biases":
        chosen = [name for name in names if name.endswith("bias")]
    elif isinstance(mode, Mapping) and set(mode) <= {"last", "decay"} and len(mode) == 1:
        layer = {name: int(found.group(1)) for name in names if (found := LAYER.search(name))}
        depth = 1 + max(layer.values(), default=-1)
        if not depth:
            raise ValueError(f"recipe: train.{part} asks for layers, and this {part} has none")
        if "decay" in mode:
            for name in names:
                model.get_parameter(name).requires_grad_(True)
            # Embeddings lie below the first layer; what else belongs to none (a final norm) goes with the last.
            below = {name: -1 if "embed" in name else depth - 1 for name in names} | layer
            factor = float(mode["decay"])
            return [{"match": f"^{re.escape(n)}$", "lr": lr * factor ** (depth - 1 - below[n])} for n in names]
        chosen = [name for name, index in layer.items() if index >= depth - int(mode["last"])]
    else:
        raise ValueError(f"recipe: train.{part} is {mode}, not one of {ALL_MODES}")
    for name in chosen:
        model.get_parameter(name).requires_grad_(True)
    return []
