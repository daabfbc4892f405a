"""Teach a language model to see and to answer, by a recipe of stages.

embodied-tune recipe=llava-1.5 model=small out=runs/vlm \
    'data.sources={captions: {kind: pairs, format: chat, file: data/scenes/train/captions.jsonl}, \
                   questions: {kind: instructions, format: chat, file: data/scenes/train/vqa.jsonl}}'
embodied-tune ... resume=true                                # go on where it stopped, in whichever stage
embodied-tune model=zoo/llava-1.5 tiny=true recipe=llava-1.5 ...   # a row of the zoo, tiny
embodied-tune init=<Hugging Face folder> recipe=sharegpt4v ...     # a released checkpoint
embodied-tune encoder_from=runs/vlm/1-see only=[align,tune] ...   # an encoder that sees already, for another connector
embodied-tune ... packing=best_fit                           # several conversations in a row: the same training, faster
embodied-tune ... video.frames=16 +video@row.model.video=timesformer    # films through an encoder of their own

Each stage says which parts train, on which kinds of data and at which rate (conf/recipe); 'stages={tune: {steps: 500}}'
and the like change one. A stage starts from the one before it, and is a run of its own in `out`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embodied.building import build
from embodied.cli.app import command
from embodied.cli.configs import compose, explain

if TYPE_CHECKING:
    from embodied.assistant import Assistant
    from embodied.data.multimodal.readers.base import Reader
    from embodied.training.encoder_lesson import EncoderLesson


def tune(config: DictConfig) -> dict[str, Any]:
    """Run the recipe's stages; returns the last one's results (`Trainer.train`).

    Raises:
        ValueError: something in the config, the data or a stage's folder is not as it has to be.
    """
    from embodied.training.run_folder import newest

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    stages = _stages(plain)
    for name in plain["only"] or stages:
        _sources(plain, name, stages[name])
    readers = {name: open_reader(name, node) for name, node in plain["data"]["sources"].items()}
    before: Path | None = None
    results: dict[str, Any] = {}
    for number, (name, stage) in enumerate(stages.items(), 1):
        folder = Path(plain["out"]) / f"{number}-{name}"
        if plain["only"] is not None and name not in plain["only"]:
            if found := newest(folder):
                _same_model(plain, folder)
                before = found
            continue
        print(f"stage {name} in {folder}: {_shown(stage)}")
        results = _run(plain, name, stage, folder, before, readers)
        before = newest(folder)
    return results


def _same_model(plain: Mapping[str, Any], folder: Path) -> None:
    """See that a stage which ran before trained the model that this command names.

    Raises:
        ValueError: it trained another.
    """
    from embodied.training.run_folder import leaves, read_config

    before, now = (dict(leaves(config.get("row", {}).get("model", {}))) for config in (read_config(folder), plain))
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{folder} was trained with row.model.{key}={before.get(key)}, not {now.get(key)}: name another out="
            )


def _stages(plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipe's stages, changed as asked.

    Raises:
        ValueError: a change to a stage that does not exist, or of something a stage does not say.
    """
    from embodied.training.stages import check_stages

    stages = {name: dict(stage) for name, stage in plain["recipe"]["stages"].items()}
    for name, changes in (plain["stages"] or {}).items():
        if name not in stages:
            raise ValueError(f"stages has '{name}', but the recipe has {', '.join(stages)}")
        stages[name] |= changes
    check_stages(stages, "stages")
    for name in plain["only"] or ():
        if name not in stages:
            raise ValueError(f"only has '{name}', but the recipe has {', '.join(stages)}")
    return stages


