"""A small crew of two small agents with different heads, and batches for it, for the trainer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from torch import nn

from embodied.crew import Crew
from embodied.data.mixture import Mixture, MixtureStream
from embodied.weights import save_weights
from fakes.training import TinyAgent, TinyStream


class TinyCrew(Crew):
    """Its agents share encoder and backbone; one predicts two numbers a step, the other one."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        agents = {"a": TinyAgent(), "b": _Narrow()}
        for name, agent in agents.items():
            agent.embodiment = SimpleNamespace(action=name, state=None, rate=1)
        super().__init__(agents, own=["head", "model.spare"])

    def save_pretrained(self, folder):
        save_weights(self, Path(folder) / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder):
        crew = cls()
        crew.load_state_dict(load_file(str(Path(folder) / "model.safetensors")), strict=False)
        return crew


class _Narrow(TinyAgent):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, 3)

    def loss(self, batch, generators=None):
        state = batch["observation.state"][:, -1]
        hidden = torch.relu(self.model["backbone"](self.model["encoder"](state)))
        error = (self.head(hidden).unsqueeze(-1) - batch["action"][..., :1]) ** 2
        keep = (~batch["action_is_pad"]).unsqueeze(-1)
        return {"loss": (error * keep).sum() / keep.sum().clamp(min=1)}


class _Source(TinyStream):
    def __len__(self):
        return self.samples

    def batch(self, indices):
        return self.gather(indices)


def mixed_stream(batch_size: int) -> MixtureStream:
    """Twice as many rows of the second source; with few rows, some parts of a batch have none of the first."""
    sources = {"a": _Source(samples=20), "b": _Source(samples=33, seed=1)}
    return MixtureStream(Mixture(sources), {"a": 1.0, "b": 2.0}, batch_size, seed=0)
