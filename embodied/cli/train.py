"""Train an agent on demonstrations, or go on with a run that stopped.

embodied-train experiment=quickstart data.root=data/button out=runs/quickstart
embodied-train experiment=quickstart data.root=data/button out=runs/quickstart resume=true

Several processes learn what one does; `accelerate launch` also starts them on several machines:

torchrun --nproc_per_node 2 -m embodied.cli.train experiment=quickstart data.root=data/button out=runs/quickstart
accelerate launch --multi_gpu --num_processes 2 -m embodied.cli.train experiment=quickstart ...
"""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from embodied.cli.app import command

if TYPE_CHECKING:
    from accelerate import Accelerator

    from embodied.agent import Agent
    from embodied.data import Windows
    from embodied.training.run_folder import RunFolder


def train(config: DictConfig) -> dict[str, Any]:
    """Train as configured; returns what `embodied.training.trainer.Trainer.train` does.

    Raises:
        ValueError: something in the config, the dataset or the run's folder is not as it has to be.
    """
    from embodied.training.processes import main_first, make_accelerator
    from embodied.training.run_folder import RunFolder
    from embodied.training.trainer import Settings

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    settings = Settings(**plain["trainer"])
    accelerator = make_accelerator(settings.device)
    share = plain["data"]["validation"]
    windows, held_out = main_first(
        accelerator, lambda main: _windows(plain["data"], plain["chunk"], share, plain["seed"], main)
    )

    def opened(main: bool) -> RunFolder:
        return RunFolder(plain["out"], plain, plain["resume"] or not main, write=main)

    run = main_first(accelerator, opened)
    try:
        return _trainer(plain, settings, accelerator, windows, held_out, run).train()
    finally:
        run.close()


def _trainer(
    plain: dict[str, Any],
    settings: Any,
    accelerator: Accelerator,
    windows: Windows,
    held_out: Windows | None,
    run: RunFolder,
) -> Any:
    from embodied.building import build
    from embodied.data import BatchStream
    from embodied.training.lora import add_lora
    from embodied.training.optimizer import OptimizerRecipe
    from embodied.training.schedule import make_schedule
    from embodied.training.trainable import freeze, table
    from embodied.training.trainer import Trainer

    say = print if accelerator.is_main_process else lambda line: None
    recipe = build(plain["optimizer"], (OptimizerRecipe,))
    schedule = plain["schedule"]
    factor = make_schedule(schedule["name"], settings.max_steps, schedule["warmup"], schedule["options"])
    agent = _agent(plain, windows, run)
    freeze(agent, plain["freeze"])
    if plain["lora"]["match"] is not None:
        add_lora(agent, **plain["lora"])
    if run.checkpoint:
        say(f"continuing {run.path} from step {run.saved}")
    elif plain["resume"]:
        say(f"there is nothing to resume in {run.path}: starting fresh")
    say(f"{len(windows)} samples of {len(windows.episodes)} episodes")
    say(table(agent))
    seed = plain["seed"]
    validation = BatchStream(held_out, settings.batch_size, seed) if held_out else None
    return Trainer(
        settings,
        agent,
        BatchStream(windows, settings.batch_size, seed),
        run,
        accelerator,
        recipe,
        factor,
        plain["ema"] if plain["ema"]["decay"] else None,
        seed=seed,
        validation=validation,
        data=hashlib.blake2b(windows.columns["action"].tobytes(), digest_size=8).hexdigest(),
        name=lambda index: _place(windows, index),
        say=say,
    )


def _agent(plain: dict[str, Any], windows: Windows, run: RunFolder) -> Agent:
    """The checkpoint's agent, or a new one for this dataset."""
    import torch

    from embodied.agent import Agent, create_agent
    from embodied.spec import pair

    if run.checkpoint:
        agent = Agent.from_pretrained(run.checkpoint)
        assert agent.embodiment is not None
        pair(agent=agent.embodiment, dataset=windows.embodiment)
        return agent
    torch.manual_seed(plain["seed"])
    return create_agent(plain, windows.embodiment, windows.tasks, windows.columns, windows.episode_ends)


def _windows(
    data: dict[str, Any], chunk: dict[str, Any], share: float, seed: int, main: bool
) -> tuple[Windows, Windows | None]:
    """The dataset's samples to train on, and those of the episodes held out."""
    import numpy as np

    from embodied.data import Cache, LeRobotDataset, Windows

    dataset = LeRobotDataset(data["root"], data["conventions"])
    count = len(dataset)
    if not 0 <= share < 1:
        raise ValueError(f"data.validation is a share of the episodes, at least 0 and below 1; got {share}")
    held = min(max(round(share * count), 1), count - 1) if share > 0 else 0
    if share > 0 and held == 0:
        raise ValueError(f"data.validation={share} holds out an episode, but {data['root']} has only {count}")
    order = np.random.default_rng(seed).permutation(count)
    cache = Cache(
        dataset,
        data["cameras"],
        location=data["cache"],
        processes=data["processes"],
        stream=sys.stderr if main else None,
    )
    sizes = {key: chunk[key] for key in ("history", "horizon", "every_step")}
    training = Windows(cache, episodes=sorted(order[held:].tolist()), **sizes)
    return training, Windows(cache, episodes=sorted(order[:held].tolist()), **sizes) if held else None


def _place(windows: Windows, index: int) -> str:
    """Where a sample is found in the dataset."""
    import numpy as np

    ends = windows.episode_ends
    episode = int(np.searchsorted(ends, index, side="right"))
    return f"{index} (episode {windows.episodes[episode]}, frame {index - (ends[episode - 1] if episode else 0)})"


main = command("train", train)

if __name__ == "__main__":
    main()
