"""A small agent and a small dataset with the trainer's side of the contracts, and nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from embodied.contracts import draw_normal, masked_mean
from embodied.training.lora import add_lora
from embodied.training.optimizer import AdamW
from embodied.training.processes import main_first, make_accelerator
from embodied.training.run_folder import RunFolder
from embodied.training.schedule import make_schedule
from embodied.training.trainable import freeze
from embodied.training.trainer import Settings, Trainer


class TinyAgent(nn.Module):
    """State to action chunk; noise on its input as a diffusion head would draw it, a part it does not use."""

    def __init__(self, noise: float = 0.1, dropout: float = 0.0) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {
                "encoder": nn.Sequential(nn.Linear(4, 32), nn.LayerNorm(32)),
                "backbone": nn.Linear(32, 32),
                "spare": nn.Linear(3, 3),
            }
        )
        self.head = nn.Linear(32, 6)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("seen", torch.zeros(()))
        self.noise = noise

    def loss(self, batch, generators=None):
        state = batch["observation.state"][:, -1]
        if self.training:
            with torch.no_grad():
                self.seen += 1
            state = state + self.noise * draw_normal(state.shape, state, generators)
        hidden = self.dropout(torch.relu(self.model["backbone"](self.model["encoder"](state))))
        error = (self.head(hidden).unflatten(-1, (3, 2)) - batch["action"]) ** 2
        loss = masked_mean(error, ~batch["action_is_pad"])
        return {"loss": loss, "first": masked_mean(error[..., :1], ~batch["action_is_pad"]).detach()}

    def save_pretrained(self, folder):
        (Path(folder) / "config.json").write_text(json.dumps({"noise": self.noise, "dropout": self.dropout.p}))
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, str(Path(folder) / "model.safetensors"))

    @classmethod
    def from_pretrained(cls, folder):
        agent = cls(**json.loads((Path(folder) / "config.json").read_text()))
        agent.load_state_dict(load_file(str(Path(folder) / "model.safetensors")))
        return agent.eval()


class TinyStream:
    """Samples whose chunk ends anywhere, so that rows keep different numbers of steps."""

    def __init__(self, batch_size: int = 8, samples: int = 64, seed: int = 0, bad: int | None = None) -> None:
        self.batch_size, self.seed, self.samples = batch_size, seed, samples
        g = np.random.default_rng(0)
        self.state = g.normal(size=(samples, 1, 4)).astype(np.float32)
        self.action = np.tanh(self.state[:, :, :2]).repeat(3, axis=1)
        self.pad = np.arange(3) >= g.integers(1, 4, size=(samples, 1))
        if bad is not None:
            self.state[bad] = np.nan

    def indices(self, step):
        return np.random.default_rng([self.seed, step]).integers(self.samples, size=self.batch_size)

    def row_seeds(self, step):
        return np.random.default_rng([self.seed, step, 1]).integers(2**60, size=self.batch_size)

    def gather(self, indices):
        arrays = {"observation.state": self.state, "action": self.action, "action_is_pad": self.pad}
        return {k: torch.from_numpy(v[indices]) for k, v in arrays.items()} | {"task": ["move"] * len(indices)}


def a_trainer(
    out, resume=False, agent=None, stream=None, ema=None, schedule="cosine", validation=None, prepare=None, **settings
):
    """A trainer in `out`, as the command would make it; `prepare(agent)` freezes or adapts."""
    defaults = {"batch_size": 8, "max_steps": 6, "save_every": 2, "log_every": 1, "precision": "float32", "threads": 1}
    made = Settings(**(defaults | settings))
    config = {"trainer": defaults | settings, "schedule": {"name": schedule}, "out": str(out)}
    accelerator = make_accelerator("cpu")
    run = main_first(accelerator, lambda main: RunFolder(out, config, resume or not main, write=main))
    torch.manual_seed(0)
    agent = agent or (TinyAgent.from_pretrained(run.checkpoint) if run.checkpoint else TinyAgent())
    if prepare:
        prepare(agent)
    recipe = AdamW(lr=1e-2, weight_decay=0.1)
    factor = make_schedule(schedule, made.max_steps, 0.2)
    said = []
    trainer = Trainer(made, agent, stream or TinyStream(made.batch_size), run, accelerator, recipe, factor, ema,
                      validation=validation, say=said.append)  # fmt: skip
    trainer.said = said
    return trainer


def weights(folder) -> dict[str, torch.Tensor]:
    """The agent's weights in a checkpoint."""
    return load_file(str(Path(folder) / "model.safetensors"))


def state(folder) -> dict[str, torch.Tensor]:
    """The training state's tensors in a checkpoint, by file and name."""
    files = sorted((Path(folder) / "training_state").glob("*.safetensors"))
    return {f"{file.name}:{k}": v for file in files for k, v in load_file(str(file)).items()}


def train_and_die(out, die_at: str = "", calls: int = 1, pace: float = 0.0, **arguments):
    """`a_trainer` trained in this process, which kills itself when `die_at` has been called `calls` times before."""
    if die_at:
        path, _, attribute = die_at.rpartition(".")
        owner = pkgutil.resolve_name(path)
        original, left = getattr(owner, attribute), iter(range(calls))

        def dying(*args, **kwargs):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, attribute, dying)
    stream = TinyStream(8)
    gather = stream.gather
    stream.gather = lambda indices: (time.sleep(pace), gather(indices))[1]
    a_trainer(out, resume=True, stream=stream, **arguments).train()


def quick_processes():
    """Processes that start at once: forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fakes.training", "peft"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


def adapted(agent) -> None:
    """LoRA on the backbone, a frozen encoder."""
    freeze(agent, ["encoder"])
    add_lora(agent, r"backbone", rank=2)
