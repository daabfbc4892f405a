"""Train an agent on demonstrations, or go on with a run that stopped.

embodied-train experiment=quickstart data.root=data/button out=runs/quickstart
embodied-train experiment=quickstart data.root=data/button out=runs/quickstart resume=true

A checkpoint to start from, and several datasets and bodies at once (docs/training.md):

embodied-train experiment=finetune init=runs/cross data.root=data/new_body out=runs/new
embodied-train 'data.sources={arm:{root:data/arm,weight:2},cart:{root:data/cart}}' out=runs/cross

Several processes learn what one does; `accelerate launch` also starts them on several machines:

torchrun --nproc_per_node 2 -m embodied.cli.train experiment=quickstart data.root=data/button out=runs/quickstart
accelerate launch --multi_gpu --num_processes 2 -m embodied.cli.train experiment=quickstart ...
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from embodied.cli.app import command
from embodied.cli.tune import open_reader, texts

if TYPE_CHECKING:
    from accelerate import Accelerator

    from embodied.agent import Agent
    from embodied.crew import Crew
    from embodied.data.sources import Demonstrations
    from embodied.training.run_folder import RunFolder

ACTIONS = "actions"
"""What demonstrations are called in a mixture with conversations."""

ASSISTANTS = ["assistant"]
"""What a run's config keeps of a checkpoint that was an assistant: the parts that it has."""

GROUPS = {"encoder": "model", "connector": "model", "backbone": "model", "denoiser": "head"}
"""Config groups that are parts of a larger one."""


def train(config: DictConfig) -> dict[str, Any]:
    """Train as configured; returns what `embodied.training.trainer.Trainer.train` does.

    Raises:
        ValueError: something in the config, the dataset or the run's folder is not as it has to be.
    """
    from embodied.data.sources import open_sources
    from embodied.training.processes import main_first, make_accelerator
    from embodied.training.run_folder import RunFolder
    from embodied.training.trainer import Settings

    if config.data.sources and OmegaConf.is_missing(config.data, "root"):
        config.data.root = None
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    start = _located(plain)
    if plain["init"]:
        plain = _brought(plain, start)
    settings = Settings(**plain["trainer"])
    accelerator = make_accelerator(settings.device)
    sources = main_first(
        accelerator,
        lambda main: open_sources(plain["data"], plain["chunk"], plain["seed"], sys.stderr if main else None),
    )

    def opened(main: bool) -> RunFolder:
        return RunFolder(plain["out"], plain, plain["resume"] or not main, write=main)

    run = main_first(accelerator, opened)
    try:
        return _trainer(plain, settings, accelerator, sources, run, start).train()
    finally:
        run.close()


def _located(plain: dict[str, Any]) -> Path | None:
    """The folder of the checkpoint to start from; None to start from nothing, or to go on."""
    from embodied.evaluation.policies import locate_policy, newest_stage
    from embodied.training.run_folder import newest

    if not plain["init"] or (plain["resume"] and newest(plain["out"])):
        return None
    folder = locate_policy(str(newest_stage(plain["init"]) or plain["init"]), "init").folder
    if folder is None:
        raise ValueError(f"init={plain['init']} is no checkpoint: name the folder of a run, a checkpoint or an agent")
    return folder


def _brought(plain: dict[str, Any], start: Path | None) -> dict[str, Any]:
    """The config with the checkpoint's own nodes for the parts in `keep`; a run that goes on has them in its config.

    Raises:
        ValueError: `keep` names no part; or the command line configures a part that is the checkpoint's.
    """
    from embodied.assistant import is_assistant
    from embodied.building import nearest
    from embodied.training.run_folder import read_config
    from embodied.training.warm_start import BROUGHT, SPOKEN, config_of

    for part in plain["keep"]:
        if part not in BROUGHT:
            raise ValueError(f"keep has '{part}'{nearest(str(part), BROUGHT)}")
    found = read_config(plain["out"]) if start is None else config_of(start)
    spoken = found.get("keep") == ASSISTANTS if start is None else is_assistant(start)
    given = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    for text in given:
        first, *rest = text.lstrip("+~").split("=")[0].split("@")[0].replace("/", ".").split(".")
        if spoken and (first in (*SPOKEN, "chat") or (first == "model" and rest and rest[0] in SPOKEN)):
            raise ValueError(f"{text} would do nothing: {plain['init']} brings its own")
        if not spoken and (part := GROUPS.get(first, first)) in plain["keep"]:
            others = ",".join(other for other in plain["keep"] if other != part)
            raise ValueError(f"{text} would do nothing: with init, {part} is the checkpoint's, unless keep=[{others}]")
    if not spoken:
        return plain | {part: found[part] for part in plain["keep"] if part in found}
    model = plain["model"] | {part: found["model"][part] for part in SPOKEN if part in found["model"]}
    text_node = plain["text"] | {"checkpoint": found["text"]["checkpoint"]}
    return plain | {"model": model, "text": text_node, "chat": found["chat"], "keep": ASSISTANTS}