def _sources(plain: Mapping[str, Any], name: str, stage: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of the sources that a stage learns from.

    Raises:
        ValueError: a source does not say what it is; there is none of a kind that the stage asks for.
    """
    for source, node in plain["data"]["sources"].items():
        if not isinstance(node, Mapping) or "kind" not in node or "format" not in node:
            raise ValueError(
                f"data.sources.{source} needs kind (what stages ask for) and format (one of conf/multimodal)"
            )
    nodes = {source: node for source, node in plain["data"]["sources"].items() if node["kind"] in stage["data"]}
    if not nodes:
        have = ", ".join(sorted({node["kind"] for node in plain["data"]["sources"].values()})) or "none"
        raise ValueError(
            f"stage {name} learns from {', '.join(stage['data'])}, but the kinds of data.sources are {have}"
        )
    return nodes


def open_reader(name: str, node: Mapping[str, Any]) -> Reader:
    """A source's reader: `format` names one of conf/multimodal, further keys are its arguments."""
    from embodied.data.multimodal.readers.base import Reader

    arguments = {key: value for key, value in node.items() if key not in ("kind", "weight", "together", "format")}
    reader: Reader = build(option("multimodal", str(node["format"])) | arguments, (Reader,))
    return reader


def option(group: str, name: str) -> dict[str, Any]:
    """The node of a config group's option.

    Raises:
        ValueError: there is none of that name.
    """
    override = f"+{group}@chosen={name}"
    try:
        node: Any = OmegaConf.to_container(compose("tune", [override]).chosen)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain("tune", [override], error)) from None
    return dict(node)


def _run(
    plain: dict[str, Any],
    name: str,
    stage: dict[str, Any],
    folder: Path,
    before: Path | None,
    readers: Mapping[str, Reader],
) -> dict[str, Any]:
    from embodied.lvlm.chat.packing import BestFit, SharedPrefix
    from embodied.training.conversations import ConversationStream
    from embodied.training.optimizer import OptimizerRecipe
    from embodied.training.processes import main_first, make_accelerator
    from embodied.training.run_folder import RunFolder
    from embodied.training.schedule import make_schedule
    from embodied.training.stages import train_parts
    from embodied.training.trainable import table
    from embodied.training.trainer import Settings, Trainer
    from embodied.training.visual_regions import VisualRegions
    from embodied.training.visual_words import VisualWords

    nodes = _sources(plain, name, stage)
    trainer = dict(plain["trainer"])
    trainer["max_steps"] = stage.get("steps", trainer["max_steps"])
    trainer["batch_size"] = stage.get("batch_size", trainer["batch_size"])
    settings = Settings(**trainer)
    accelerator = make_accelerator(settings.device)
    say = print if accelerator.is_main_process else lambda line: None
    kept = {**plain, "stage": stage, "before": str(before) if before else None}
    resume = plain["resume"] and folder.exists()
    run = main_first(accelerator, lambda main: RunFolder(folder, kept, resume or not main, write=main))
    try:
        assistant = _assistant(plain, run.checkpoint or before, readers)
        lr = float(stage["lr"])
        rates = train_parts(assistant, stage["train"], lr, plain["lora"])
        recipe = build(plain["optimizer"] | {"lr": lr, "rates": rates}, (OptimizerRecipe,))
        schedule = plain["schedule"] | dict(stage.get("schedule", {}))
        factor = make_schedule(schedule["name"], settings.max_steps, schedule["warmup"], schedule["options"])
        weights = {source: float(node.get("weight", len(readers[source]))) for source, node in nodes.items()}
        together = {source: node["together"] for source, node in nodes.items() if "together" in node}
        chosen = {source: readers[source] for source in nodes}
        packing = build(plain["packing"], (BestFit, SharedPrefix)) if plain.get("packing") else None
        stream = ConversationStream(
            assistant, chosen, weights, settings.batch_size, plain["seed"], plain["data"]["on_error"], packing, together
        )
        say("\n".join(f"{source}: {len(reader)} samples" for source, reader in chosen.items()))
        learner: Assistant | EncoderLesson = assistant
        lessons: dict[str, type[EncoderLesson]] = {kind.objective: kind for kind in (VisualRegions, VisualWords)}
        if lesson := lessons.get(stage.get("objective", "answers")):
            learner = lesson.of(assistant, texts(chosen, role="assistant"))
            if run.checkpoint:
                learner.load_head(run.checkpoint)
        say(table(learner))
        digest = hashlib.blake2b(repr([(name, len(reader)) for name, reader in chosen.items()]).encode(), digest_size=8)
        averaged = plain["ema"] if plain["ema"]["decay"] else None
        results = Trainer(
            settings, learner, stream, run, accelerator, recipe, factor, averaged, seed=plain["seed"],
            data=digest.hexdigest(), name=stream.name, say=say,
        ).train()  # fmt: skip
        if stream.samples.faults.total:
            say(f"left out: {stream.samples.faults}")
        return results
    finally:
        run.close()