def _trainer(
    plain: dict[str, Any],
    settings: Any,
    accelerator: Accelerator,
    sources: dict[str, Demonstrations],
    run: RunFolder,
    start: Path | None,
) -> Any:
    from embodied.agent import Agent
    from embodied.building import build
    from embodied.crew import Crew
    from embodied.training.conversations import ConversationSource
    from embodied.training.lora import add_lora
    from embodied.training.optimizer import OptimizerRecipe
    from embodied.training.schedule import make_schedule
    from embodied.training.trainable import freeze, table
    from embodied.training.trainer import Trainer

    say = print if accelerator.is_main_process else lambda line: None
    recipe = build(plain["optimizer"], (OptimizerRecipe,))
    schedule = plain["schedule"]
    factor = make_schedule(schedule["name"], settings.max_steps, schedule["warmup"], schedule["options"])
    agent = _agent(plain, sources, run, start, say)
    freeze(agent, plain["freeze"])
    if plain["lora"]["match"] is not None:
        add_lora(agent, **plain["lora"])
    if run.checkpoint:
        say(f"continuing {run.path} from step {run.saved}")
    elif plain["resume"]:
        say(f"there is nothing to resume in {run.path}: starting fresh")
    for name, source in sources.items():
        for some in filter(None, (source.training, source.held_out)):
            some.observe((agent.agents[name] if isinstance(agent, Crew) else agent).model.reads)
    readers = _readers(plain, sources)
    samples: dict[str, Any] = {name: source.training for name, source in sources.items()}
    weights = {name: source.weight for name, source in sources.items()}
    if readers:
        assert isinstance(agent, Agent)
        samples = {ACTIONS if name == "" else name: source for name, source in samples.items()}
        samples |= {name: ConversationSource(agent.assistant, reader) for name, reader in readers.items()}
        told = {name: float(plain["data"]["conversations"][name].get("weight", 1.0)) for name in readers}
        weights = {ACTIONS: weights[""]} | told
        say("\n".join(f"{name}: {len(reader)} conversations" for name, reader in readers.items()))
    total = sum(weights.values())
    for name, source in sources.items():
        share = f", {source.weight / total:.0%} of each batch" if len(weights) > 1 else ""
        count = f"{len(source.training)} samples of {len(source.training.episodes)} episodes"
        say(f"{name}: {count}{share}" if name else count)
    say(table(agent))
    held_out = {name: source.held_out for name, source in sources.items() if source.held_out is not None}
    digest = hashlib.blake2b(digest_size=8)
    for source in sources.values():
        digest.update(source.training.columns["action"].tobytes())
    return Trainer(
        settings,
        agent,
        _stream(samples, weights, settings.batch_size, plain["seed"]),
        run,
        accelerator,
        recipe,
        factor,
        plain["ema"] if plain["ema"]["decay"] else None,
        seed=plain["seed"],
        validation=_stream(held_out, weights, settings.batch_size, plain["seed"]) if held_out else None,
        data=digest.hexdigest(),
        name=lambda index: _place(sources, index),
        say=say,
    )


def _stream(samples: dict[str, Any], weights: dict[str, float], batch_size: int, seed: int) -> Any:
    """Batches of one dataset, or mixed ones of several."""
    from embodied.data import BatchStream, Mixture, MixtureStream

    if set(samples) == {""}:
        return BatchStream(samples[""], batch_size, seed)
    return MixtureStream(Mixture(samples), {name: weights[name] for name in samples}, batch_size, seed)


def _agent(
    plain: dict[str, Any], sources: dict[str, Demonstrations], run: RunFolder, start: Path | None, say: Any
) -> Agent | Crew:
    """The checkpoint's agent or crew, or a new one for these demonstrations, that may start from another checkpoint."""
    import torch

    from embodied.agent import Agent, create_agent
    from embodied.crew import Crew, create_crew
    from embodied.spec import pair
    from embodied.training.warm_start import warm_start

    if run.checkpoint:
        loaded = Agent.from_pretrained(run.checkpoint) if "" in sources else Crew.from_pretrained(run.checkpoint)
        for name, source in sources.items():
            agent = loaded.agents[name] if isinstance(loaded, Crew) else loaded
            pair(agent=agent.embodiment, dataset=source.training.embodiment)
        return loaded
    torch.manual_seed(plain["seed"])
    new: Agent | Crew
    if "" in sources:
        windows = sources[""].training
        words = [*windows.tasks, *texts(_readers(plain, sources))]
        new = create_agent(plain, windows.embodiment, words, windows.columns, windows.episode_ends)
    else:
        configs = {name: plain | _merged(plain, source.parts) for name, source in sources.items()}
        data = {name: source.training for name, source in sources.items()}
        new = create_crew(configs, data, plain["own"], plain["data"]["normalisation"])
    if start is not None:
        say(f"starting from {start}:")
        for line in warm_start(new, start, plain["own"]):
            say(line)
    return new


def _readers(plain: dict[str, Any], sources: dict[str, Demonstrations]) -> dict[str, Any]:
    """The readers of the conversations that are learned beside the demonstrations.

    Raises:
        ValueError: there is no chat template, or there are several datasets of demonstrations.
    """
    nodes = plain["data"]["conversations"] or {}
    if nodes and (not plain.get("chat") or "" not in sources):
        raise ValueError("data.conversations needs chat=<template> and one dataset of demonstrations in data.root")
    return {name: open_reader(name, {"kind": "instructions", **node}) for name, node in nodes.items()}


def _merged(plain: dict[str, Any], parts: Any) -> dict[str, Any]:
    """The configured nodes with a source's changes."""
    nodes = OmegaConf.create({key: plain[key] for key in parts})
    merged: Any = OmegaConf.to_container(OmegaConf.merge(nodes, OmegaConf.create(dict(parts))))
    return merged


def _place(sources: dict[str, Demonstrations], index: int) -> str:
    """Where a sample is found in the data."""
    from embodied.data import Mixture

    name, local = "", index
    if "" in sources and index >= len(sources[""].training):
        return f"{index - len(sources[''].training)} of the conversations"
    if "" not in sources:
        name, local = Mixture({name: source.training for name, source in sources.items()}).place(index)
    place = sources[name].training.where(local)
    return f"{name} {place}" if name else place


main = command("train", train)

if __name__ == "__main__":
    main()