def _assistant(plain: dict[str, Any], folder: Path | None, readers: Mapping[str, Reader]) -> Assistant:
    """The assistant of a checkpoint, or of `init`, or a new one."""
    import torch
    from transformers import AutoTokenizer

    from embodied.assistant import Assistant, is_assistant
    from embodied.data.multimodal.films import FilmSampling
    from embodied.lvlm.tokenizers.text import TextTokenizer
    from embodied.lvlm.zoo import Row

    if folder is not None:
        return Assistant.from_pretrained(folder)
    row = Row.from_dict(plain["row"])
    chat = plain.get("chat") or option("chat", row.chat)
    text = plain["text"]
    if plain["init"]:
        start = _saved(plain["init"])
        own = is_assistant(start) and not plain.get("chat")
        assistant = Assistant.from_pretrained(start, None if own else chat)
        assistant.max_tokens = assistant.encode.max_tokens = text["max_tokens"]
        assistant.drop_turns = assistant.encode.drop_turns = text["drop_turns"]
        assistant.video = FilmSampling.from_dict(plain["video"])
        return assistant
    tokenizer: Any
    if text["checkpoint"]:
        tokenizer = AutoTokenizer.from_pretrained(text["checkpoint"], local_files_only=True)
    else:
        tokenizer = TextTokenizer.train(texts(readers), text["vocabulary"], text["single_digits"]).tokenizer
    torch.manual_seed(plain["seed"])
    node = row.node(plain["tiny"])
    model = _model(node, tokenizer, plain["tiny"])
    if plain["encoder_from"]:
        _take_encoder(model, plain["encoder_from"])
    return Assistant(model, tokenizer, chat, text["max_tokens"], text["drop_turns"], video=plain["video"])


def _model(node: dict[str, Any], tokenizer: Any, tiny: bool) -> Any:
    """The model, whose vocabulary is the tokenizer's where the node leaves it open, or is tiny."""
    from embodied.lvlm.model import LVLM

    config = node["backbone"].get("config") or {}
    if tiny and config.get("vocab_size", len(tokenizer)) < len(tokenizer):
        config["vocab_size"] = len(tokenizer)
    if "vocab_size" in config and config["vocab_size"] < len(tokenizer):
        raise ValueError(f"the tokenizer has {len(tokenizer)} ids, the language model {config['vocab_size']}")
    return LVLM.from_config(node, len(tokenizer))


def _take_encoder(model: Any, folder: str | Path) -> None:
    """Give a new model the encoder of another assistant.

    Raises:
        ValueError: the folder holds none, or one of another shape.
    """
    from embodied.assistant import Assistant

    theirs = Assistant.from_pretrained(_saved(folder)).model.vision
    if theirs is None or model.vision is None:
        raise ValueError(f"encoder_from={folder}: {'this model' if theirs else 'that one'} has no encoder")
    try:
        model.vision.encoder.load_state_dict(theirs.encoder.state_dict())
    except RuntimeError:
        raise ValueError(f"encoder_from={folder} has another shape than row.model.encoder") from None


def _saved(folder: str | Path) -> Path:
    """The model's folder, where a run's or a whole recipe's is given: the newest checkpoint of the last stage."""
    from embodied.evaluation.policies import newest_stage
    from embodied.training.run_folder import newest

    stage = newest_stage(folder) or Path(folder)
    return newest(stage) or stage


def texts(readers: Mapping[str, Reader], role: str | None = None) -> Iterator[str]:
    """What is said in the data, by `role` or by all: a share of each source that is enough to train a tokenizer on."""
    from embodied.data.multimodal.sample import BrokenSample

    for reader in readers.values():
        for index in range(0, len(reader), max(1, len(reader) // 20000)):
            try:
                messages = reader.read(index).messages
            except BrokenSample:
                continue  # said, or counted, when its turn to be learned comes
            for message in messages:
                if role not in (None, message["role"]):
                    continue
                yield from (part["text"] for part in message["content"] if part["type"] == "text")


def _shown(stage: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{part} {mode}" for part, mode in stage["train"].items())
    return f"trains {parts}, on {', '.join(stage['data'])}, at {stage['lr']:g}"


main = command("tune", tune)

if __name__ == "__main__":
    main()
